//! Card numbers: external IDs that the service generates. This module converts sequence values to
//! numbers, and checks whether a change of an org's plan could repeat one.

pub mod check_digit;
pub mod history;
pub mod permutation;
#[cfg(feature = "cli")]
pub mod rate;

use ethnum::U256;
use serde::{Deserialize, Serialize};

use crate::{secret::Secret, wire::wire_enum};
use permutation::{MAX_DIGITS, Permutation, PermutationKey};

wire_enum! {
    /// `CONF_CARD_CHECKSUM_DIGIT_ALGO`: the order of the numbers and their check digit.
    pub enum Algorithm {
        /// In sequence, without check digit.
        AutoInc = "AUTO_INC",
        /// In sequence, with a Luhn digit.
        Luhn = "LUHN_ALGO",
        /// In sequence, with the remainder modulo seven.
        Mod7 = "MOD7_ALGO",
        /// In the order of the org's permutation, without check digit.
        Random = "RANDOM",
        RandomLuhn = "RANDOM_LUHN",
        RandomMod7 = "RANDOM_MOD7",
    }
}

impl Algorithm {
    const fn is_random(self) -> bool {
        matches!(self, Self::Random | Self::RandomLuhn | Self::RandomMod7)
    }

    /// The digit at the end of a number whose other digits are `digits`.
    fn check_digit(self, digits: &str) -> Option<u8> {
        match self {
            Self::AutoInc | Self::Random => None,
            Self::Luhn | Self::RandomLuhn => Some(check_digit::luhn(digits)),
            Self::Mod7 | Self::RandomMod7 => Some(check_digit::mod7(digits)),
        }
    }

    const fn check_digits(self) -> usize {
        match self {
            Self::AutoInc | Self::Random => 0,
            Self::Luhn | Self::RandomLuhn | Self::Mod7 | Self::RandomMod7 => 1,
        }
    }
}

wire_enum! {
    /// `CONF_VALUES_TO_INCLUDE_FOR_CHECKSUM_DIGIT`: what the check digit covers besides the
    /// sequence.
    pub enum ChecksumIncludes {
        /// The digits of the prefix; its letters are skipped.
        Prefix = "PREFIX",
        None = "NONE",
    }
}

/// The settings of an org's numbering plan, with the names of the org's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardNumberSettings {
    #[serde(rename = "CONF_CARD_NUMBER_LENGTH", default, skip_serializing_if = "Option::is_none")]
    pub length: Option<i64>,
    #[serde(rename = "CONF_CARD_NUMBER_OFFSET", default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    #[serde(rename = "CONF_CARD_NUMBER_PREFIX", default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    #[serde(rename = "CONF_CARD_NUMBER_SUFFIX", default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    #[serde(rename = "CONF_CARD_CHECKSUM_DIGIT_ALGO", default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    #[serde(
        rename = "CONF_VALUES_TO_INCLUDE_FOR_CHECKSUM_DIGIT",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub checksum_includes: Option<ChecksumIncludes>,
}

/// Why settings do not form a numbering plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The length is missing, out of range, or leaves no room for the sequence.
    #[error("{0}")]
    Length(String),
    /// Another setting is wrong.
    #[error("{0}")]
    Settings(String),
}

/// The format and the offset of an org's card numbers. Two plans with the same format differ at
/// most in their offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberingPlan {
    prefix: String,
    suffix: String,
    algorithm: Algorithm,
    checksum_includes: ChecksumIncludes,
    /// Digits of the sequence part, 1 to 50.
    width: u32,
    offset: u64,
}

/// The end of the longest sequences. No counter reaches it.
const MAX_END: u64 = i64::MAX as u64;

/// A block of values is allocated only if the range has room for this many blocks.
const MIN_BLOCKS_LEFT: u64 = 1000;

/// The maximum length of a card number.
pub const MAX_LENGTH: usize = MAX_DIGITS as usize;

impl CardNumberSettings {
    /// Every setting that is wrong whatever the length of the sequence is.
    pub fn problems(&self) -> Vec<PlanError> {
        let mut problems = Vec::new();
        for (key, value) in
            [("CONF_CARD_NUMBER_PREFIX", &self.prefix), ("CONF_CARD_NUMBER_SUFFIX", &self.suffix)]
        {
            if !value.bytes().all(|b| b.is_ascii_alphanumeric()) {
                problems
                    .push(PlanError::Settings(format!("{key} may hold letters A-Z, a-z and digits only")));
            }
        }
        let algorithm = self.algorithm.unwrap_or(Algorithm::AutoInc);
        if !self.suffix.is_empty() && algorithm != Algorithm::AutoInc {
            problems.push(PlanError::Settings(format!(
                "CONF_CARD_NUMBER_SUFFIX goes with AUTO_INC only, not with {algorithm}"
            )));
        }
        match self.length {
            None => problems.push(PlanError::Length("CONF_CARD_NUMBER_LENGTH is missing".to_owned())),
            Some(length) if !usize::try_from(length).is_ok_and(|n| (1..=MAX_LENGTH).contains(&n)) => {
                problems.push(PlanError::Length(format!(
                    "CONF_CARD_NUMBER_LENGTH is {length}, not within 1 to {MAX_LENGTH}"
                )));
            }
            Some(_) => {}
        }
        if let Some(offset) = self.offset.filter(|offset| *offset < 0) {
            problems.push(PlanError::Settings(format!("CONF_CARD_NUMBER_OFFSET is {offset}, below zero")));
        }
        problems
    }
}

impl TryFrom<&CardNumberSettings> for NumberingPlan {
    type Error = PlanError;

    fn try_from(settings: &CardNumberSettings) -> Result<Self, PlanError> {
        if let Some(error) = settings.problems().into_iter().next() {
            return Err(error);
        }
        let algorithm = settings.algorithm.unwrap_or(Algorithm::AutoInc);
        let length = usize::try_from(settings.length.unwrap_or_default()).unwrap_or_default();
        let fixed = settings.prefix.len() + settings.suffix.len() + algorithm.check_digits();
        let width = length
            .checked_sub(fixed)
            .and_then(|width| u32::try_from(width).ok())
            .filter(|width| *width > 0)
            .ok_or_else(|| {
                PlanError::Length(format!(
                    "CONF_CARD_NUMBER_LENGTH is {length}, but prefix, suffix and check digit take {fixed}: \
                     no digit is left for the sequence"
                ))
            })?;
        let offset = u64::try_from(settings.offset.unwrap_or_default()).unwrap_or_default();
        let plan = Self {
            prefix: settings.prefix.clone(),
            suffix: settings.suffix.clone(),
            algorithm,
            // Without a check digit the setting has no effect, so it must not change the format.
            checksum_includes: settings
                .checksum_includes
                .filter(|_| algorithm.check_digits() > 0)
                .unwrap_or(ChecksumIncludes::None),
            width,
            offset,
        };
        if offset >= plan.end() {
            let limit = if plan.end() == MAX_END {
                format!("must be below {MAX_END}, however long the numbers are")
            } else {
                format!(
                    "does not fit into the {width} digits that CONF_CARD_NUMBER_LENGTH leaves for the sequence"
                )
            };
            return Err(PlanError::Settings(format!("CONF_CARD_NUMBER_OFFSET is {offset}, which {limit}")));
        }
        Ok(plan)
    }
}

impl NumberingPlan {
    /// The first value of the sequence.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The first value after the sequence. It is at most `i64::MAX`, which no counter reaches.
    pub fn end(&self) -> u64 {
        10_u64.checked_pow(self.width).map_or(MAX_END, |size| size.min(MAX_END))
    }

    /// The last value at which `count` values may be allocated at once; `None` if the range is too
    /// small for that. A block needs room for a thousand of its size. Near the end of the range,
    /// numbers are allocated one by one, so that few are skipped.
    pub fn last_start(&self, count: u64) -> Option<u64> {
        let room = if count > 1 { count.saturating_mul(MIN_BLOCKS_LEFT) } else { 1 };
        self.end().checked_sub(room)
    }

    /// The largest block that can be allocated at the first value.
    pub fn max_block_size(&self) -> u64 {
        (self.end() - self.offset) / MIN_BLOCKS_LEFT
    }

    /// The percentage (0 to 100) of the range from the offset to the end that is used once `value`
    /// is issued.
    pub fn percent_used(&self, value: u64) -> f64 {
        let whole = u128::from(self.end() - self.offset);
        let used = u128::from((value + 1).saturating_sub(self.offset));
        // In hundredths of a percent, which an f64 holds exactly.
        let hundredths = u32::try_from(used * 10_000 / whole.max(1)).unwrap_or(10_000);
        f64::from(hundredths) / 100.0
    }

    /// Whether numbers of this plan look like payment card numbers (ISO/IEC 7812): 16 digits, the
    /// first one 3 to 6, and a last one that is the Luhn digit of all the others.
    pub fn resembles_payment_cards(&self) -> bool {
        let luhn = matches!(self.algorithm, Algorithm::Luhn | Algorithm::RandomLuhn);
        let width = self.width as usize;
        let digits = self.prefix.bytes().all(|b| b.is_ascii_digit());
        if !luhn || !digits || self.prefix.len() + width + 1 != 16 {
            return false;
        }
        let sequence = format!("{:0>width$}", self.offset);
        let number = format!("{}{sequence}", self.prefix);
        // A prefix that the check digit does not cover adds a constant to the Luhn sum. The check
        // digit is right for the whole number only if that constant is a multiple of ten.
        let covered = self.checksum_includes == ChecksumIncludes::Prefix
            || check_digit::luhn(&number) == check_digit::luhn(&sequence);
        let any_first = self.prefix.is_empty() && self.algorithm.is_random();
        covered && (any_first || number.starts_with(['3', '4', '5', '6']))
    }

    /// The format of this plan's numbers, as text. Plans with the same format differ only in their
    /// offset.
    pub fn format(&self) -> String {
        format!(
            "{}/{}/{}/{}/{}",
            self.algorithm, self.width, self.prefix, self.suffix, self.checksum_includes
        )
    }

    /// The card number for a value of the sequence. Different values below [`Self::end`] give
    /// different numbers.
    pub fn number(&self, value: u64, key: &PermutationKey) -> String {
        let value = U256::from(value);
        let value =
            if self.algorithm.is_random() { Permutation::new(key, self.width).permute(value) } else { value };
        let sequence = format!("{value:0>width$}", width = self.width as usize);
        let covered = match self.checksum_includes {
            ChecksumIncludes::Prefix => format!("{}{sequence}", self.prefix),
            ChecksumIncludes::None => sequence.clone(),
        };
        let mut number = format!("{}{sequence}{}", self.prefix, self.suffix);
        if let Some(digit) = self.algorithm.check_digit(&covered) {
            number.push(char::from(b'0' + digit));
        }
        number
    }
}

/// What a number is under a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberReading {
    /// It has another length, prefix or suffix, or its sequence part is no value of the plan.
    NotOfPlan,
    /// Only its check digit is wrong.
    WrongCheckDigit,
    /// It is the number for this value of the sequence.
    Value(u64),
}

impl NumberingPlan {
    /// Whether numbers of this plan end in a check digit.
    pub const fn has_check_digit(&self) -> bool {
        self.algorithm.check_digits() > 0
    }

    /// The value of the sequence that `number` was made from. The inverse of [`Self::number`].
    pub fn read(&self, number: &str, key: &PermutationKey) -> NumberReading {
        let sequence = number
            .strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_suffix(self.suffix.as_str()))
            .filter(|rest| rest.len() == self.width as usize + self.algorithm.check_digits())
            .filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|rest| rest.get(..self.width as usize));
        let Some(image) = sequence.and_then(|digits| digits.parse::<U256>().ok()) else {
            return NumberReading::NotOfPlan;
        };
        let value =
            if self.algorithm.is_random() { Permutation::new(key, self.width).invert(image) } else { image };
        match u64::try_from(value).ok().filter(|value| *value < self.end()) {
            None => NumberReading::NotOfPlan,
            Some(value) if self.number(value, key) == number => NumberReading::Value(value),
            Some(_) => NumberReading::WrongCheckDigit,
        }
    }

    /// Whether the numbers are in an unguessable order.
    pub const fn is_random(&self) -> bool {
        self.algorithm.is_random()
    }

    /// The value of the sequence that gives this number. `None` if no value does.
    pub fn value_of(&self, number: &str, key: &PermutationKey) -> Option<u64> {
        match self.read(number, key) {
            NumberReading::Value(value) => Some(value),
            NumberReading::NotOfPlan | NumberReading::WrongCheckDigit => None,
        }
    }
}

/// A new key for an org, from the operating system's generator.
pub fn new_permutation_key(rng: &mut impl rand::Rng) -> PermutationKey {
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    Secret::new(key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const KEY: PermutationKey = Secret::new([5; 32]);

    fn settings(algorithm: Algorithm, length: i64, prefix: &str, offset: i64) -> CardNumberSettings {
        CardNumberSettings {
            algorithm: Some(algorithm),
            length: Some(length),
            prefix: prefix.to_owned(),
            offset: Some(offset),
            ..CardNumberSettings::default()
        }
    }

    fn plan(settings: &CardNumberSettings) -> NumberingPlan {
        NumberingPlan::try_from(settings).unwrap()
    }

    fn first(settings: &CardNumberSettings) -> String {
        let plan = plan(settings);
        plan.number(plan.offset(), &KEY)
    }

    #[test]
    fn documented_numbers() {
        assert_eq!(first(&settings(Algorithm::AutoInc, 10, "", 1_000_000_010)), "1000000010");
        let with_suffix =
            CardNumberSettings { suffix: "3401".into(), ..settings(Algorithm::AutoInc, 12, "1234", 3000) };
        assert_eq!(first(&with_suffix), "123430003401");
        assert_eq!(first(&settings(Algorithm::Mod7, 15, "1112", 3000)), "111200000030004");
    }

    #[test]
    fn the_prefix_counts_for_the_check_digit_when_the_org_says_so() {
        let mut luhn = settings(Algorithm::Luhn, 11, "AB79", 92_739_871 % 1_000_000);
        assert_eq!(first(&luhn), format!("AB79739871{}", check_digit::luhn("739871")));
        luhn.checksum_includes = Some(ChecksumIncludes::Prefix);
        assert_eq!(first(&luhn), format!("AB79739871{}", check_digit::luhn("79739871")));
    }

    #[test]
    fn random_numbers_carry_the_check_digit_of_what_is_printed() {
        for (algorithm, check) in [
            (Algorithm::RandomLuhn, check_digit::luhn as fn(&str) -> u8),
            (Algorithm::RandomMod7, check_digit::mod7),
        ] {
            let number = first(&settings(algorithm, 12, "7", 0));
            assert_eq!(number.len(), 12);
            let (body, digit) = number.split_at(11);
            assert_eq!(digit, check(&body[1..]).to_string(), "{number}");
        }
    }

    #[test]
    fn a_number_is_read_back_to_its_value_and_a_wrong_check_digit_is_told() {
        for algorithm in Algorithm::ALL {
            let plan = plan(&settings(*algorithm, 12, "7A", 5));
            let number = plan.number(123_456, &KEY);
            assert_eq!(plan.read(&number, &KEY), NumberReading::Value(123_456), "{algorithm}");
            for other in ["", "7A", "8A0000123456", &number[1..], &format!("{number}0"), "7A00x0123456"] {
                assert_eq!(plan.read(other, &KEY), NumberReading::NotOfPlan, "{algorithm} {other}");
            }
            if plan.has_check_digit() {
                let (body, digit) = number.split_at(11);
                let wrong = (digit.parse::<u8>().unwrap() + 1) % 10;
                assert_eq!(plan.read(&format!("{body}{wrong}"), &KEY), NumberReading::WrongCheckDigit);
            }
        }
    }

    #[test]
    fn the_share_of_the_range_that_is_used_counts_from_the_offset() {
        let plan = plan(&settings(Algorithm::AutoInc, 3, "", 500));
        assert!((plan.percent_used(500) - 0.2).abs() < f64::EPSILON);
        assert!((plan.percent_used(899) - 80.0).abs() < f64::EPSILON);
        assert!((plan.percent_used(999) - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_length_is_kept_up_to_fifty() {
        for algorithm in Algorithm::ALL {
            for length in [3, 20, 39, 50] {
                let number = first(&settings(*algorithm, length, "A", 1));
                assert_eq!(number.len(), usize::try_from(length).unwrap(), "{algorithm}");
            }
        }
    }

    #[test]
    fn lengths_that_leave_no_sequence_are_refused_as_such() {
        for settings in [
            CardNumberSettings::default(),
            settings(Algorithm::AutoInc, 0, "", 0),
            settings(Algorithm::AutoInc, 51, "", 0),
            settings(Algorithm::AutoInc, -1, "", 0),
            settings(Algorithm::AutoInc, 4, "1234", 0),
            settings(Algorithm::Luhn, 5, "1234", 0),
        ] {
            let error = NumberingPlan::try_from(&settings).unwrap_err();
            assert!(matches!(error, PlanError::Length(_)), "{settings:?}: {error}");
        }
    }

    #[test]
    fn other_wrong_settings_are_refused_with_the_reason() {
        let suffix = |algorithm, suffix: &str| CardNumberSettings {
            suffix: suffix.into(),
            ..settings(algorithm, 10, "", 0)
        };
        for (settings, reason) in [
            (settings(Algorithm::AutoInc, 10, "1-2", 0), "CONF_CARD_NUMBER_PREFIX"),
            (settings(Algorithm::AutoInc, 10, "ÄB", 0), "CONF_CARD_NUMBER_PREFIX"),
            (suffix(Algorithm::AutoInc, "x y"), "CONF_CARD_NUMBER_SUFFIX"),
            (suffix(Algorithm::Luhn, "34"), "AUTO_INC only"),
            (settings(Algorithm::AutoInc, 10, "", -5), "below zero"),
            (settings(Algorithm::AutoInc, 4, "", 10_000), "does not fit into the 4 digits"),
            (settings(Algorithm::AutoInc, 50, "", i64::MAX), "however long the numbers are"),
        ] {
            let error = NumberingPlan::try_from(&settings).unwrap_err();
            assert!(matches!(error, PlanError::Settings(_)), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_whole_short_range_is_used_and_nothing_twice() {
        for algorithm in Algorithm::ALL {
            let plan = plan(&settings(*algorithm, 3, "", 0));
            let numbers: HashSet<String> = (0..plan.end()).map(|value| plan.number(value, &KEY)).collect();
            assert_eq!(numbers.len() as u64, plan.end(), "{algorithm}");
        }
    }

    #[test]
    fn a_random_order_never_changes_between_releases() {
        let plan = plan(&settings(Algorithm::Random, 9, "", 0));
        let numbers: Vec<String> = (0..3).map(|value| plan.number(value, &KEY)).collect();
        // The values are those of an independent implementation of the construction.
        assert_eq!(numbers, ["716882805", "017874479", "536711146"]);
    }

    proptest! {
        #[test]
        fn different_values_give_different_numbers(
            algorithm in prop::sample::select(Algorithm::ALL),
            length in 2_i64..=50,
            a: u64,
            b: u64,
        ) {
            let plan = plan(&settings(algorithm, length, "", 0));
            let (a, b) = (a % plan.end(), b % plan.end());
            prop_assert_eq!(plan.number(a, &KEY) == plan.number(b, &KEY), a == b);
        }

        #[test]
        fn a_number_leads_back_to_its_value(
            algorithm in prop::sample::select(Algorithm::ALL),
            length in 4_i64..=50,
            prefix in "[A-Z0-9]{0,2}",
            value: u64,
        ) {
            let plan = plan(&settings(algorithm, length, &prefix, 0));
            let value = value % plan.end();
            let number = plan.number(value, &KEY);
            prop_assert_eq!(plan.value_of(&number, &KEY), Some(value));
            prop_assert_eq!(plan.value_of(&format!("{number}0"), &KEY), None);
            prop_assert_eq!(plan.value_of(&number[1..], &KEY), None);
        }
    }
}
