//! Tills: the callers of the API, with their org, secrets and permissions.

use std::fmt;

use chrono::{DateTime, Utc};
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{
    model::{access_token::TokenLifetime, org::OrgId},
    secret::Secret,
    wire::{hex, wire_enum},
};

wire_enum! {
    /// What a till may do. Each route requires one permission. `otp:issue_to_any` extends
    /// `otp:issue`.
    pub enum Permission {
        OtpFetch = "otp:fetch",
        OtpIssue = "otp:issue",
        /// Having the OTP of a customer sent to addresses that are not the customer's.
        OtpIssueToAny = "otp:issue_to_any",
        OtpValidate = "otp:validate",
        CardNumberGenerate = "card_number:generate",
        CustomerRegister = "customer:register",
        CustomerRead = "customer:read",
        CustomerUpdate = "customer:update",
    }
}

impl Permission {
    /// What a till with it may do, for the operator who grants it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::OtpFetch => "read the most recent valid OTP of a customer, in clear text",
            Self::OtpIssue => "have OTPs sent to a customer's own addresses, or to addresses of nobody",
            Self::OtpIssueToAny => {
                "DANGEROUS: have a customer's OTP sent to any address that the request names. Whoever has the till's \
                 password can get every customer's OTP. Needs otp:issue, too"
            }
            Self::OtpValidate => "check a typed OTP, and use it up",
            Self::CardNumberGenerate => "take the next numbers of the numbering plan",
            Self::CustomerRegister => "register customers, and add profiles to them",
            Self::CustomerRead => "look customers up, and read their names and identifiers",
            Self::CustomerUpdate => "change the identifiers of customers",
        }
    }
}

/// A till's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. It becomes part of a key, and Basic
/// credentials do not allow a colon in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TillName(String);

impl TillName {
    /// `None` when `name` is not a valid name.
    pub fn parse(name: &str) -> Option<Self> {
        let well_formed = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        well_formed.then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TillName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A till's password: 26 characters of base 32, 130 bits from the operating system's generator.
#[derive(Debug, Clone)]
pub struct Password(Secret<String>);

impl Password {
    /// Letters and digits that are not mistaken for each other when read aloud or typed.
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    const LENGTH: usize = 26;

    pub fn generate(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = [0; Self::LENGTH];
        rng.fill_bytes(&mut bytes);
        let text = bytes.iter().map(|b| char::from(Self::ALPHABET[usize::from(b % 32)])).collect();
        Self(Secret::new(text))
    }

    /// The password in clear text. It is shown only once.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// The stored form of a password: its SHA-256, and the SHA-256 of `md5hex(password)`, which
/// existing clients send instead. A digest without salt or stretching is enough for 130 random
/// bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub created_at: DateTime<Utc>,
    pub password_digest: [u8; 32],
    pub md5hex_digest: [u8; 32],
}

/// Tells the credentials of a till apart: the digest of the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialId(pub [u8; 32]);

impl Credential {
    pub fn new(password: &str, created_at: DateTime<Utc>) -> Self {
        let md5hex = hex(&Md5::digest(password));
        Self {
            created_at,
            password_digest: Sha256::digest(password).into(),
            md5hex_digest: Sha256::digest(md5hex).into(),
        }
    }

    pub const fn id(&self) -> CredentialId {
        CredentialId(self.password_digest)
    }
}

/// A till as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Till {
    pub name: TillName,
    pub org: OrgId,
    pub permissions: Vec<Permission>,
    /// Oldest first; two while a rotation overlaps, none once the till is revoked.
    pub credentials: Vec<Credential>,
    /// How long its access tokens are valid.
    pub token_lifetime: TokenLifetime,
}

impl Till {
    /// The credential whose password, or the `md5hex` of it, is `secret`. Every digest is compared,
    /// and in constant time.
    pub fn credential(&self, secret: &str) -> Option<CredentialId> {
        let digest = Sha256::digest(secret);
        let is_secret_of = |credential: &Credential| -> Choice {
            digest.ct_eq(credential.password_digest.as_slice())
                | digest.ct_eq(credential.md5hex_digest.as_slice())
        };
        self.credentials.iter().fold(None, |found, credential| {
            if is_secret_of(credential).into() { Some(credential.id()) } else { found }
        })
    }

    /// Whether `secret` is the password of a credential or its `md5hex`.
    pub fn accepts(&self, secret: &str) -> bool {
        self.credential(secret).is_some()
    }

    pub fn has_credential(&self, id: CredentialId) -> bool {
        self.credentials.iter().any(|credential| credential.id() == id)
    }

    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::os_rng;

    fn till(passwords: &[&str]) -> Till {
        Till {
            name: TillName::parse("store.server").unwrap(),
            org: OrgId(966),
            permissions: vec![Permission::OtpFetch],
            credentials: passwords.iter().map(|p| Credential::new(p, DateTime::UNIX_EPOCH)).collect(),
            token_lifetime: TokenLifetime::default(),
        }
    }

    #[test]
    fn the_password_and_its_md5hex_are_accepted() {
        let till = till(&["server123"]);
        assert!(till.accepts("server123"));
        assert!(till.accepts("8a16a6b70505eb1f1ff7cdc0cd5559a7"));
    }

    #[test]
    fn other_secrets_are_refused() {
        let till = till(&["server123"]);
        for secret in ["", "server12", "server1234", "SERVER123", "8a16a6b70505eb1f1ff7cdc0cd5559a8"] {
            assert!(!till.accepts(secret), "{secret}");
        }
        let stored = format!("{:x?}", till.credentials[0].password_digest);
        assert!(!till.accepts(&stored), "the digest itself opens nothing");
    }

    #[test]
    fn old_and_new_secrets_are_accepted_while_a_rotation_overlaps_and_none_once_revoked() {
        let rotated = till(&["old", "new"]);
        assert!(rotated.accepts("old") && rotated.accepts("new"));
        assert!(!till(&[]).accepts(""));
    }

    #[test]
    fn a_secret_belongs_to_one_credential() {
        let rotated = till(&["old", "server123"]);
        let [old, new] = [0, 1].map(|at| rotated.credentials[at].id());
        assert_eq!(rotated.credential("old"), Some(old));
        assert_eq!(rotated.credential("server123"), Some(new));
        assert_eq!(rotated.credential("8a16a6b70505eb1f1ff7cdc0cd5559a7"), Some(new));
        assert_eq!(rotated.credential("other"), None);
        assert!(rotated.has_credential(old) && !till(&["server123"]).has_credential(old));
    }

    #[test]
    fn passwords_are_long_and_differ_and_hide_from_debug() {
        let mut rng = os_rng();
        let (a, b) = (Password::generate(&mut rng), Password::generate(&mut rng));
        // 32 symbols are 5 bits each.
        assert!(a.expose().len() * 5 >= 128);
        assert_ne!(a.expose(), b.expose());
        assert!(!format!("{a:?}").contains(a.expose()));
        assert_eq!(Password::ALPHABET.iter().collect::<std::collections::HashSet<_>>().len(), 32);
    }

    #[test]
    fn names_that_could_not_be_sent_or_stored_are_refused() {
        assert!(TillName::parse("store.server-1_A").is_some());
        let long = "x".repeat(65);
        for name in ["", "a:b", "a b", "a#b", "käse", &long] {
            assert!(TillName::parse(name).is_none(), "{name}");
        }
    }
}
