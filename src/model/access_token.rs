//! Access tokens: what a till sends instead of its password.

use std::ops::RangeInclusive;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use crate::{
    model::till::{CredentialId, TillName},
    secret::Secret,
};

/// An access token: 256 bits from the operating system's generator, in 43 characters of base64url.
#[derive(Debug, Clone)]
pub struct AccessToken(Secret<String>);

impl AccessToken {
    const BYTES: usize = 32;

    pub fn generate(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = [0; Self::BYTES];
        rng.fill_bytes(&mut bytes);
        Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// `None` when `text` does not have the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == Self::BYTES).then(|| Self(Secret::new(text.to_owned())))
    }

    /// The token in clear text. It is shown only in the response that issues it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.expose()).into())
    }
}

/// The SHA-256 of a token. It is stored instead of the token. A digest without salt or stretching
/// is enough for 256 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

/// How long the tokens of a till are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLifetime(u32);

impl TokenLifetime {
    /// The lifetimes that a till can have, in seconds.
    pub const SECONDS: RangeInclusive<u32> = 60..=86_400;

    /// `None` when `seconds` is out of range.
    pub fn new(seconds: u32) -> Option<Self> {
        Self::SECONDS.contains(&seconds).then_some(Self(seconds))
    }

    pub const fn seconds(self) -> u32 {
        self.0
    }
}

/// An hour. Existing clients keep a token for that long, whatever the response says.
impl Default for TokenLifetime {
    fn default() -> Self {
        Self(3600)
    }
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    pub till: TillName,
    /// The credential by which the till got the token. The token is valid only as long as the till
    /// has that credential.
    pub credential: CredentialId,
    pub valid_until: DateTime<Utc>,
}

impl TokenGrant {
    pub fn new(
        till: TillName,
        credential: CredentialId,
        lifetime: TokenLifetime,
        now: DateTime<Utc>,
    ) -> Self {
        Self { till, credential, valid_until: now + TimeDelta::seconds(lifetime.0.into()) }
    }

    /// Whether the token has not expired.
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        now < self.valid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::os_rng;

    #[test]
    fn tokens_differ_and_are_parsed_and_hide_from_debug() {
        let (a, b) = (AccessToken::generate(&mut os_rng()), AccessToken::generate(&mut os_rng()));
        assert_eq!(a.expose().len(), 43);
        assert_ne!(a.expose(), b.expose());
        assert_ne!(a.digest(), b.digest());
        let parsed = AccessToken::parse(a.expose()).unwrap();
        assert_eq!(parsed.digest(), a.digest());
        assert!(!format!("{a:?}").contains(a.expose()));
    }

    #[test]
    fn texts_of_another_form_are_no_tokens() {
        let token = AccessToken::generate(&mut os_rng()).expose().to_owned();
        for text in ["", "token", &token[1..], &format!("{token}="), &format!("{token} "), &token.repeat(2)] {
            assert!(AccessToken::parse(text).is_none(), "{text}");
        }
        // The last character has bits that belong to no byte. They must be zero, so that a token
        // has one spelling.
        assert!(AccessToken::parse(&"A".repeat(43)).is_some());
        assert!(AccessToken::parse(&format!("{}B", "A".repeat(42))).is_none());
    }

    #[test]
    fn a_lifetime_is_a_minute_to_a_day() {
        for (seconds, valid) in [(0, false), (59, false), (60, true), (86_400, true), (86_401, false)] {
            assert_eq!(TokenLifetime::new(seconds).is_some(), valid, "{seconds}");
        }
        assert_eq!(TokenLifetime::new(3600), Some(TokenLifetime::default()));
    }
}
