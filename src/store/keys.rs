//! The keys of all items, and the names of the key attributes and of the TTL attribute.
//!
//! The table has string keys `PK` and `SK`. The partition keys of an org's items begin with the
//! org's number, so no key built for one org can refer to an item of another.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use crate::{
    model::{
        access_token::TokenDigest,
        customer::{Account, Identifier, IdentifierName, Identity, UserId},
        issuing::UtcHour,
        org::OrgId,
        otp::{CreatedId, OtpOwner, OtpSeries, Scope},
        profile::StoredIdentifier,
        till::TillName,
    },
    wire::hex,
};

pub const PK: &str = "PK";
pub const SK: &str = "SK";
/// The TTL attribute: seconds since 1970, after which DynamoDB may delete the item.
pub const EXPIRES_AT: &str = "expires_at";

/// The primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    /// The key as the SDK takes it.
    pub fn attributes(&self) -> HashMap<String, AttributeValue> {
        HashMap::from([
            (PK.to_owned(), AttributeValue::S(self.pk.clone())),
            (SK.to_owned(), AttributeValue::S(self.sk.clone())),
        ])
    }
}

/// A key that no item has.
#[cfg(feature = "cli")]
pub fn absent_item() -> Key {
    Key::new("NOTHING", "NOTHING")
}

/// An item that a diagnosis puts and removes again.
#[cfg(feature = "cli")]
pub fn probe(number: u64) -> Key {
    Key::new(format!("PROBE#{number:016x}"), "PROBE")
}

pub fn till(name: &TillName) -> Key {
    Key::new(format!("TILL#{name}"), "TILL")
}

/// An access token. The key contains only the SHA-256 of the token.
pub fn access_token(digest: &TokenDigest) -> Key {
    Key::new(format!("TOKEN#{}", hex(&digest.0)), "TOKEN")
}

pub fn org(id: OrgId) -> Key {
    Key::new(format!("ORG#{id}"), "ORG")
}

/// The partition that lists all orgs, one item each.
pub const ORGS: &str = "ORGS";

pub fn org_listing(id: OrgId) -> Key {
    Key::new(ORGS, format!("ORG#{id:0>10}", id = id.0))
}

/// The prefix of the sort keys that list an org's tills, in the org's own partition.
pub const TILL_LISTING: &str = "TILL#";

pub fn till_listing(org: OrgId, name: &TillName) -> Key {
    Key::new(self::org(org).pk, format!("{TILL_LISTING}{name}"))
}

/// The item that maps an identifier to its customer.
pub fn identity(org: OrgId, identity: &Identity) -> Key {
    let identifier = identity.identifier();
    stored_identity(org, identity.account(), identifier.name(), identifier.value())
}

/// The beginning of the partition keys of an org's external IDs and card numbers. The number
/// follows.
#[cfg(feature = "cli")]
pub fn numbers(org: OrgId) -> String {
    stored_identity(org, None, IdentifierName::ExternalId, "").pk
}

/// The item of a key or a person of [`StoredIdentifier`]: the customer who has it.
pub fn owner(org: OrgId, StoredIdentifier(account, name, value): &StoredIdentifier) -> Key {
    stored_identity(org, account.as_ref(), *name, value)
}

fn stored_identity(org: OrgId, account: Option<&Account>, name: IdentifierName, value: &str) -> Key {
    Key::new(format!("ORG#{org}#ID#{}", identity_suffix(account, name, value)), "ID")
}

/// For an identity without account, source and account are empty.
fn identity_suffix(account: Option<&Account>, name: IdentifierName, value: &str) -> String {
    let (source, account) =
        account.map_or(("", ""), |account| (account.source.as_str(), account.id.0.as_str()));
    format!("{source}#{account}#{}#{value}", name.name_space())
}

/// The partition of a series of OTPs.
fn series_partition(series: &OtpSeries) -> String {
    owner_partition(series.org, &series.owner)
}

fn owner_partition(org: OrgId, owner: &OtpOwner) -> String {
    match owner {
        OtpOwner::Customer(user) => format!("ORG#{org}#USER#{user}"),
        OtpOwner::Contact(identity) => {
            let identifier = identity.identifier();
            let suffix = identity_suffix(identity.account(), identifier.name(), identifier.value());
            format!("ORG#{org}#CONTACT#{suffix}")
        }
    }
}

/// The partition of a contact: of an identifier that may belong to no customer.
#[cfg(feature = "cli")]
pub fn contact_partition(org: OrgId, StoredIdentifier(account, name, value): &StoredIdentifier) -> String {
    format!("ORG#{org}#CONTACT#{}", identity_suffix(account.as_ref(), *name, value))
}

/// The partition of a customer.
#[cfg(feature = "cli")]
pub fn customer_partition(org: OrgId, user: UserId) -> String {
    owner_partition(org, &OtpOwner::Customer(user))
}

/// The bounds of the sort keys of a partition: all are between them.
#[cfg(feature = "cli")]
pub const ALL_SORT_KEYS: (&str, &str) = ("!", "~");

/// What an item in the partition of a customer or a contact is.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnedItem<'a> {
    Profile,
    Otp(Scope, CreatedId),
    FailedAttempts(Scope),
    LastOtp(Scope),
    /// The message of an OTP; the last one is its `send`.
    Message(Scope, CreatedId, u32),
    /// A quota of a day or an hour, which the text names in UTC or in the org's time.
    Quota(&'a str),
}

#[cfg(feature = "cli")]
impl<'a> OwnedItem<'a> {
    /// Reads a sort key. `None` if no version writes such an item.
    pub fn read(sk: &'a str) -> Option<Self> {
        let mut parts = sk.split('#');
        let item = match (parts.next()?, parts.next()) {
            (PROFILE, None) => Self::Profile,
            ("QUOTA", Some(period)) => Self::Quota(period),
            ("OTP", Some(scope)) => match (Scope::parse(scope)?, parts.next()?) {
                (scope, "GUESSES") => Self::FailedAttempts(scope),
                (scope, "LAST") => Self::LastOtp(scope),
                (scope, id) => Self::Otp(scope, CreatedId(id.parse().ok()?)),
            },
            ("MESSAGE", Some(scope)) => {
                let id = CreatedId(parts.next()?.parse().ok()?);
                Self::Message(Scope::parse(scope)?, id, parts.next()?.parse().ok()?)
            }
            _ => return None,
        };
        parts.next().is_none().then_some(item)
    }
}

/// The sort key of every customer's item.
pub const PROFILE: &str = "PROFILE";

pub fn profile(org: OrgId, user: UserId) -> Key {
    Key::new(owner_partition(org, &OtpOwner::Customer(user)), PROFILE)
}

/// The customer that a partition key belongs to. `None` for other keys.
pub fn profile_owner(pk: &str) -> Option<(OrgId, UserId)> {
    let (org, user) = pk.strip_prefix("ORG#")?.split_once("#USER#")?;
    Some((OrgId(org.parse().ok()?), UserId(user.parse().ok()?)))
}

/// The number is padded to 16 digits, enough for every number below 2^53. So the text sorts like
/// the number.
pub fn otp(series: &OtpSeries, id: CreatedId) -> Key {
    Key::new(series_partition(series), otp_sort_key(series.scope, id))
}

pub fn otp_sort_key(scope: Scope, id: CreatedId) -> String {
    format!("OTP#{scope}#{:0>16}", id.0)
}

/// Sorts after every OTP of its scope, so that one query reads both.
pub fn failed_attempts(series: &OtpSeries) -> Key {
    Key::new(series_partition(series), failed_attempts_sort_key(series.scope))
}

pub fn failed_attempts_sort_key(scope: Scope) -> String {
    format!("OTP#{scope}#GUESSES")
}

/// The message that carries an OTP. An OTP that is sent again has further messages, which are
/// numbered by `send`, from 1.
pub fn message(series: &OtpSeries, id: CreatedId, send: u32) -> Key {
    Key::new(series_partition(series), format!("MESSAGE#{}#{:0>16}#{send:0>5}", series.scope, id.0))
}

/// The org that a partition belongs to, such as that of a customer. `None` for partitions of no
/// org.
pub fn org_of(pk: &str) -> Option<OrgId> {
    let (org, _) = pk.strip_prefix("ORG#")?.split_once('#')?;
    org.parse().ok().map(OrgId)
}

/// Whether a key is that of a message.
pub fn is_message(key: &Key) -> bool {
    otp_of_message(&key.sk).is_some()
}

/// The sort key of the OTP that a message with the sort key `message` carries. `None` for other
/// sort keys.
pub fn otp_of_message(message: &str) -> Option<String> {
    let (otp, _send) = message.strip_prefix("MESSAGE#")?.rsplit_once('#')?;
    Some(format!("OTP#{otp}"))
}

/// Counters of the messages to an address, whatever the source, the account and the scope.
fn recipient(org: OrgId, identifier: &Identifier) -> String {
    format!("ORG#{org}#RECIPIENT#{}#{}", identifier.name(), identifier.value())
}

/// The partition of the counters of an address.
#[cfg(feature = "cli")]
pub fn recipient_partition(org: OrgId, name: IdentifierName, value: &str) -> String {
    format!("ORG#{org}#RECIPIENT#{name}#{value}")
}

/// The daily quota of an address.
pub fn daily_recipient_quota(org: OrgId, identifier: &Identifier, date: chrono::NaiveDate) -> Key {
    Key::new(recipient(org, identifier), format!("QUOTA#{date}"))
}

/// The hourly quota of an address. `hour` is any time within the UTC hour.
pub fn hourly_recipient_quota(org: OrgId, identifier: &Identifier, hour: DateTime<Utc>) -> Key {
    Key::new(recipient(org, identifier), hourly_quota(hour))
}

/// The messages that are sent for the whole org in the UTC hour of `hour`.
pub fn message_budget(org: OrgId, hour: DateTime<Utc>) -> Key {
    Key::new(format!("ORG#{org}#MESSAGES"), hourly_quota(hour))
}

fn hourly_quota(hour: DateTime<Utc>) -> String {
    format!("QUOTA#{}", UtcHour::of(hour))
}

/// The last OTP of a series, in orgs with a cooldown or `CONF_OTP_REISSUE = "SAME"`.
pub fn last_otp(series: &OtpSeries) -> Key {
    Key::new(series_partition(series), format!("OTP#{}#LAST", series.scope))
}

/// The daily quota of an owner, for all scopes together.
pub fn daily_quota(series: &OtpSeries, date: chrono::NaiveDate) -> Key {
    Key::new(series_partition(series), format!("QUOTA#{date}"))
}

/// The counter of card numbers. It has a partition of its own, because it is the hottest key of an
/// org.
pub fn card_number_counter(org: OrgId) -> Key {
    Key::new(format!("ORG#{org}#COUNTER#CARD_NUMBER"), "COUNTER")
}

pub fn user_id_counter(org: OrgId) -> Key {
    Key::new(format!("ORG#{org}#COUNTER#USER_ID"), "COUNTER")
}

/// The partition of the readings of an org's counter of card numbers.
#[cfg(feature = "cli")]
pub fn readings(org: OrgId) -> String {
    format!("ORG#{org}#READINGS")
}

/// The reading of a day of UTC.
#[cfg(feature = "cli")]
pub fn reading(org: OrgId, day: chrono::NaiveDate) -> Key {
    Key::new(readings(org), day.to_string())
}

/// The partition of what operators did for an org in a month of UTC.
pub fn audit_month(org: OrgId, month: DateTime<Utc>) -> String {
    format!("ORG#{org}#AUDIT#{}", month.format("%Y-%m"))
}

/// An act of an operator. `id` begins with the time of the act.
pub fn audit_entry(org: OrgId, at: DateTime<Utc>, id: &str) -> Key {
    Key::new(audit_month(org, at), id)
}

/// The response that is stored under a till's `Idempotency-Key`. The item's key contains only the
/// SHA-256 of that.
pub fn stored_response(org: OrgId, till: &TillName, key: &[u8; 32]) -> Key {
    Key::new(format!("ORG#{org}#ANSWER#{till}#{}", hex(key)), "ANSWER")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        customer::{AccountId, Source},
        fixtures::india,
    };

    fn wechat(name: IdentifierName, value: &str) -> Identity {
        Identity::new(
            Account { source: Source::Wechat, id: AccountId("WECHAT-API1".into()) },
            Identifier::new(name, value, &india()).unwrap(),
        )
    }

    #[test]
    fn keys_are_spelled_as_the_readme_says() {
        let org_id = OrgId(966);
        let user =
            OtpSeries { org: org_id, owner: OtpOwner::Customer(UserId(313_302_314)), scope: Scope::Points };
        let mobile = wechat(IdentifierName::Mobile, "8799361139");
        let contact =
            OtpSeries { org: org_id, owner: OtpOwner::Contact(mobile.clone()), scope: Scope::Registration };
        for (key, pk, sk) in [
            (till(&TillName::parse("store.server").unwrap()), "TILL#store.server", "TILL"),
            (access_token(&TokenDigest([0xab; 32])), &format!("TOKEN#{}", "ab".repeat(32)), "TOKEN"),
            (org(org_id), "ORG#966", "ORG"),
            (identity(org_id, &mobile), "ORG#966#ID#WECHAT#WECHAT-API1#mobile#918799361139", "ID"),
            (
                identity(org_id, &wechat(IdentifierName::ExternalId, "X1")),
                "ORG#966#ID###external_id#X1",
                "ID",
            ),
            (
                identity(org_id, &wechat(IdentifierName::CardNumber, "X1")),
                "ORG#966#ID###external_id#X1",
                "ID",
            ),
            (
                owner(org_id, &StoredIdentifier::from(&mobile).person().unwrap()),
                "ORG#966#ID###mobile#918799361139",
                "ID",
            ),
            (profile(org_id, UserId(313_302_314)), "ORG#966#USER#313302314", "PROFILE"),
            (
                otp(&user, CreatedId(1_502_122_760_000_123)),
                "ORG#966#USER#313302314",
                "OTP#POINTS#1502122760000123",
            ),
            (failed_attempts(&user), "ORG#966#USER#313302314", "OTP#POINTS#GUESSES"),
            (
                failed_attempts(&contact),
                "ORG#966#CONTACT#WECHAT#WECHAT-API1#mobile#918799361139",
                "OTP#REGISTRATION#GUESSES",
            ),
            (daily_quota(&user, "2026-11-21".parse().unwrap()), "ORG#966#USER#313302314", "QUOTA#2026-11-21"),
            (
                message(&user, CreatedId(1_502_122_760_000_123), 2),
                "ORG#966#USER#313302314",
                "MESSAGE#POINTS#1502122760000123#00002",
            ),
            (last_otp(&user), "ORG#966#USER#313302314", "OTP#POINTS#LAST"),
            (
                daily_recipient_quota(org_id, mobile.identifier(), "2026-11-21".parse().unwrap()),
                "ORG#966#RECIPIENT#mobile#918799361139",
                "QUOTA#2026-11-21",
            ),
            (
                hourly_recipient_quota(org_id, mobile.identifier(), "2026-11-21T10:59:59Z".parse().unwrap()),
                "ORG#966#RECIPIENT#mobile#918799361139",
                "QUOTA#2026-11-21T10",
            ),
            (
                message_budget(org_id, "2026-11-21T10:00:00Z".parse().unwrap()),
                "ORG#966#MESSAGES",
                "QUOTA#2026-11-21T10",
            ),
            (card_number_counter(org_id), "ORG#966#COUNTER#CARD_NUMBER", "COUNTER"),
            #[cfg(feature = "cli")]
            (reading(org_id, "2026-11-21".parse().unwrap()), "ORG#966#READINGS", "2026-11-21"),
            (
                stored_response(org_id, &TillName::parse("store.server").unwrap(), &[0xab; 32]),
                &format!("ORG#966#ANSWER#store.server#{}", "ab".repeat(32)),
                "ANSWER",
            ),
        ] {
            assert_eq!(key, Key::new(pk, sk));
        }
        #[cfg(feature = "cli")]
        assert_eq!(numbers(org_id), "ORG#966#ID###external_id#");
        assert_eq!(profile_owner(&profile(org_id, UserId(5)).pk), Some((org_id, UserId(5))));
        assert_eq!(profile_owner(&org(org_id).pk), None);
        for owner in [&user, &contact] {
            assert_eq!(org_of(&message(owner, CreatedId(1), 1).pk), Some(org_id));
        }
        assert_eq!((org_of("TILL#store#1"), org_of("ORG#x#USER#5"), org_of("ORGS")), (None, None, None));
    }

    #[cfg(feature = "cli")]
    #[test]
    fn every_item_of_an_owner_is_recognized_by_its_sort_key() {
        let series = OtpSeries { org: OrgId(1), owner: OtpOwner::Customer(UserId(1)), scope: Scope::Points };
        let (id, at) = (CreatedId(1_502_122_760_000_123), "2026-11-21T10:59:59Z".parse().unwrap());
        let mobile = wechat(IdentifierName::Mobile, "8799361139");
        for (key, expected) in [
            (profile(OrgId(1), UserId(1)), OwnedItem::Profile),
            (otp(&series, id), OwnedItem::Otp(Scope::Points, id)),
            (failed_attempts(&series), OwnedItem::FailedAttempts(Scope::Points)),
            (last_otp(&series), OwnedItem::LastOtp(Scope::Points)),
            (message(&series, id, 2), OwnedItem::Message(Scope::Points, id, 2)),
            (daily_quota(&series, "2026-11-21".parse().unwrap()), OwnedItem::Quota("2026-11-21")),
            (hourly_recipient_quota(OrgId(1), mobile.identifier(), at), OwnedItem::Quota("2026-11-21T10")),
        ] {
            assert_eq!(OwnedItem::read(&key.sk), Some(expected));
            assert!(ALL_SORT_KEYS.0 < key.sk.as_str() && key.sk.as_str() < ALL_SORT_KEYS.1);
        }
        for other in ["ID", "OTP#POINTS", "OTP#NOTHING#GUESSES", "MESSAGE#POINTS#1", "OTP#POINTS#1#2"] {
            assert_eq!(OwnedItem::read(other), None, "{other}");
        }
        let stored = StoredIdentifier::from(&mobile);
        let contact = OtpSeries { owner: OtpOwner::Contact(mobile.clone()), ..series.clone() };
        assert_eq!(contact_partition(OrgId(1), &stored), otp(&contact, id).pk);
        assert_eq!(customer_partition(OrgId(1), UserId(1)), otp(&series, id).pk);
        let recipient = daily_recipient_quota(OrgId(1), mobile.identifier(), "2026-11-21".parse().unwrap());
        assert_eq!(recipient_partition(OrgId(1), stored.1, &stored.2), recipient.pk);
    }

    #[test]
    fn otps_sort_by_time_and_failed_attempts_follow_them() {
        let user = OtpSeries { org: OrgId(1), owner: OtpOwner::Customer(UserId(1)), scope: Scope::Points };
        let sk = |id| otp(&user, CreatedId(id)).sk;
        assert!(sk(999) < sk(1_000) && sk(1_000) < sk((1 << 53) - 1));
        assert!(sk((1 << 53) - 1) < failed_attempts(&user).sk);
    }
}
