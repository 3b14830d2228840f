//! How far the limits of OTPs are used, and what keeps one from being issued or checked now, for
//! the commands and the console. The rules are those of `model::issuing` and `model::otp`.

use chrono::{DateTime, TimeDelta, Utc};
use loyalty_codes::{
    model::{
        issuing::{Period, QuotaUse},
        org::Org,
        otp::Scope,
    },
    store::{AddressQuotas, HistoryOwner, OtpEnd, OwnerHistory, distinct_attempts},
};
use serde_json::{Value, json};

use crate::{
    org_words::counted,
    support::{self, Reveal},
};

/// A limit that something counts in now.
pub struct Limit {
    /// Whose OTPs count, with masked addresses.
    owner: String,
    scope: Option<Scope>,
    kind: Kind,
    /// When the limit is free again. `None` if it is not reached.
    pub free_at: Option<DateTime<Utc>>,
}

enum Kind {
    /// OTPs of a day or an hour.
    Quota(QuotaUse),
    /// An OTP was sent this long ago.
    Cooldown(TimeDelta),
    /// Wrong guesses that count, the limit, and when the oldest of them counts no more.
    WrongGuesses { count: usize, limit: usize, oldest_until: DateTime<Utc> },
}

/// The limits in which something counts at `now`, of customers and contacts and of their addresses.
pub fn limits(
    org: &Org,
    histories: &[OwnerHistory],
    addresses: &[AddressQuotas],
    now: DateTime<Utc>,
) -> Vec<Limit> {
    let mut limits = Vec::new();
    limits.extend(wrong_guesses(org, histories, now));
    for history in histories {
        limits.extend(cooldowns(org, history, now));
        if let HistoryOwner::Customer(_) = history.owner {
            let quotas = history.quotas.iter();
            let quotas = quotas.filter_map(|quota| QuotaUse::of(org, &quota.period, quota.issued, now));
            limits.extend(quotas.map(|quota| Limit::quota(owner(history), quota)));
        }
    }
    for address in addresses {
        let shown = format!("{} {}", address.name, Reveal::Masked.identifier(address.name, &address.value));
        for quota in &address.quotas {
            let Some(quota) = QuotaUse::of(org, &quota.period, quota.issued, now) else { continue };
            let owner = match quota.period {
                // The day's OTPs of a customer are counted for the customer.
                Period::Day(_) => format!("{shown}, unregistered"),
                Period::Hour(_) => shown.clone(),
            };
            limits.push(Limit::quota(owner, quota));
        }
    }
    limits
}

fn wrong_guesses(org: &Org, histories: &[OwnerHistory], now: DateTime<Utc>) -> impl Iterator<Item = Limit> {
    let limit = org.attempt_limit();
    distinct_attempts(histories.iter()).into_iter().filter_map(move |(history, scope, attempts)| {
        let counting = attempts.counting(limit, now);
        let oldest_until = *counting.first()? + limit.window;
        Some(Limit {
            owner: owner(history),
            scope: Some(scope),
            kind: Kind::WrongGuesses { count: counting.len(), limit: limit.count, oldest_until },
            free_at: attempts.locked_until(limit, now),
        })
    })
}

fn cooldowns(org: &Org, history: &OwnerHistory, now: DateTime<Utc>) -> impl Iterator<Item = Limit> {
    Scope::ALL.iter().filter_map(move |scope| {
        let otps = history.otps.iter().filter(|otp| otp.scope == *scope && otp.end != OtpEnd::Deleted);
        let last_sent = history.last_sent.iter().filter(|last| last.0 == *scope).map(|last| last.1);
        let last = otps.map(|otp| otp.created_id.issued_at()).chain(last_sent).max()?;
        let wait = org.issue_rules().wait(last, now)?;
        Some(Limit {
            owner: owner(history),
            scope: Some(*scope),
            kind: Kind::Cooldown((now - last).max(TimeDelta::zero())),
            free_at: Some(now + wait),
        })
    })
}

/// Whether a history is that of a customer or of a contact, in words.
pub fn owner(history: &OwnerHistory) -> String {
    match &history.owner {
        HistoryOwner::Customer(_) => "customer".to_owned(),
        HistoryOwner::Contact(address) => match &address.0 {
            Some(account) => format!("contact in {account}"),
            None => "contact".to_owned(),
        },
    }
}

impl Limit {
    fn quota(owner: String, quota: QuotaUse) -> Self {
        Self { owner, scope: None, free_at: quota.free_at(), kind: Kind::Quota(quota) }
    }

    /// A line such as `customer: 10 of 10 OTPs of 2026-11-27: the next one at …`.
    pub fn in_words(&self, org: &Org, now: DateTime<Utc>) -> String {
        let scope = self.scope.map_or_else(String::new, |scope| format!("{scope}, "));
        let count = match &self.kind {
            Kind::Quota(QuotaUse { issued, limit, period: Period::Day(day) }) => {
                format!("{issued} of {limit} OTPs of {}", day.date)
            }
            Kind::Quota(QuotaUse { issued, limit, period: Period::Hour(_) }) => {
                format!("{issued} of {limit} OTPs of this hour")
            }
            Kind::Cooldown(since) => {
                format!("an OTP was sent {} ago", counted(since.num_seconds(), "second", "seconds"))
            }
            Kind::WrongGuesses { count, limit, oldest_until } if self.free_at.is_none() => format!(
                "{count} of {limit} wrong guesses, the first of them until {}",
                support::time(org, *oldest_until)
            ),
            Kind::WrongGuesses { count, .. } => {
                format!("too many wrong guesses ({count})")
            }
        };
        let until = match (self.free_at, &self.kind) {
            (None, _) => String::new(),
            (Some(at), Kind::WrongGuesses { .. }) => {
                format!(": no code is checked until {}", support::time(org, at))
            }
            (Some(at), Kind::Cooldown(_)) => {
                let milliseconds = (at - now).num_milliseconds().max(0);
                let seconds = milliseconds.div_euclid(1000) + i64::from(milliseconds % 1000 > 0);
                format!(": the next one in {}", counted(seconds, "second", "seconds"))
            }
            (Some(at), Kind::Quota(_)) => format!(": the next one at {}", support::time(org, at)),
        };
        format!("{scope}{}: {count}{until}", self.owner)
    }

    pub fn to_json(&self, org: &Org) -> Value {
        let (what, count, limit) = match &self.kind {
            Kind::Quota(QuotaUse { issued, limit, period: Period::Day(_) }) => {
                ("otps_of_day", Some(*issued), Some(*limit))
            }
            Kind::Quota(QuotaUse { issued, limit, period: Period::Hour(_) }) => {
                ("otps_of_hour", Some(*issued), Some(*limit))
            }
            Kind::Cooldown(_) => ("cooldown", None, None),
            Kind::WrongGuesses { count, limit, .. } => {
                ("wrong_guesses", u64::try_from(*count).ok(), i64::try_from(*limit).ok())
            }
        };
        json!({
            "what": what, "owner": self.owner, "scope": self.scope, "count": count, "limit": limit,
            "free_at": self.free_at.map(|at| support::time(org, at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use loyalty_codes::{
        model::{
            customer::{IdentifierName, UserId},
            otp::FailedAttempts,
        },
        secret::Secret,
        store::QuotaCount,
    };

    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-11-27T{time}Z").parse().unwrap()
    }

    fn count(period: &str, issued: u64) -> QuotaCount {
        QuotaCount { period: period.to_owned(), issued }
    }

    #[test]
    fn what_keeps_an_otp_from_being_issued_or_checked_is_said_until_it_ends() {
        let definition = json!({
            "id": 966, "name": "Demo", "timezone": "Asia/Kolkata", "country_code": "91", "national_mobile_length": 10,
            "config": {
                "CONF_OTP_DAILY_LIMIT": 3, "CONF_OTP_RATE_LIMIT_ONE_HOUR": 4, "CONF_OTP_COOLDOWN_SECONDS": 60,
            },
        });
        let org = Org::new(serde_json::from_value(definition).unwrap(), Secret::new([0; 32])).unwrap();
        let wrong = ["10:00:00", "10:01:00", "10:02:00", "10:03:00", "10:04:00"].map(at).to_vec();
        let history = OwnerHistory {
            owner: HistoryOwner::Customer(UserId(1)),
            otps: Vec::new(),
            failed_attempts: vec![(Scope::Points, FailedAttempts::new(wrong))],
            quotas: vec![count("2026-11-26", 3), count("2026-11-27", 3)],
            last_sent: vec![(Scope::Coupon, at("10:04:40"))],
        };
        let addresses = [AddressQuotas {
            name: IdentifierName::Mobile,
            value: "918799361139".to_owned(),
            quotas: vec![count("2026-11-27", 1), count("2026-11-27T10", 4), count("2026-11-27T09", 4)],
        }];
        let lines = |now: &str| {
            let limits = limits(&org, std::slice::from_ref(&history), &addresses, at(now));
            limits.iter().map(|limit| limit.in_words(&org, at(now))).collect::<Vec<_>>()
        };
        let day = "customer: 3 of 3 OTPs of 2026-11-27: the next one at 2026-11-28T00:00:00+05:30";
        let of_contact = "mobile ********1139, unregistered: 1 of 3 OTPs of 2026-11-27";
        let expected = [
            "POINTS, customer: too many wrong guesses (5): no code is checked until 2026-11-27T15:45:00+05:30",
            "COUPON, customer: an OTP was sent 20 seconds ago: the next one in 40 seconds",
            day,
            of_contact,
            "mobile ********1139: 4 of 4 OTPs of this hour: the next one at 2026-11-27T16:30:00+05:30",
        ];
        assert_eq!(lines("10:05:00"), expected);
        let guesses =
            "POINTS, customer: 4 of 5 wrong guesses, the first of them until 2026-11-27T15:46:00+05:30";
        assert_eq!(lines("10:15:00")[..2], [guesses, day], "neither locked nor in the cooldown");
        assert_eq!(lines("11:00:00"), [day, of_contact], "the hour and the guesses are over");
        assert!(lines("18:30:00").is_empty(), "the day is over in the org's time zone");
    }
}
