//! Customers: how they are identified, and the normal form of each identifier.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::wire::wire_enum;

wire_enum! {
    /// Where a customer is registered.
    pub enum Source {
        /// The shops themselves; has the one account `""`.
        Instore = "INSTORE",
        Wechat = "WECHAT",
        Martjack = "MARTJACK",
        WebEngage = "WEB_ENGAGE",
        Facebook = "FACEBOOK",
        Tmall = "TMALL",
        Taobao = "TAOBAO",
        Jd = "JD",
        Ecommerce = "ECOMMERCE",
        Website = "WEBSITE",
        Line = "LINE",
        MobileApp = "MOBILE_APP",
        Kaola = "KAOLA",
        Pinduoduo = "PINDUODUO",
        Suning = "SUNING",
        Xiaohongshu = "XIAOHONGSHU",
        Zalo = "ZALO",
        MappSdk = "MAPP_SDK",
        GlobalScanner = "GLOBAL_SCANNER",
        /// Any source that is not listed.
        Others = "OTHERS",
    }
}

wire_enum! {
    /// What kind of thing identifies a customer.
    pub enum IdentifierName {
        Mobile = "mobile",
        Email = "email",
        ExternalId = "external_id" | "externalId",
        Wechat = "wechat",
    }
}

/// The id of one of a source's accounts; `""` for INSTORE.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub String);

/// A source together with one of its accounts: the space in which identifiers are unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub source: Source,
    pub id: AccountId,
}

impl Account {
    /// The shops' one account.
    #[must_use]
    pub const fn instore() -> Self {
        Self { source: Source::Instore, id: AccountId(String::new()) }
    }
}

/// Written `SOURCE:account`, as `SOURCE_ACCOUNTS_EXTERNALID_ENABLED` spells it.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.id.0)
    }
}

impl Serialize for Account {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let (source, id) = text
            .split_once(':')
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not of the form SOURCE:account")))?;
        let source = Source::parse(source)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown source `{source}`")))?;
        Ok(Self { source, id: AccountId(id.to_owned()) })
    }
}

/// A registered customer's number, unique within the org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub u64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An identifier in its normal form. Made by [`Identifier::new`] only, so that two spellings of
/// one mobile number cannot be two customers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier {
    name: IdentifierName,
    value: String,
}

impl Identifier {
    /// Brings `raw` into the normal form of its kind:
    /// a mobile is digits with country code, an e-mail address is trimmed and lower-cased,
    /// an external ID or WeChat open id is trimmed and otherwise kept.
    ///
    /// # Errors
    /// [`Malformed`] when `raw` cannot be an identifier of that kind.
    pub fn new(
        name: IdentifierName,
        raw: &str,
        phone_number_plan: &PhoneNumberPlan,
    ) -> Result<Self, Malformed> {
        let value = match name {
            IdentifierName::Mobile => phone_number_plan.mobile(raw),
            IdentifierName::Email => email(raw),
            IdentifierName::ExternalId | IdentifierName::Wechat => opaque(raw),
        };
        value.map(|value| Self { name, value }).ok_or(Malformed(name))
    }

    #[must_use]
    pub const fn name(&self) -> IdentifierName {
        self.name
    }

    /// The normal form. It is a customer's: it goes into items and answers, never into a log line.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Shows the kind and hides the value.
impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({}, [hidden])", self.name)
    }
}

/// An identifier within the account in which it is unique. External IDs are unique in the whole org and
/// have no account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    account: Option<Account>,
    identifier: Identifier,
}

impl Identity {
    /// `identifier`, as it is used in `account`.
    #[must_use]
    pub fn new(account: Account, identifier: Identifier) -> Self {
        let account = (identifier.name != IdentifierName::ExternalId).then_some(account);
        Self { account, identifier }
    }

    #[must_use]
    pub const fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    #[must_use]
    pub const fn identifier(&self) -> &Identifier {
        &self.identifier
    }
}

/// The value is not one that this kind of identifier can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub IdentifierName);

/// How an org's national mobile numbers become international ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneNumberPlan {
    /// Digits of the country code, `91`.
    pub country_code: String,
    /// How many digits a number without country code has.
    pub national_mobile_length: usize,
}

/// E.164: a number has at most 15 digits with its country code. The shortest in use have 7.
pub(crate) const MOBILE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// RFC 5321, 4.5.3.1.3: a path is at most 256 octets with its angle brackets.
pub(crate) const EMAIL_MAX_BYTES: usize = 254;
/// Far above any real one, far below the 1,024 bytes that a DynamoDB key may have.
pub(crate) const OPAQUE_MAX_BYTES: usize = 200;

impl PhoneNumberPlan {
    /// A number with a leading `+` or `00` has its country code already, and so has one that is not
    /// exactly as long as a national number.
    fn mobile(&self, raw: &str) -> Option<String> {
        let trimmed = raw.trim();
        let (international, rest) = match trimmed.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => trimmed.strip_prefix("00").map_or((false, trimmed), |rest| (true, rest)),
        };
        let digits: String = rest.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = if !international && digits.len() == self.national_mobile_length {
            format!("{}{digits}", self.country_code)
        } else {
            digits
        };
        // No country code begins with 0: such a number has a trunk prefix, and whose is unknown.
        (MOBILE_DIGITS.contains(&number.len()) && !number.starts_with('0')).then_some(number)
    }
}

fn email(raw: &str) -> Option<String> {
    let address = raw.trim().to_lowercase();
    let (local, domain) = address.split_once('@')?;
    let well_formed = !local.is_empty()
        && address.len() <= EMAIL_MAX_BYTES
        && !domain.contains('@')
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
        && !address.chars().any(|c| c.is_whitespace() || c.is_control());
    well_formed.then_some(address)
}

fn opaque(raw: &str) -> Option<String> {
    let value = raw.trim();
    let well_formed = !value.is_empty()
        && value.len() <= OPAQUE_MAX_BYTES
        // The replacement character stands for bytes that were no text.
        && !value.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    well_formed.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn india() -> PhoneNumberPlan {
        PhoneNumberPlan { country_code: "91".into(), national_mobile_length: 10 }
    }

    fn normal(name: IdentifierName, raw: &str) -> Option<String> {
        Identifier::new(name, raw, &india()).ok().map(|identifier| identifier.value)
    }

    #[test]
    fn spellings_of_one_mobile_have_one_normal_form() {
        for raw in [
            "8799361139",
            "918799361139",
            "+91 87993 61139",
            "+91-(87993)-61139",
            "00918799361139",
            " 87993.61139 ",
        ] {
            assert_eq!(normal(IdentifierName::Mobile, raw).as_deref(), Some("918799361139"), "{raw}");
        }
    }

    #[test]
    fn a_plus_says_that_the_country_code_is_there_already() {
        assert_eq!(normal(IdentifierName::Mobile, "+6591234567").as_deref(), Some("6591234567"));
        assert_eq!(normal(IdentifierName::Mobile, "6591234567").as_deref(), Some("916591234567"));
    }

    #[test]
    fn malformed_mobiles_are_refused() {
        for raw in ["", "+", "12345", "87993x1139", "1234567890123456", "08799361139", "٨٧٩٩٣٦١١٣٩", "+ +91"]
        {
            assert_eq!(normal(IdentifierName::Mobile, raw), None, "{raw}");
        }
    }

    #[test]
    fn email_is_trimmed_and_lower_cased() {
        assert_eq!(
            normal(IdentifierName::Email, " Tom.Sawyer@Example.COM ").as_deref(),
            Some("tom.sawyer@example.com")
        );
    }

    #[test]
    fn malformed_emails_are_refused() {
        let long = format!("{}@example.com", "a".repeat(250));
        for raw in [
            "",
            "tom",
            "@example.com",
            "tom@",
            "tom@example",
            "a@b@c.de",
            "to m@example.com",
            "t@.com",
            &long,
        ] {
            assert_eq!(normal(IdentifierName::Email, raw), None, "{raw}");
        }
    }

    #[test]
    fn opaque_identifiers_keep_their_case_and_may_be_in_any_script() {
        assert_eq!(normal(IdentifierName::ExternalId, " Ab-0012 ").as_deref(), Some("Ab-0012"));
        assert_eq!(normal(IdentifierName::Wechat, "微信-1").as_deref(), Some("微信-1"));
        assert_eq!(normal(IdentifierName::Wechat, " "), None);
        assert_eq!(normal(IdentifierName::ExternalId, "a\nb"), None);
        assert_eq!(normal(IdentifierName::ExternalId, &"x".repeat(201)), None);
    }

    #[test]
    fn debug_hides_the_value() {
        let identifier = Identifier::new(IdentifierName::Mobile, "8799361139", &india()).unwrap();
        assert_eq!(format!("{identifier:?}"), "Identifier(mobile, [hidden])");
    }

    #[test]
    fn enumerations_are_read_in_any_case() {
        assert_eq!(Source::parse("wechat"), Some(Source::Wechat));
        assert_eq!(IdentifierName::parse("EXTERNALID"), Some(IdentifierName::ExternalId));
        assert_eq!(Source::parse("TELEX"), None);
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(raw in "\\PC{0,40}|[+0]{0,2}[0-9 ().-]{5,16}|[A-Za-z.+]{1,9}@[A-Za-z]{1,5}\\.[A-Za-z]{2,4}") {
            for name in IdentifierName::ALL {
                if let Some(once) = normal(*name, &raw) {
                    // A bare normal form of national length would gain a country code: the `+` says it has one.
                    let again = if *name == IdentifierName::Mobile { format!("+{once}") } else { once.clone() };
                    prop_assert_eq!(normal(*name, &again), Some(once));
                }
            }
        }
    }
}
