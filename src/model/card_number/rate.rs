//! How fast an org's numbers are given, and until when they last: from readings of its counter at
//! earlier times.

use chrono::{DateTime, TimeDelta, Utc};

use super::{NumberingPlan, history::IssuedRange};

/// The state of an org's counter at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub at: DateTime<Utc>,
    pub plan: NumberingPlan,
    /// The first value of the sequence that was not given yet.
    pub next: u64,
}

/// The period that a rate is taken from, if there is a reading of that age.
const PERIOD: TimeDelta = TimeDelta::days(30);
/// A younger reading says too little.
const YOUNGEST: TimeDelta = TimeDelta::days(1);
/// A later end is not worth a date.
const FARTHEST: TimeDelta = TimeDelta::days(365 * 100);

/// How many numbers were given since a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub since: DateTime<Utc>,
    pub numbers: u64,
    pub per_day: f64,
}

impl Rate {
    /// The rate at `now`, when the counter is `current`. It is taken since the reading of the same
    /// plan whose age is closest to 30 days, and at least one day. `None` without such a reading.
    pub fn of(readings: &[Reading], current: &IssuedRange, now: DateTime<Utc>) -> Option<Self> {
        let is_usable = |reading: &&Reading| {
            reading.plan == current.plan && reading.next <= current.next && now - reading.at >= YOUNGEST
        };
        let since =
            readings.iter().filter(is_usable).min_by_key(|reading| (now - reading.at - PERIOD).abs())?;
        let numbers = current.next - since.next;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let per_day =
            numbers as f64 / (now - since.at).as_seconds_f64() * TimeDelta::days(1).as_seconds_f64();
        Some(Self { since: since.at, numbers, per_day })
    }

    /// When `left` numbers are used up at this rate from `now` on. `None` if that is in a hundred
    /// years or never.
    pub fn used_up(&self, left: u64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        #[expect(clippy::cast_precision_loss, reason = "a date needs no more than 52 bits")]
        let days = left as f64 / self.per_day;
        let farthest = FARTHEST.as_seconds_f64() / TimeDelta::days(1).as_seconds_f64();
        if !days.is_finite() || days > farthest {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most a hundred years")]
        let seconds = (days * TimeDelta::days(1).as_seconds_f64()) as i64;
        now.checked_add_signed(TimeDelta::seconds(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::super::CardNumberSettings;
    use super::*;

    fn plan(length: i64) -> NumberingPlan {
        let settings = CardNumberSettings { length: Some(length), ..CardNumberSettings::default() };
        NumberingPlan::try_from(&settings).unwrap()
    }

    fn now() -> DateTime<Utc> {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn reading(days_ago: i64, next: u64) -> Reading {
        Reading { at: now() - TimeDelta::days(days_ago), plan: plan(6), next }
    }

    fn rate(readings: &[Reading]) -> Option<(i64, u64)> {
        let current = IssuedRange { plan: plan(6), first: 0, next: 40_000 };
        let rate = Rate::of(readings, &current, now())?;
        Some(((now() - rate.since).num_days(), rate.numbers))
    }

    #[test]
    fn the_rate_is_taken_since_the_reading_that_is_closest_to_thirty_days_old() {
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&[reading(0, 39_000)]), None, "of today");
        assert_eq!(rate(&[reading(2, 38_000), reading(0, 39_000)]), Some((2, 2000)));
        assert_eq!(rate(&[reading(50, 0), reading(28, 10_000), reading(2, 38_000)]), Some((28, 30_000)));
        let of_another_plan = Reading { plan: plan(7), ..reading(30, 10) };
        assert_eq!(rate(&[of_another_plan]), None);
        assert_eq!(rate(&[reading(30, 50_000)]), None, "more than now: the counter was restored");
    }

    #[test]
    fn what_is_left_lasts_as_long_as_the_rate_says() {
        let rate = |per_day| Rate { since: now(), numbers: 1, per_day };
        let lasts = |per_day, left| rate(per_day).used_up(left, now()).map(|end| (end - now()).num_days());
        assert_eq!(lasts(100.0, 1000), Some(10));
        assert_eq!(lasts(0.5, 0), Some(0));
        assert_eq!(lasts(1.0, 365 * 100 + 1), None, "in a hundred years");
        assert_eq!(lasts(0.0, 1000), None, "none is given");
        assert_eq!(lasts(0.0, 0), None);
        assert_eq!(lasts(1e-9, u64::MAX), None);
    }
}
