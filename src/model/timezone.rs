//! Time zones of the IANA database, and their days. The database is embedded, because the operating
//! system may have none, or another version.

use chrono::{DateTime, FixedOffset, Utc};
use jiff::{
    Timestamp,
    tz::{self, TimeZoneDatabase},
};

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone(tz::TimeZone);

impl TimeZone {
    /// The zone of an IANA name such as `Asia/Kolkata`; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    /// The same instant, with the zone's offset from UTC at that instant.
    pub fn local(&self, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
        let offset = FixedOffset::east_opt(self.0.to_offset(timestamp(instant)).seconds());
        // Both libraries support only offsets of less than a day.
        instant.with_timezone(&offset.unwrap_or(const { FixedOffset::east_opt(0).unwrap() }))
    }

    /// The first instant of the day after that of `instant`. If clocks go forward at midnight, it
    /// is the end of the gap.
    pub fn next_midnight(&self, instant: DateTime<Utc>) -> DateTime<Utc> {
        let tomorrow = self.0.to_datetime(timestamp(instant)).date().tomorrow();
        let midnight = tomorrow.and_then(|date| date.to_zoned(self.0.clone()));
        let midnight =
            midnight.ok().and_then(|zoned| DateTime::from_timestamp(zoned.timestamp().as_second(), 0));
        // Only the last day that can be represented has no next one.
        midnight.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// The same instant, rounded to seconds and limited to the range of `jiff`.
fn timestamp(instant: DateTime<Utc>) -> Timestamp {
    let second = instant.timestamp().clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::named(name).unwrap()
    }

    fn instant(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn an_instant_has_the_offset_of_its_season() {
        let local = |name, text| zone(name).local(instant(text)).to_rfc3339();
        assert_eq!(local("Asia/Kolkata", "2017-08-07T16:14:20Z"), "2017-08-07T21:44:20+05:30");
        assert_eq!(local("Europe/Berlin", "2026-07-01T00:00:00Z"), "2026-07-01T02:00:00+02:00");
        assert_eq!(local("Europe/Berlin", "2026-12-01T00:00:00Z"), "2026-12-01T01:00:00+01:00");
        assert_eq!(local("UTC", "2026-12-01T00:00:00Z"), "2026-12-01T00:00:00+00:00");
    }

    #[test]
    fn midnight_is_the_zones_own() {
        let next = |name, text| zone(name).next_midnight(instant(text));
        assert_eq!(next("Asia/Kolkata", "2026-11-21T18:29:59.9Z"), instant("2026-11-21T18:30:00Z"));
        assert_eq!(next("Asia/Kolkata", "2026-11-21T18:30:00Z"), instant("2026-11-22T18:30:00Z"));
        // Cairo went from 2024-04-26 00:00 straight to 01:00.
        assert_eq!(next("Africa/Cairo", "2024-04-25T12:00:00Z"), instant("2024-04-25T22:00:00Z"));
        // Apia had no 2011-12-30.
        assert_eq!(next("Pacific/Apia", "2011-12-30T09:00:00Z"), instant("2011-12-30T10:00:00Z"));
    }

    #[test]
    fn other_names_are_no_zones() {
        for name in ["", "Asia/Nowhere", "../UTC", "IST+5"] {
            assert!(TimeZone::named(name).is_none(), "{name}");
        }
    }
}
