//! One-time passwords: how a code is generated, which OTP a fetch returns, and how many failed
//! attempts are allowed. This module does no I/O.

use std::{cmp::Reverse, fmt};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rand::{Rng, RngExt};
use subtle::{Choice, ConstantTimeEq};

use crate::{
    model::{
        customer::{Identity, UserId},
        org::OrgId,
        timezone::TimeZone,
        typed_text,
    },
    secret::Secret,
    wire::wire_enum,
};

wire_enum! {
    /// What an OTP is for. Request bodies call it `action`.
    pub enum Scope {
        Points = "POINTS",
        /// Older callers write the plural.
        Coupon = "COUPON" | "COUPONS",
        /// Registering a contact who is not a customer yet.
        Registration = "REGISTRATION",
        Usergroup = "USERGROUP",
        Subscription = "SUBSCRIPTION",
        Generic = "GENERIC",
        PointsTransfer = "POINTSTRANSFER",
        CustomerStatusUpdate = "CUSTOMER_STATUS_UPDATE",
        CustomerIdentifierChange = "CUSTOMER_IDENTIFIER_CHANGE",
        CustomerIssueLinkCard = "CUSTOMER_ISSUE_LINK_CARD",
    }
}

wire_enum! {
    /// The alphabet of a code.
    pub enum CodeType {
        /// Upper-case letters and digits.
        Alphanumeric = "ALPHANUMERIC",
        /// Digits.
        Numeric = "NUMERIC",
        /// Crockford's base 32 (<https://www.crockford.com/base32.html>), whose characters are not
        /// mistaken for each other.
        Unambiguous = "UNAMBIGUOUS",
    }
}

impl CodeType {
    pub(super) const fn alphabet(self) -> &'static [u8] {
        match self {
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
            Self::Numeric => b"0123456789",
            Self::Unambiguous => b"0123456789ABCDEFGHJKMNPQRSTVWXYZ",
        }
    }
}

/// The owner of OTPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtpOwner {
    Customer(UserId),
    /// An identifier that belongs to no customer yet.
    Contact(Identity),
}

/// The OTPs of one owner for one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtpSeries {
    pub org: OrgId,
    pub owner: OtpOwner,
    pub scope: Scope,
}

/// The series that hold the OTPs of an identifier for one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtpHistory {
    /// New OTPs are issued here.
    pub current: OtpSeries,
    /// The series of the contact, which may hold OTPs from before the registration. A failed
    /// attempt is counted here, too: the identifier may move to another customer.
    pub before_registration: Option<OtpSeries>,
}

impl OtpHistory {
    /// Every series, the current one first.
    pub fn series(&self) -> impl Iterator<Item = &OtpSeries> {
        [&self.current].into_iter().chain(&self.before_registration)
    }
}

/// Who owns the OTPs of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeOwner {
    /// A contact: the identifier need not be registered, and no customer is looked up.
    Contact,
    /// A customer: the identifier must be registered.
    Customer,
    /// The customer if the identifier is registered, and the contact otherwise.
    CustomerOrContact,
}

impl Scope {
    /// Who owns the OTPs of this scope.
    pub const fn owner(self) -> ScopeOwner {
        match self {
            Self::Registration => ScopeOwner::Contact,
            Self::Generic | Self::Usergroup | Self::Subscription => ScopeOwner::CustomerOrContact,
            Self::Points
            | Self::Coupon
            | Self::PointsTransfer
            | Self::CustomerStatusUpdate
            | Self::CustomerIdentifierChange
            | Self::CustomerIssueLinkCard => ScopeOwner::Customer,
        }
    }
}

/// The OTP itself, as the customer reads it: upper-case letters and digits. `{:?}` does not show
/// it.
#[derive(Clone, Debug)]
pub struct Code(Secret<String>);

impl Code {
    /// Draws `length` characters, each uniform over the alphabet of `code_type`.
    pub fn generate(code_type: CodeType, length: usize, rng: &mut impl Rng) -> Self {
        let alphabet = code_type.alphabet();
        let code = (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect();
        Self(Secret::new(code))
    }

    /// A code that was generated before, as it was stored.
    pub fn stored(text: &str) -> Self {
        Self(Secret::new(text.to_owned()))
    }

    /// The characters, for the response to a fetch and for storage.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Compares in a time that depends only on the lengths.
    fn equals(&self, text: &Secret<String>) -> Choice {
        self.expose().as_bytes().ct_eq(text.expose().as_bytes())
    }
}

/// A code as a person typed it, cleaned. Spaces, hyphens and case are ignored, and digits of any
/// script are accepted. `{:?}` does not show it.
#[derive(Clone, Debug)]
pub struct TypedCode {
    /// What was typed, in upper case.
    plain: Secret<String>,
    /// The same with O read as 0, and I and L as 1, for an alphabet without these letters.
    unambiguous: Secret<String>,
    code_type: CodeType,
}

impl TypedCode {
    /// Reads a code in an org that issues codes of `code_type`; `None` when nothing was typed.
    pub fn read(text: &str, code_type: CodeType) -> Option<Self> {
        let typed: String = typed_text::number(text).chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        // Only ASCII letters are converted: `ı` and `ſ` must not become letters of a code.
        let plain = typed.to_ascii_uppercase();
        let unambiguous = plain.replace('O', "0").replace(['I', 'L'], "1");
        (!plain.is_empty()).then(|| Self {
            plain: Secret::new(plain),
            unambiguous: Secret::new(unambiguous),
            code_type,
        })
    }

    /// Whether the code has only characters that a code can have. Otherwise it is wrong, but not a
    /// failed attempt.
    pub fn is_possible(&self) -> bool {
        self.plain.expose().bytes().all(|b| CodeType::Alphanumeric.alphabet().contains(&b))
    }

    /// Compares in a time that depends only on the lengths. Codes that were issued before the org
    /// changed its type are compared as they are.
    fn matches(&self, code: &Code) -> bool {
        let lenient = Choice::from(u8::from(self.code_type == CodeType::Unambiguous));
        (code.equals(&self.plain) | (code.equals(&self.unambiguous) & lenient)).into()
    }
}

/// An OTP's number: its time of issue in milliseconds since 1970 times 1,000, and three random
/// digits. Sorts by time of issue and stays below 2^53, so that JavaScript callers read it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CreatedId(pub u64);

impl CreatedId {
    /// Generates a number for an OTP issued at `now`. Two numbers of the same millisecond may be
    /// equal, so the store must check that a number is new.
    pub fn draw(now: DateTime<Utc>, rng: &mut impl Rng) -> Self {
        Self(Self::earliest(now).0 + rng.random_range(0..1000))
    }

    /// The lowest number that an OTP issued at `time` can have.
    pub fn earliest(time: DateTime<Utc>) -> Self {
        Self(u64::try_from(time.timestamp_millis()).unwrap_or(0) * 1000)
    }

    /// When the OTP was issued.
    pub fn issued_at(self) -> DateTime<Utc> {
        i64::try_from(self.0 / 1000)
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// The number alone, without padding.
impl fmt::Display for CreatedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An issued OTP.
#[derive(Debug, Clone)]
pub struct Otp {
    pub created_id: CreatedId,
    pub code: Code,
    /// The first moment at which it is no longer valid.
    pub valid_until: DateTime<Utc>,
    pub consumed: bool,
    /// How often it was issued or sent again.
    pub sends: u32,
}

impl Otp {
    /// Neither consumed nor expired.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        !self.consumed && now < self.valid_until
    }
}

wire_enum! {
    /// What issuing an OTP does while an earlier one of the series is valid.
    pub enum Reissue {
        /// A new OTP is issued. Both are valid.
        New = "NEW",
        /// The earlier one is sent again.
        Same = "SAME",
    }
}

wire_enum! {
    /// What the `threshold` of a fetch means in an org.
    pub enum ThresholdMode {
        /// At least that much validity must be left.
        MinRemaining = "MIN_REMAINING",
        /// It must have been issued within that many seconds.
        MaxAge = "MAX_AGE",
    }
}

/// A condition of a fetch on the age or the remaining validity of an OTP.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    pub mode: ThresholdMode,
    pub seconds: u64,
}

impl Threshold {
    fn is_satisfied_by(self, otp: &Otp, now: DateTime<Utc>) -> bool {
        let allowed_ms = i128::from(self.seconds) * 1000;
        match self.mode {
            ThresholdMode::MinRemaining => {
                i128::from((otp.valid_until - now).num_milliseconds()) >= allowed_ms
            }
            ThresholdMode::MaxAge => {
                i128::from((now - otp.created_id.issued_at()).num_milliseconds()) <= allowed_ms
            }
        }
    }
}

/// The most recently issued OTP that is valid and satisfies `threshold`. An OTP that is consumed,
/// is expired or does not satisfy it does not hide an older one.
pub fn most_recent(otps: &[Otp], now: DateTime<Utc>, threshold: Option<Threshold>) -> Option<&Otp> {
    otps.iter()
        .filter(|otp| otp.is_valid(now) && threshold.is_none_or(|t| t.is_satisfied_by(otp, now)))
        .max_by_key(|otp| otp.created_id)
}

/// The positions of the valid OTPs with that code, the most recently issued first. Compares every
/// code, so that the time does not depend on which one matches.
fn matching(otps: &[Otp], typed: &TypedCode, now: DateTime<Utc>) -> Vec<usize> {
    let matches: Vec<bool> = otps.iter().map(|otp| otp.is_valid(now) & typed.matches(&otp.code)).collect();
    let mut positions: Vec<usize> = (0..otps.len()).filter(|position| matches[*position]).collect();
    positions.sort_by_key(|position| Reverse(otps[*position].created_id));
    positions
}

/// How many OTPs one validation consumes at most. Only the OTPs of a test identifier, which all
/// have one code, are more.
const MAX_CONSUMED: usize = 50;

/// The rate limit of failed attempts: `count` of them within `window`. Set by
/// `CONF_OTP_VALIDATE_RATE_LIMIT_COUNT` and `_MINUTE`.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimit {
    pub count: usize,
    pub window: TimeDelta,
}

/// The times of an owner's recent failed attempts in one scope, oldest first.
///
/// The window slides: at any moment, at most `count` wrong codes were checked in the `window`
/// before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedAttempts(Vec<DateTime<Utc>>);

impl FailedAttempts {
    /// Takes the times in any order.
    pub fn new(mut times: Vec<DateTime<Utc>>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn times(&self) -> &[DateTime<Utc>] {
        &self.0
    }

    /// Those that count at `now`, oldest first.
    pub fn counting(&self, limit: AttemptLimit, now: DateTime<Utc>) -> &[DateTime<Utc>] {
        &self.0[self.0.partition_point(|time| *time + limit.window <= now)..]
    }

    /// The failed attempts of both. An attempt that was counted in both is one.
    #[must_use]
    pub fn merged_with(&self, other: &Self) -> Self {
        Self::new([self.times(), other.without(self).times()].concat())
    }

    /// The failed attempts that were not counted in `other`, too.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut times = self.times().to_vec();
        for time in other.times() {
            if let Some(position) = times.iter().position(|own| own == time) {
                times.remove(position);
            }
        }
        Self(times)
    }

    /// The time until which no code may be checked. `None` if one may be checked now.
    pub fn locked_until(&self, limit: AttemptLimit, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let decisive = *self.0.iter().rev().nth(limit.count.checked_sub(1)?)?;
        let free_at = decisive + limit.window;
        (now < free_at).then_some(free_at)
    }

    /// Adds an attempt at `now`, and drops those that are outside of the window.
    #[must_use]
    pub fn with_attempt_at(&self, now: DateTime<Utc>, limit: AttemptLimit) -> Self {
        Self::new([self.counting(limit, now), &[now]].concat())
    }
}

/// The outcome of validating a typed code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidationOutcome {
    /// It is the code of the OTPs at these positions, which are to be consumed: mostly one, and
    /// several if they have got the same code by chance. So no code is right twice.
    Right(Vec<usize>),
    /// It is not a valid code, and counts as a failed attempt.
    Wrong,
    /// It contains a character that no code has. It is wrong, but does not count as a failed
    /// attempt.
    Impossible,
    /// There were too many failed attempts. No code is checked until this much time has passed.
    Locked(TimeDelta),
}

/// Evaluates a typed code at `now` against the OTPs that it may belong to and the failed attempts
/// so far.
pub fn evaluate(
    typed: &TypedCode,
    otps: &[Otp],
    attempts: &FailedAttempts,
    limit: AttemptLimit,
    now: DateTime<Utc>,
) -> ValidationOutcome {
    if let Some(free_at) = attempts.locked_until(limit, now) {
        return ValidationOutcome::Locked(free_at - now);
    }
    if !typed.is_possible() {
        return ValidationOutcome::Impossible;
    }
    let mut right = matching(otps, typed, now);
    right.truncate(MAX_CONSUMED);
    if right.is_empty() { ValidationOutcome::Wrong } else { ValidationOutcome::Right(right) }
}

/// A day in an org's time zone. The daily limit of OTPs applies to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrgDay {
    pub date: NaiveDate,
    /// The org's next midnight.
    pub ends_at: DateTime<Utc>,
}

impl OrgDay {
    /// The day that `now` falls in.
    pub fn of(now: DateTime<Utc>, timezone: &TimeZone) -> Self {
        Self { date: timezone.local(now).date_naive(), ends_at: timezone.next_midnight(now) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::fixtures::{at, otp},
        secret::os_rng,
    };

    fn consumed(issued: i64, valid_until: i64) -> Otp {
        Otp { consumed: true, ..otp(issued, valid_until) }
    }

    fn found(otps: &[Otp], now: i64, threshold: Option<(ThresholdMode, u64)>) -> Option<i64> {
        let threshold = threshold.map(|(mode, seconds)| Threshold { mode, seconds });
        most_recent(otps, at(now), threshold).map(|otp| (otp.created_id.issued_at() - at(0)).num_seconds())
    }

    #[test]
    fn the_most_recently_issued_of_several_valid_otps_is_found() {
        assert_eq!(found(&[otp(0, 300), otp(20, 320), otp(10, 310)], 30, None), Some(20));
    }

    #[test]
    fn a_consumed_otp_does_not_hide_an_older_valid_one() {
        assert_eq!(found(&[otp(0, 300), consumed(10, 310)], 30, None), Some(0));
    }

    #[test]
    fn an_expired_otp_does_not_hide_an_older_valid_one() {
        assert_eq!(found(&[otp(0, 300), otp(10, 40)], 40, None), Some(0));
    }

    #[test]
    fn an_otp_is_valid_until_the_moment_it_expires() {
        assert_eq!(found(&[otp(0, 300)], 299, None), Some(0));
        assert_eq!(found(&[otp(0, 300)], 300, None), None);
    }

    #[test]
    fn min_remaining_asks_for_validity_left() {
        let left = |seconds| Some((ThresholdMode::MinRemaining, seconds));
        assert_eq!(found(&[otp(0, 300)], 240, left(60)), Some(0));
        assert_eq!(found(&[otp(0, 300)], 240, left(61)), None);
        assert_eq!(found(&[otp(0, 300)], 240, left(i64::MAX as u64)), None);
        assert_eq!(found(&[otp(0, 300), otp(10, 250)], 240, left(60)), Some(0), "a short one hides nothing");
    }

    #[test]
    fn max_age_asks_for_recent_issue() {
        let age = |seconds| Some((ThresholdMode::MaxAge, seconds));
        assert_eq!(found(&[otp(0, 300)], 60, age(60)), Some(0));
        assert_eq!(found(&[otp(0, 300)], 61, age(60)), None);
        assert_eq!(found(&[otp(0, 300)], 0, age(0)), Some(0));
        assert_eq!(found(&[otp(0, 300)], 61, age(i64::MAX as u64)), Some(0));
    }

    fn typed(text: &str) -> TypedCode {
        TypedCode::read(text, CodeType::Alphanumeric).unwrap()
    }

    #[test]
    fn a_matching_code_is_found_however_it_was_typed() {
        let otps = [otp(0, 300), otp(10, 310)];
        let issued = |code: &str, now| {
            matching(&otps, &typed(code), at(now))
                .first()
                .map(|position| otps[*position].created_id.issued_at())
        };
        for code in [
            " code0 ", "CO-DE 0", "co\u{200b}de0", "ＣＯＤＥ０", "CODE٠",
            "C\u{2011}O\u{a0}D\u{2014}E0\u{feff}",
        ] {
            assert_eq!(issued(code, 20), Some(at(0)), "{code}");
        }
        assert_eq!(issued("CODE10", 20), Some(at(10)));
        assert_eq!(issued("CODE1", 20), None);
        assert_eq!(issued("CODE0", 300), None, "expired");
        assert!(matching(&[consumed(0, 300)], &typed("CODE0"), at(1)).is_empty());
    }

    #[test]
    fn nothing_but_spaces_hyphens_and_invisible_characters_is_no_code() {
        for text in ["", " ", "-", "\u{200b}", " \u{2014} \u{a0}"] {
            assert!(TypedCode::read(text, CodeType::Alphanumeric).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_character_that_no_code_has_makes_a_code_impossible() {
        for text in ["CODE!", "CODEÉ", "ıCODE", "ſCODE", "CODE.", "\u{2800}", "½", "\u{212a}"] {
            assert!(!typed(text).is_possible(), "{text}");
        }
        assert!(typed(" cO-dE٣ ").is_possible());
    }

    #[test]
    fn an_unambiguous_code_is_right_with_the_letters_that_it_might_have_been_read_as() {
        let otps = [Otp { code: Code::stored("0A1B1Z"), ..otp(0, 300) }];
        let is_right =
            |text, code_type| !matching(&otps, &TypedCode::read(text, code_type).unwrap(), at(1)).is_empty();
        for text in ["0A1B1Z", "oaibLz", "OA1-BIZ"] {
            assert!(is_right(text, CodeType::Unambiguous), "{text}");
        }
        assert!(!is_right("0A1B12", CodeType::Unambiguous));
        assert!(is_right("0A1B1Z", CodeType::Alphanumeric), "issued before the org changed its type");
        assert!(!is_right("OAIBLZ", CodeType::Alphanumeric), "an alphanumeric code may have these letters");
        let older = [Otp { code: Code::stored("OIL"), ..otp(0, 300) }];
        let typed = TypedCode::read("oil", CodeType::Unambiguous).unwrap();
        assert!(!matching(&older, &typed, at(1)).is_empty(), "issued before the org changed its type");
    }

    #[test]
    fn codes_use_the_whole_alphabet_evenly() {
        const DRAWS: usize = 3600;
        for code_type in CodeType::ALL {
            let mut counts = std::collections::HashMap::new();
            for _ in 0..DRAWS {
                let code = Code::generate(*code_type, 10, &mut os_rng());
                assert_eq!(code.expose().len(), 10);
                for c in code.expose().bytes() {
                    *counts.entry(c).or_insert(0_usize) += 1;
                }
            }
            let alphabet: HashSet<u8> = code_type.alphabet().iter().copied().collect();
            assert_eq!(counts.keys().copied().collect::<HashSet<_>>(), alphabet);
            // The expected count is 1,000 or more; a deviation of 25 % is 7.9 standard deviations
            // or more.
            let expected = DRAWS * 10 / alphabet.len();
            for count in counts.values() {
                assert!(count.abs_diff(expected) < expected / 4, "{count} of {expected}");
            }
        }
    }

    #[test]
    fn debug_shows_no_code() {
        assert!(!format!("{:?}", otp(0, 300)).contains("CODE0"));
        assert!(!format!("{:?}", typed("CODE0")).contains("CODE0"));
    }

    #[test]
    fn created_ids_are_ordered_by_time_and_exact_in_javascript() {
        let mut rng = os_rng();
        let early = CreatedId::draw(at(0), &mut rng);
        let late = CreatedId::draw(at(0) + TimeDelta::milliseconds(1), &mut rng);
        assert!(early < late && late.0 < 1 << 53);
        assert_eq!(early.issued_at(), at(0));
    }

    const LIMIT: AttemptLimit = AttemptLimit { count: 5, window: TimeDelta::minutes(15) };

    #[test]
    fn five_failed_attempts_lock_until_the_first_is_fifteen_minutes_old() {
        let mut attempts = FailedAttempts::default();
        for second in 0..5 {
            assert_eq!(attempts.locked_until(LIMIT, at(second)), None);
            attempts = attempts.with_attempt_at(at(second), LIMIT);
        }
        assert_eq!(attempts.locked_until(LIMIT, at(5)), Some(at(900)));
        assert_eq!(attempts.locked_until(LIMIT, at(899)), Some(at(900)));
        assert_eq!(attempts.locked_until(LIMIT, at(900)), None);
        assert_eq!(attempts.counting(LIMIT, at(899)).len(), 5);
        assert_eq!(attempts.counting(LIMIT, at(900)), [at(1), at(2), at(3), at(4)]);
        assert!(attempts.counting(LIMIT, at(904)).is_empty(), "they stay stored, and count no more");
        let attempts = attempts.with_attempt_at(at(900), LIMIT);
        assert_eq!(attempts.locked_until(LIMIT, at(900)), Some(at(901)), "the window slides");
        assert_eq!(attempts.times().len(), 5, "those that no longer count are forgotten");
    }

    proptest! {
        #[test]
        fn a_code_is_right_in_every_spelling(
            code in "[A-Z0-9]{4,12}",
            marks in prop::collection::vec((0_usize..12, prop::sample::select(&[' ', '-', '\u{200b}', '\u{2011}', '\t'])), 0..5),
            zero in prop::sample::select(&['0', '٠', '०', '０', '\u{1d7ce}']),
            lower in any::<bool>(),
        ) {
            let digit = |c: char| c.to_digit(10).and_then(|value| char::from_u32(u32::from(zero) + value)).unwrap_or(c);
            let mut text: Vec<char> = code.chars().map(digit).collect();
            for (at, mark) in marks {
                text.insert(at.min(text.len()), mark);
            }
            let text: String = text.into_iter().collect();
            let text = if lower { text.to_lowercase() } else { text };
            let otps = [Otp { code: Code::stored(&code), ..otp(0, 300) }];
            for code_type in CodeType::ALL {
                let typed = TypedCode::read(&text, *code_type).unwrap();
                prop_assert!(typed.is_possible() && !matching(&otps, &typed, at(1)).is_empty(), "{:?}", text);
            }
        }

        #[test]
        fn any_text_is_a_code_or_none(text in "\\PC{0,40}|[\\s\\pC\\pM]{0,40}") {
            if let Some(typed) = TypedCode::read(&text, CodeType::Unambiguous) {
                prop_assert!(matching(&[otp(0, 300)], &typed, at(1)).is_empty() || typed.is_possible());
            }
        }

        #[test]
        fn no_window_ever_holds_more_failed_attempts_than_the_limit(
            gaps in prop::collection::vec(0_i64..600, 1..60), count in 1_usize..8
        ) {
            let limit = AttemptLimit { count, window: TimeDelta::minutes(15) };
            let (mut now, mut attempts, mut checked) = (0, FailedAttempts::default(), Vec::new());
            for gap in gaps {
                now += gap;
                if attempts.locked_until(limit, at(now)).is_none() {
                    attempts = attempts.with_attempt_at(at(now), limit);
                    checked.push(now);
                }
            }
            for start in &checked {
                let within = checked.iter().filter(|t| (*start..start + 900).contains(t)).count();
                prop_assert!(within <= count);
            }
        }
    }
}
