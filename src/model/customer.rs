//! Customers: how they are identified, and the normal form of each identifier.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

use super::{phone_number::PhoneNumberPlan, typed_text};
use crate::wire::wire_enum;

wire_enum! {
    /// Where a customer is registered.
    pub enum Source {
        /// The shops themselves, with the account `""`.
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
    /// The kind of an identifier.
    pub enum IdentifierName {
        Mobile = "mobile",
        Email = "email",
        ExternalId = "external_id" | "externalId",
        Wechat = "wechat",
        CardNumber = "cardnumber",
        Cuid = "cuid",
        UnionId = "unionId",
        Line = "line",
        FacebookId = "fbId",
        MartjackId = "martjackId",
        TmallUserName = "tmall_uname",
        AliUserName = "ali_uname",
        JdUserName = "jd_uname",
        VipUserName = "vip_uname",
    }
}

impl IdentifierName {
    /// Whether requests for OTPs accept it. The others are accepted where customers are registered,
    /// looked up or changed.
    pub const fn receives_otps(self) -> bool {
        matches!(self, Self::Mobile | Self::Email | Self::ExternalId | Self::Wechat)
    }

    /// Whether it identifies a person in every source. A profile with an identifier of this kind
    /// joins the customer who has it in another account.
    pub const fn identifies_person(self) -> bool {
        matches!(self, Self::Mobile | Self::Email)
    }

    /// Whether it is unique within the org and belongs to no account.
    pub const fn is_org_wide(self) -> bool {
        matches!(self, Self::ExternalId | Self::CardNumber)
    }

    /// The kind under which it is unique: its own, but for card numbers that of external IDs,
    /// because both share one name space.
    #[must_use]
    pub const fn name_space(self) -> Self {
        match self {
            Self::CardNumber => Self::ExternalId,
            other => other,
        }
    }
}

/// The id of one of a source's accounts; `""` for INSTORE.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub String);

/// A source together with one of its accounts: the space in which identifiers are unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Account {
    pub source: Source,
    pub id: AccountId,
}

impl Account {
    /// The shops' one account.
    pub const fn instore() -> Self {
        Self { source: Source::Instore, id: AccountId(String::new()) }
    }

    /// Reads `SOURCE:account`, the form in which an account is written. `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::try_from(text.to_owned()).ok()
    }
}

/// Written as `SOURCE:account`, the form of `SOURCE_ACCOUNTS_EXTERNALID_ENABLED`.
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

impl TryFrom<String> for Account {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once(':');
        let (source, id) = parts.ok_or_else(|| format!("`{text}` is not of the form SOURCE:account"))?;
        let source = Source::parse(source).ok_or_else(|| format!("unknown source `{source}`"))?;
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

/// An identifier in its normal form. Only [`Identifier::new`] creates one, so that two spellings of
/// one mobile number cannot be two customers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier {
    name: IdentifierName,
    value: String,
}

impl Identifier {
    /// Cleans `raw` and converts it to the normal form of its kind. A mobile number becomes digits
    /// with the country code. An e-mail address becomes lower case, with its domain in ASCII form.
    /// Identifiers of all other kinds are opaque and are only cleaned.
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
            IdentifierName::Email => email_address(raw),
            _ => opaque(raw),
        };
        value.map(|value| Self { name, value }).ok_or(Malformed(name))
    }

    pub const fn name(&self) -> IdentifierName {
        self.name
    }

    /// The normal form. It is personal data: it may be stored and sent in responses, but never
    /// logged.
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

/// An identifier within the account in which it is unique. External IDs and card numbers are unique
/// in the whole org and have no account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    account: Option<Account>,
    identifier: Identifier,
}

impl Identity {
    /// `identifier`, as it is used in `account`.
    pub fn new(account: Account, identifier: Identifier) -> Self {
        let account = (!identifier.name.is_org_wide()).then_some(account);
        Self { account, identifier }
    }

    pub const fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    pub const fn identifier(&self) -> &Identifier {
        &self.identifier
    }
}

/// The value is not a valid identifier of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub IdentifierName);

/// RFC 5321, 4.5.3.1.3: a path is at most 256 octets with its angle brackets.
pub(crate) const EMAIL_MAX_BYTES: usize = 254;
/// RFC 5321, 4.5.3.1.1.
const LOCAL_PART_MAX_BYTES: usize = 64;
/// The maximum length of an opaque id. It is far above real ids, and far below the 1,024 bytes that
/// a DynamoDB key may have.
pub(crate) const OPAQUE_MAX_BYTES: usize = 200;

/// Normalizes an e-mail address: a dot-atom, which is ASCII, and a domain in ASCII form.
pub(super) fn email_address(typed: &str) -> Option<String> {
    let address = typed_text::identifier(typed);
    let (local, domain) = address.split_once('@')?;
    let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_character));
    if !atoms || local.len() > LOCAL_PART_MAX_BYTES || domain.chars().any(typed_text::is_blank) {
        return None;
    }
    let domain = Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .ok()?;
    let address = format!("{}@{domain}", local.to_ascii_lowercase());
    (domain.contains('.') && address.len() <= EMAIL_MAX_BYTES).then_some(address)
}

/// `atext` of RFC 5322, 3.2.3.
pub(super) fn is_atom_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn opaque(typed: &str) -> Option<String> {
    let value = typed_text::opaque_id(typed);
    let well_formed = value.len() <= OPAQUE_MAX_BYTES
        && !value.chars().all(typed_text::is_blank)
        // The replacement character stands for bytes that were not valid text.
        && !value.contains(char::REPLACEMENT_CHARACTER);
    well_formed.then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::fixtures::india;

    fn normal(name: IdentifierName, raw: &str) -> Option<String> {
        Identifier::new(name, raw, &india()).ok().map(|identifier| identifier.value)
    }

    #[test]
    fn spellings_of_one_email_have_one_normal_form() {
        for (raw, expected) in [
            (" Tom.Sawyer@Example.COM ", "tom.sawyer@example.com"),
            ("tom\u{200b}.saw\u{ad}yer@example\u{2060}.com\u{feff}", "tom.sawyer@example.com"),
            ("tom\u{2011}s@example.com", "tom-s@example.com"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
            ("a@bu\u{308}cher.example", "a@xn--bcher-kva.example"),
            ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
            ("a@例え。テスト", "a@xn--r8jz45g.xn--zckzah"),
            ("a@r3---sn.example.com", "a@r3---sn.example.com"),
            ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"),
        ] {
            assert_eq!(normal(IdentifierName::Email, raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn malformed_emails_are_refused() {
        let labels = |lengths: &[usize]| {
            let labels: Vec<String> = lengths.iter().map(|length| "a".repeat(*length)).collect();
            labels.join(".")
        };
        let long = [
            format!("{}@example.com", "a".repeat(65)),
            format!("a@{}.com", "a".repeat(64)),
            format!("{}@{}", "a".repeat(64), labels(&[63, 63, 62])),
        ];
        let longest = [
            format!("{}@example.com", "a".repeat(64)),
            format!("a@{}.com", "a".repeat(63)),
            format!("{}@{}", "a".repeat(64), labels(&[63, 63, 61])),
        ];
        for (long, longest) in long.iter().zip(&longest) {
            assert_eq!(normal(IdentifierName::Email, long), None, "{long}");
            assert_eq!(normal(IdentifierName::Email, longest).as_ref(), Some(longest));
        }
        for raw in [
            "", "tom", "@example.com", "tom@", "tom@example", "a@b@c.de", "to m@example.com", "t@.com",
            "t@com.", "t@example..com", "a@example.com,", "a@example.com.", "mailto:a@example.com",
            "Tom <a@example.com>", "a..b@example.com", ".a@example.com", "a.@example.com",
            "\"a b\"@example.com", "a@[127.0.0.1]", "a@-example.com", "a@example-.com", "a@exa_mple.com",
            "a@xn--a.example", "\u{2800}\u{2800}@example.com", "a\u{2800}@example.com", "a@\u{2800}.com",
            "jörg@example.com", "\u{212a}elvin@example.com", "tom\u{fffd}@example.com",
        ] {
            assert_eq!(normal(IdentifierName::Email, raw), None, "{raw}");
        }
    }

    #[test]
    fn opaque_identifiers_keep_their_case_and_may_be_in_any_script() {
        assert_eq!(normal(IdentifierName::ExternalId, " Ab-0012 ").as_deref(), Some("Ab-0012"));
        assert_eq!(normal(IdentifierName::Wechat, "微信-1").as_deref(), Some("微信-1"));
        assert_eq!(normal(IdentifierName::Wechat, " "), None);
        assert_eq!(normal(IdentifierName::Wechat, "\u{2800} \u{200b}"), None);
        assert_eq!(normal(IdentifierName::ExternalId, "a\u{fffd}"), None);
        assert_eq!(normal(IdentifierName::ExternalId, "CARD\u{2011}1\u{200b}\n").as_deref(), Some("CARD-1"));
        assert_eq!(normal(IdentifierName::Wechat, "Cafe\u{301}").as_deref(), Some("Café"));
        assert_eq!(normal(IdentifierName::ExternalId, &"x".repeat(200)), Some("x".repeat(200)));
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
        fn a_normal_form_is_its_own_normal_form(
            raw in "\\PC{0,40}|[+0]{0,2}[0-9 ().-]{5,16}|[A-Za-z.+]{1,9}@([A-Za-z-]{1,5}|\\PC{1,6})\\.[A-Za-z]{2,4}"
        ) {
            for name in IdentifierName::ALL {
                if let Some(once) = normal(*name, &raw) {
                    // Without `+`, a normal form of national length would gain a country code.
                    let again = if *name == IdentifierName::Mobile { format!("+{once}") } else { once.clone() };
                    prop_assert_eq!(normal(*name, &again), Some(once));
                }
            }
        }

        #[test]
        fn invisible_characters_change_no_identifier(
            raw in "[A-Za-z][A-Za-z.+]{0,9}@[A-Za-z]{1,9}\\.[A-Za-z]{2,4}|[A-Z]{4}-[0-9]{1,9}",
            marks in prop::collection::vec((0_usize..20, prop::sample::select(INVISIBLE)), 0..6),
        ) {
            let mut decorated: Vec<char> = raw.chars().collect();
            for (at, mark) in marks {
                decorated.insert(at.min(decorated.len()), mark);
            }
            let decorated: String = decorated.into_iter().collect();
            for name in [IdentifierName::Email, IdentifierName::ExternalId, IdentifierName::Wechat] {
                prop_assert_eq!(normal(name, &decorated), normal(name, &raw), "{:?}", decorated);
            }
        }
    }

    const INVISIBLE: &[char] = &[
        '\u{200b}', '\u{200d}', '\u{202a}', '\u{202c}', '\u{2060}', '\u{feff}', '\u{ad}', '\u{3164}',
        '\u{115f}', '\u{0}', '\u{7f}', '\u{e0041}', '\u{fe0f}',
    ];
}
