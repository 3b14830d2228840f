//! Whether a request for an OTP gets a new one, the earlier one again, or has to wait, and which
//! quotas an OTP counts in.

use std::fmt;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::{
    customer::Identifier,
    org::Org,
    otp::{Code, OrgDay, Otp, OtpOwner, Reissue},
    recipients::Destination,
};

/// An org's rules for requests that follow each other in a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueRules {
    /// The minimum time between two of them. Zero if there is none.
    pub cooldown: TimeDelta,
    pub reissue: Reissue,
}

/// What becomes of a request for an OTP.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// A new OTP is issued.
    Issue,
    /// This one is sent again.
    SendAgain(&'a Otp),
    /// Nothing is issued before this time has passed.
    Wait(TimeDelta),
}

/// An OTP is sent again only if at least this much of its validity is left, or half of it.
const LEFT_TO_SEND_AGAIN: TimeDelta = TimeDelta::minutes(1);

impl IssueRules {
    /// Whether a decision depends on the OTPs before.
    pub fn look_back(self) -> bool {
        self.cooldown > TimeDelta::zero() || self.reissue == Reissue::Same
    }

    /// How long nothing is issued after `now`, if the last OTP of the series was issued or sent
    /// again at `last`. `None` if one may be issued.
    pub fn wait(self, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<TimeDelta> {
        let left = last.checked_add_signed(self.cooldown)? - now;
        // The clock of the process that issued the last one may be ahead.
        (self.cooldown > TimeDelta::zero() && left > TimeDelta::zero()).then(|| left.min(self.cooldown))
    }

    /// Decides at `now`. `otps` are those of the series that may be valid, `last_sent` is when the
    /// last one was issued or sent again, and `may_repeat` is whether a code may be sent again.
    pub fn decide(
        self,
        otps: &[Otp],
        last_sent: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        may_repeat: impl Fn(&Code) -> bool,
    ) -> Decision<'_> {
        // An OTP that was issued before the org had a cooldown counts, too.
        let last = otps.iter().map(|otp| otp.created_id.issued_at()).chain(last_sent).max();
        if let Some(time) = last.and_then(|last| self.wait(last, now)) {
            return Decision::Wait(time);
        }
        let repeatable = |otp: &&Otp| otp.is_valid(now) && has_time_left(otp, now) && may_repeat(&otp.code);
        let earlier = match self.reissue {
            Reissue::New => None,
            Reissue::Same => otps.iter().filter(repeatable).max_by_key(|otp| otp.created_id),
        };
        earlier.map_or(Decision::Issue, Decision::SendAgain)
    }
}

fn has_time_left(otp: &Otp, now: DateTime<Utc>) -> bool {
    let validity = otp.valid_until - otp.created_id.issued_at();
    otp.valid_until - now >= LEFT_TO_SEND_AGAIN.min(validity / 2)
}

/// An hour of the clock in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcHour {
    pub begins_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
}

impl UtcHour {
    /// The hour that `now` falls in.
    pub fn of(now: DateTime<Utc>) -> Self {
        let begins_at = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        Self { begins_at, ends_at: begins_at + TimeDelta::hours(1) }
    }
}

/// The hour in the keys of counts, such as `2026-11-21T10`.
impl fmt::Display for UtcHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.begins_at.format("%Y-%m-%dT%H"))
    }
}

/// The time that a quota is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Day(OrgDay),
    Hour(UtcHour),
}

/// The period in the keys of counts.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.date.fmt(f),
            Self::Hour(hour) => hour.fmt(f),
        }
    }
}

impl Period {
    pub const fn ends_at(self) -> DateTime<Utc> {
        match self {
            Self::Day(day) => day.ends_at,
            Self::Hour(hour) => hour.ends_at,
        }
    }
}

/// What a quota counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The day's OTPs of the customer who owns them.
    OfOwner(OrgDay),
    /// The day's OTPs for this contact or to this address, in every account.
    OfAddress(Identifier, OrgDay),
    /// The hour's OTPs to this address, of contacts and customers.
    HourlyOfAddress(Identifier, UtcHour),
}

/// The number of OTPs allowed in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub counted: Counted,
    pub limit: i64,
}

impl Quota {
    pub const fn period(&self) -> Period {
        match &self.counted {
            Counted::OfOwner(day) | Counted::OfAddress(_, day) => Period::Day(*day),
            Counted::HourlyOfAddress(_, hour) => Period::Hour(*hour),
        }
    }
}

/// The quotas that an OTP of `owner` counts in when it is issued or sent again at `now`: once in
/// each, however many channels lead to one address.
///
/// The day's OTPs are counted by customer. Those of contacts are counted by the contact's
/// identifier, whatever the account, and by each address. The hour's are counted by each address.
pub fn quotas(org: &Org, owner: &OtpOwner, destinations: &[Destination], now: DateTime<Utc>) -> Vec<Quota> {
    let mut addresses: Vec<&Identifier> = Vec::new();
    for Destination { address, .. } in destinations {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let day = OrgDay::of(now, &org.timezone);
    let of_day = match owner {
        OtpOwner::Customer(_) => vec![Counted::OfOwner(day)],
        OtpOwner::Contact(identity) => {
            let contact = identity.identifier();
            let others = addresses.iter().copied().filter(|address| *address != contact);
            let all = [contact].into_iter().chain(others);
            all.map(|address| Counted::OfAddress(address.clone(), day)).collect()
        }
    };
    let limit = org.config().otp_daily_limit;
    let mut quotas: Vec<Quota> = of_day.into_iter().map(|counted| Quota { counted, limit }).collect();
    let hour = UtcHour::of(now);
    if let Some(limit) = limit_in(org, Period::Hour(hour)) {
        let counted = addresses.into_iter().map(|address| Counted::HourlyOfAddress(address.clone(), hour));
        quotas.extend(counted.map(|counted| Quota { counted, limit }));
    }
    quotas
}

/// How many OTPs an org allows in a period. `None` if it does not limit them.
const fn limit_in(org: &Org, period: Period) -> Option<i64> {
    match period {
        Period::Day(_) => Some(org.config().otp_daily_limit),
        Period::Hour(_) => org.config().otp_hourly_limit,
    }
}

/// A stored count of OTPs, and the quota that it counts in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUse {
    pub issued: u64,
    pub limit: i64,
    pub period: Period,
}

impl QuotaUse {
    /// Compares a count whose key names `period` with the quotas of the org at `now`. `None` if the
    /// period is over, or the org has no such quota.
    pub fn of(org: &Org, period: &str, issued: u64, now: DateTime<Utc>) -> Option<Self> {
        let current = [Period::Day(OrgDay::of(now, &org.timezone)), Period::Hour(UtcHour::of(now))];
        let period = current.into_iter().find(|current| current.to_string() == period)?;
        Some(Self { issued, limit: limit_in(org, period)?, period })
    }

    /// When the next OTP can be issued. `None` if one can be issued now.
    pub fn free_at(&self) -> Option<DateTime<Utc>> {
        let is_used_up = i64::try_from(self.issued).is_ok_and(|issued| issued >= self.limit);
        is_used_up.then(|| self.period.ends_at())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{
        customer::{Account, IdentifierName, Identity, UserId},
        fixtures::{at, org, otp},
        message::ChannelType,
    };

    fn rules(cooldown: i64, reissue: Reissue) -> IssueRules {
        IssueRules { cooldown: TimeDelta::seconds(cooldown), reissue }
    }

    /// The time of issue of the OTP that is sent again.
    fn again(otps: &[Otp], now: i64) -> Option<i64> {
        match rules(0, Reissue::Same).decide(otps, None, at(now), |_| true) {
            Decision::SendAgain(otp) => Some((otp.created_id.issued_at() - at(0)).num_seconds()),
            Decision::Issue => None,
            Decision::Wait(_) => panic!("there is no cooldown"),
        }
    }

    fn wait(rules: IssueRules, otps: &[Otp], last: Option<i64>, now: i64) -> Option<i64> {
        let decision = rules.decide(otps, last.map(at), at(now), |_| true);
        if let Decision::Wait(time) = decision { Some(time.num_seconds()) } else { None }
    }

    #[test]
    fn an_otp_is_sent_again_while_a_minute_or_half_of_its_validity_is_left() {
        assert_eq!(again(&[otp(0, 300)], 240), Some(0));
        assert_eq!(again(&[otp(0, 300)], 241), None);
        assert_eq!(again(&[otp(0, 60)], 30), Some(0));
        assert_eq!(again(&[otp(0, 60)], 31), None);
        assert_eq!(again(&[otp(0, 1)], 0), Some(0));
        assert_eq!(again(&[otp(0, 300), otp(10, 310)], 20), Some(10), "the most recent one");
        assert_eq!(again(&[otp(0, 300), otp(10, 40)], 35), Some(0), "a short one hides nothing");
        assert_eq!(again(&[Otp { consumed: true, ..otp(0, 300) }], 1), None);
        assert_eq!(again(&[otp(0, 300)], 300), None);
        assert_eq!(again(&[], 0), None);
    }

    #[test]
    fn an_org_that_issues_new_ones_sends_none_again() {
        let otps = [otp(0, 300)];
        let decision = rules(0, Reissue::New).decide(&otps, None, at(1), |_| true);
        assert!(matches!(decision, Decision::Issue));
    }

    #[test]
    fn a_code_that_may_not_be_repeated_is_not_sent_again() {
        let otps = [otp(0, 300), otp(10, 310)];
        let decision = rules(0, Reissue::Same).decide(&otps, None, at(20), |code| code.expose() != "CODE10");
        assert!(matches!(decision, Decision::SendAgain(otp) if otp.code.expose() == "CODE0"));
    }

    #[test]
    fn a_cooldown_counts_from_the_last_otp_or_the_last_time_one_was_sent_again() {
        let rules = rules(30, Reissue::Same);
        assert_eq!(wait(rules, &[], None, 0), None);
        assert_eq!(wait(rules, &[otp(0, 300)], None, 10), Some(20), "the cooldown is new");
        assert_eq!(wait(rules, &[otp(0, 300)], Some(20), 40), Some(10));
        assert_eq!(wait(rules, &[], Some(0), 29), Some(1));
        assert_eq!(wait(rules, &[], Some(0), 30), None);
        assert_eq!(wait(rules, &[], Some(40), 0), Some(30), "another process's clock is ahead");
        assert!(!IssueRules { cooldown: TimeDelta::zero(), reissue: Reissue::New }.look_back());
    }

    proptest! {
        /// Between two requests that are not refused, at least the cooldown passes, and whoever
        /// waits as long as he is told is not refused again.
        #[test]
        fn no_two_otps_are_closer_than_the_cooldown(
            cooldown in 1_i64..100,
            gaps in prop::collection::vec(0_i64..60, 0..40),
        ) {
            let rules = rules(cooldown, Reissue::New);
            let (mut last, mut now) = (None, 0);
            for gap in gaps {
                now += gap;
                if let Some(seconds) = wait(rules, &[], last, now) {
                    prop_assert!(last.is_some_and(|last| now - last < cooldown));
                    prop_assert_eq!(wait(rules, &[], last, now + seconds), None);
                    prop_assert!(wait(rules, &[], last, now + seconds - 1).is_some());
                } else {
                    prop_assert!(last.is_none_or(|last| now - last >= cooldown));
                    last = Some(now);
                }
            }
        }

        #[test]
        fn an_hour_contains_its_time_and_begins_when_the_one_before_ends(ms in -9_000_000_000_000_i64..9_000_000_000_000) {
            let now = DateTime::from_timestamp_millis(ms).unwrap();
            let hour = UtcHour::of(now);
            prop_assert!(hour.begins_at <= now && now < hour.ends_at);
            prop_assert_eq!(hour.ends_at - hour.begins_at, TimeDelta::hours(1));
            prop_assert_eq!(hour.begins_at.format("%M:%S%.3f").to_string(), "00:00.000");
            prop_assert_eq!(UtcHour::of(hour.ends_at).begins_at, hour.ends_at);
            prop_assert_eq!(UtcHour::of(hour.ends_at - TimeDelta::milliseconds(1)), hour);
        }
    }

    /// The quotas as text.
    fn counted(org: &Org, owner: &OtpOwner, destinations: &[Destination]) -> Vec<String> {
        let quotas = quotas(org, owner, destinations, at(0));
        quotas
            .iter()
            .map(|quota| {
                let counted = match &quota.counted {
                    Counted::OfOwner(_) => "owner in a day",
                    Counted::OfAddress(address, _) => &format!("{} in a day", address.value()),
                    Counted::HourlyOfAddress(address, _) => &format!("{} in an hour", address.value()),
                };
                format!("{} to {counted}", quota.limit)
            })
            .collect()
    }

    #[test]
    fn a_count_is_compared_with_the_quota_of_its_period_until_that_ends() {
        let config = json!({"CONF_OTP_DAILY_LIMIT": 3, "CONF_OTP_RATE_LIMIT_ONE_HOUR": 2});
        let limited = org(&json!({"config": config}));
        let now = "2026-11-21T18:29:59Z".parse().unwrap();
        let free_at = |period, issued, now| {
            QuotaUse::of(&limited, period, issued, now).map(|quota| quota.free_at().map(|at| at.to_rfc3339()))
        };
        assert_eq!(free_at("2026-11-21", 2, now), Some(None));
        assert_eq!(free_at("2026-11-21", 3, now), Some(Some("2026-11-21T18:30:00+00:00".to_owned())));
        assert_eq!(free_at("2026-11-21T18", 1, now), Some(None));
        assert_eq!(free_at("2026-11-21T18", 2, now), Some(Some("2026-11-21T19:00:00+00:00".to_owned())));
        for over in ["2026-11-20", "2026-11-22", "2026-11-21T17", ""] {
            assert_eq!(free_at(over, 9, now), None, "{over}");
        }
        assert_eq!(QuotaUse::of(&org(&json!({})), "2026-11-21T18", 9, now), None);
    }

    #[test]
    fn an_otp_counts_once_for_each_address() {
        let config = json!({"CONF_OTP_DAILY_LIMIT": 7, "CONF_OTP_RATE_LIMIT_ONE_HOUR": 3});
        let org = org(&json!({"config": config}));
        let mobile = org.identifier(IdentifierName::Mobile, "8799361139").unwrap();
        let email = org.identifier(IdentifierName::Email, "tom@example.com").unwrap();
        let to = |channel, address: &Identifier| Destination { channel, address: address.clone() };
        let destinations =
            [to(ChannelType::Sms, &mobile), to(ChannelType::Phone, &mobile), to(ChannelType::Email, &email)];
        let hours = ["3 to 918799361139 in an hour", "3 to tom@example.com in an hour"];
        let customer = OtpOwner::Customer(UserId(1));
        let contact = OtpOwner::Contact(Identity::new(Account::instore(), email));
        let expected = [&["7 to owner in a day"][..], &hours].concat();
        assert_eq!(counted(&org, &customer, &destinations), expected);
        let expected =
            [&["7 to tom@example.com in a day", "7 to 918799361139 in a day"][..], &hours].concat();
        assert_eq!(counted(&org, &contact, &destinations), expected);
        assert_eq!(counted(&org, &customer, &[]), ["7 to owner in a day"]);
        assert_eq!(counted(&org, &contact, &[]), ["7 to tom@example.com in a day"]);
    }
}
