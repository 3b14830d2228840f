//! Mobile numbers: the spellings that an org's customers use, and their normal form.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::typed_text;

/// E.164: a number has at most 15 digits with its country code. The shortest in use have 7.
pub(crate) const MOBILE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// How many digits an org's national mobile numbers have, without trunk prefix. Serialized as a
/// number if there is one length, and as a list if there are several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Lengths", into = "Lengths")]
pub struct NationalLengths(BTreeSet<usize>);

impl NationalLengths {
    /// Shortest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, length: usize) -> bool {
        self.0.contains(&length)
    }
}

impl From<usize> for NationalLengths {
    fn from(length: usize) -> Self {
        Self(BTreeSet::from([length]))
    }
}

impl FromIterator<usize> for NationalLengths {
    fn from_iter<T: IntoIterator<Item = usize>>(lengths: T) -> Self {
        Self(lengths.into_iter().collect())
    }
}

/// The form in which [`NationalLengths`] are serialized.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "unexpected value, expected a whole number of digits, without quotes")]
enum Lengths {
    One(usize),
    Several(BTreeSet<usize>),
}

impl From<Lengths> for NationalLengths {
    fn from(lengths: Lengths) -> Self {
        match lengths {
            Lengths::One(length) => length.into(),
            Lengths::Several(lengths) => Self(lengths),
        }
    }
}

impl From<NationalLengths> for Lengths {
    fn from(NationalLengths(lengths): NationalLengths) -> Self {
        match lengths.first() {
            Some(only) if lengths.len() == 1 => Self::One(*only),
            _ => Self::Several(lengths),
        }
    }
}

/// How an org's national mobile numbers are converted to international ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneNumberPlan {
    /// Digits of the country code, `91`.
    pub country_code: String,
    /// The prefix that people write before a national number, such as `0`. Empty if there is none.
    pub trunk_prefix: String,
    /// How many digits a number has without country code and trunk prefix.
    pub national_lengths: NationalLengths,
}

impl PhoneNumberPlan {
    /// Converts a typed number to its normal form: digits with the country code and without a trunk
    /// prefix. `None` if it is not a mobile number.
    ///
    /// A number with `+` or `00` includes its country code. Any other number is national if it has
    /// a national length. It may also be readable as a number with the org's country code. Then it
    /// is international, unless the org has a single national length and the whole number has that
    /// length.
    ///
    /// A decimal number is no mobile number: programs write whole numbers as `919010000022.0`.
    pub fn mobile(&self, typed: &str) -> Option<String> {
        let cleaned = typed_text::number(typed).to_ascii_lowercase();
        if is_decimal(&cleaned) {
            return None;
        }
        let compact: String = cleaned.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '/')).collect();
        let compact =
            compact.strip_prefix("tel:").unwrap_or(&compact).replace("(0)", "").replace(['(', ')'], "");
        let marked = compact.strip_prefix('+').or_else(|| compact.strip_prefix("00"));
        let digits = marked.unwrap_or(&compact);
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = match self.national(digits) {
            Some(national) if marked.is_none() => format!("{}{national}", self.country_code),
            _ => self.international(digits),
        };
        // No country code begins with 0. Such a number has a trunk prefix of an unknown country.
        (MOBILE_DIGITS.contains(&number.len()) && !number.starts_with('0')).then_some(number)
    }

    /// A number without `+` or `00`, as a national one without trunk prefix. `None` if it is not
    /// national.
    fn national<'a>(&self, digits: &'a str) -> Option<&'a str> {
        let national = self.without_trunk_prefix(digits);
        let whole = self.national_lengths.iter().eq([digits.len()]);
        (self.is_national(national) && (whole || !self.has_country_code(digits))).then_some(national)
    }

    /// Whether a number begins with the org's country code, and what follows is one of its national
    /// numbers.
    fn has_country_code(&self, digits: &str) -> bool {
        digits
            .strip_prefix(&self.country_code)
            .is_some_and(|national| self.is_national(self.without_trunk_prefix(national)))
    }

    /// A number with country code, without the trunk prefix that may follow it. Zeros there that
    /// make a national number of the org too long are removed in an org without a trunk prefix,
    /// too, and so are those behind another country code. Networks may ignore them, and one phone
    /// must not have two normal forms.
    fn international(&self, digits: &str) -> String {
        let Some(national) = digits.strip_prefix(&self.country_code) else {
            return without_foreign_zeros(digits);
        };
        let national = self.without_trunk_prefix(national);
        let without_zeros = national.trim_start_matches('0');
        let is_too_long = !self.is_national(national) && self.is_national(without_zeros);
        format!("{}{}", self.country_code, if is_too_long { without_zeros } else { national })
    }

    /// Removes the trunk prefix. A national number may itself begin with these digits: they are
    /// kept if the number has a national length with them and not without them.
    fn without_trunk_prefix<'a>(&self, national: &'a str) -> &'a str {
        let mut number = national;
        while !self.trunk_prefix.is_empty()
            && let Some(rest) = number.strip_prefix(&self.trunk_prefix)
            && (self.is_national(rest) || !self.is_national(number))
        {
            number = rest;
        }
        number
    }

    fn is_national(&self, number: &str) -> bool {
        self.national_lengths.contains(number.len())
    }
}

/// Country codes behind which numbers may begin with a zero: Italy and the Vatican, Côte d'Ivoire,
/// Burkina Faso, Benin, Gabon, Congo, San Marino. From the numbering plans that ITU-T publishes.
/// <https://www.itu.int/oth/T0202.aspx?parent=T0202>
const ZERO_MAY_FOLLOW: [&str; 8] = ["39", "225", "226", "229", "241", "242", "378", "379"];

/// A number with another country code than the org's, without the zeros behind that code, unless
/// numbers there may begin with a zero, or too few digits would be left.
fn without_foreign_zeros(digits: &str) -> String {
    let (code, national) = digits.split_at_checked(country_code_length(digits)).unwrap_or((digits, ""));
    let shorter = format!("{code}{}", national.trim_start_matches('0'));
    let is_number = MOBILE_DIGITS.contains(&shorter.len()) && !ZERO_MAY_FOLLOW.contains(&code);
    if is_number { shorter } else { digits.to_owned() }
}

/// How many digits the country code has, at the beginning of an international number.
/// <https://www.itu.int/pub/T-SP-E.164D>
const fn country_code_length(digits: &str) -> usize {
    match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    }
}

/// Whether a text is one run of digits with a point and zeros behind it. With the zeros as digits,
/// it could be the number of another person.
fn is_decimal(text: &str) -> bool {
    let Some((whole, zeros)) = text.rsplit_once('.') else {
        return false;
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    matches!(zeros, "0" | "00") && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(country_code: &str, trunk_prefix: &str, lengths: &[usize]) -> PhoneNumberPlan {
        PhoneNumberPlan {
            country_code: country_code.into(),
            trunk_prefix: trunk_prefix.into(),
            national_lengths: lengths.iter().copied().collect(),
        }
    }

    fn india() -> PhoneNumberPlan {
        plan("91", "", &[10])
    }

    fn indonesia() -> PhoneNumberPlan {
        plan("62", "0", &[9, 10, 11, 12])
    }

    #[test]
    fn spellings_of_one_mobile_have_one_normal_form() {
        for typed in [
            "8799361139", "918799361139", "+91 87993 61139", "+91-(87993)-61139", "(+91) 87993/61139",
            "00918799361139", " 87993.61139 ", "tel:+91-87993-61139", "TEL: 8799361139",
            "+91 (0) 87993 61139", "+91 0 87993 61139", "+91 00 87993 61139",
            "\u{202a}+91\u{a0}87993\u{2011}61139\u{202c}", "٨٧٩٩٣٦١١٣٩", "＋９１　８７９９３６１１３９",
            "८७९९३६११३९",
        ] {
            assert_eq!(india().mobile(typed).as_deref(), Some("918799361139"), "{typed}");
        }
    }

    #[test]
    fn a_plus_says_that_the_country_code_is_there_already() {
        assert_eq!(india().mobile("+6591234567").as_deref(), Some("6591234567"));
        assert_eq!(india().mobile("6591234567").as_deref(), Some("916591234567"));
        assert_eq!(
            india().mobile("9112345678").as_deref(),
            Some("919112345678"),
            "one length, and it has it"
        );
    }

    #[test]
    fn zeros_behind_another_country_code_are_no_other_phone() {
        for (typed, normal) in [
            ("+44 7400 123499", "447400123499"),
            ("+44 07400 123499", "447400123499"),
            ("+44 (0) 7400 123499", "447400123499"),
            ("+44 00 7400 123499", "447400123499"),
            ("0044 0007400 123499", "447400123499"),
            ("+1 0202 555 0100", "12025550100"),
            ("+353 085 123 4567", "353851234567"),
            ("+225 07 01 23 45 67", "2250701234567"),
            ("+39 06 1234 5678", "390612345678"),
            ("+1 000001", "1000001"),
        ] {
            assert_eq!(india().mobile(typed).as_deref(), Some(normal), "{typed}");
        }
    }

    #[test]
    fn malformed_mobiles_are_refused() {
        for typed in [
            "", "+", "12345", "87993x1139", "1234567890123456", "08799361139", "+ +91", "(0)", "tel:",
            "8799361139,", "8.799361139E9", "8799361139E0",
        ] {
            assert_eq!(india().mobile(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_decimal_number_is_no_mobile() {
        let germany = plan("49", "0", &[10, 11]);
        for typed in
            ["919010000022.0", "+919010000022.0", "919010000022.00", " 9190100000.0 ", "９１９０１００.０"]
        {
            assert_eq!(india().mobile(typed), None, "{typed}");
            assert_eq!(germany.mobile(typed), None, "{typed}");
        }
        assert_eq!(germany.mobile("0160.70.00.019").as_deref(), Some("491607000019"));
        assert_eq!(germany.mobile("0160.700.00.00").as_deref(), Some("491607000000"));
        assert_eq!(india().mobile("879936113.9").as_deref(), Some("918799361139"));
    }

    #[test]
    fn a_trunk_prefix_is_dropped_from_national_numbers_and_behind_the_country_code() {
        for typed in
            ["+62 (0)812-3456-7890", "0812 3456 7890", "62 812 34567890", "+62 0812 3456 7890", "81234567890"]
        {
            assert_eq!(indonesia().mobile(typed).as_deref(), Some("6281234567890"), "{typed}");
        }
        let india = PhoneNumberPlan { trunk_prefix: "0".into(), ..india() };
        assert_eq!(india.mobile("08799361139").as_deref(), Some("918799361139"));
        let thailand = plan("66", "0", &[9]);
        assert_eq!(thailand.mobile("081 234 5678"), thailand.mobile("+66 81 234 5678"));
        let britain = plan("44", "0", &[10]);
        assert_eq!(britain.mobile("07400 123456"), britain.mobile("+44 (0)7400 123456"));
    }

    #[test]
    fn of_several_lengths_a_number_with_the_orgs_code_is_international() {
        assert_eq!(
            indonesia().mobile("62812345678").as_deref(),
            Some("62812345678"),
            "11 digits, or 9 after the code"
        );
        assert_eq!(
            indonesia().mobile("6281234567").as_deref(),
            Some("626281234567"),
            "8 digits after it are too few"
        );
    }

    #[test]
    fn the_digits_of_a_trunk_prefix_may_begin_a_number() {
        let russia = plan("7", "8", &[10]);
        for typed in ["8 912 345-67-89", "+7 912 345 67 89", "9123456789", "79123456789"] {
            assert_eq!(russia.mobile(typed).as_deref(), Some("79123456789"), "{typed}");
        }
        for typed in ["8 800 123-45-67", "+7 800 123 45 67", "8001234567"] {
            assert_eq!(russia.mobile(typed).as_deref(), Some("78001234567"), "{typed}");
        }
    }

    #[test]
    fn one_length_is_written_as_a_number_and_several_as_a_list() {
        for (json, written) in [("10", "10"), ("[10]", "10"), ("[11,9,10,9]", "[9,10,11]"), ("[]", "[]")] {
            let lengths: NationalLengths = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&lengths).unwrap(), written);
        }
        for wrong in ["-1", "\"10\"", "10.5", "[10,\"11\"]", "null", "{}"] {
            assert!(serde_json::from_str::<NationalLengths>(wrong).is_err(), "{wrong}");
        }
    }

    fn any_plan() -> impl Strategy<Value = PhoneNumberPlan> {
        let lengths = prop::collection::btree_set(4_usize..=14, 1..4);
        ("[1-9][0-9]{0,2}", "|0|8|01", lengths).prop_map(|(country_code, trunk_prefix, lengths)| {
            PhoneNumberPlan { country_code, trunk_prefix, national_lengths: NationalLengths(lengths) }
        })
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(
            plan in any_plan(), typed in "\\PC{0,40}|[+0]{0,2}[0-9 ().-]{5,16}|[+]?(62)?\\(?0?\\)?[0-9]{4,14}"
        ) {
            if let Some(once) = plan.mobile(&typed) {
                prop_assert_eq!(plan.mobile(&format!("+{once}")), Some(once));
            }
        }

        #[test]
        fn decoration_changes_nothing(
            plan in any_plan(),
            typed in "(\\+|00)?[0-9]{5,15}",
            marks in prop::collection::vec((0_usize..20, prop::sample::select(DECORATIONS)), 0..6),
        ) {
            let mut decorated: Vec<char> = typed.chars().collect();
            for (at, mark) in marks {
                decorated.insert(at.min(decorated.len()), mark);
            }
            let decorated: String = decorated.into_iter().collect();
            prop_assume!(!is_decimal(&typed_text::number(&decorated)));
            prop_assert_eq!(plan.mobile(&decorated), plan.mobile(&typed), "{:?}", decorated);
        }

        #[test]
        fn every_spelling_of_a_national_number_is_one(
            plan in any_plan(), national in "[1-79][0-9]{13}", length in any::<prop::sample::Index>()
        ) {
            let lengths: Vec<usize> = plan.national_lengths.iter().collect();
            let national = &national[..*length.get(&lengths)];
            let (code, trunk) = (&plan.country_code, &plan.trunk_prefix);
            // Leaves out numbers that are ambiguous without `+` or `00`.
            prop_assume!(!plan.has_country_code(national) && !plan.has_country_code(&format!("{trunk}{national}")));
            prop_assume!(plan.national_lengths.iter().all(|other| other != code.len() + national.len()));
            let expected = plan.mobile(&format!("+{code}{national}"));
            for typed in [
                national.to_owned(),
                format!("{trunk}{national}"),
                format!("00{code}{national}"),
                format!("+{code}(0){national}"),
                format!("+{code} {trunk} {national}"),
                format!("{code}{national}"),
            ] {
                prop_assert_eq!(plan.mobile(&typed), expected.clone(), "{}", typed);
            }
        }
    }

    const DECORATIONS: &[char] = &[
        ' ', '-', '.', '/', '\u{200b}', '\u{202a}', '\u{a0}', '\u{2011}', '\u{feff}', '\t', '\u{2212}',
        '\u{ad}',
    ];
}
