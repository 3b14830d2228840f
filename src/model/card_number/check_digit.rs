//! Check digits: one digit at the end of a number that reveals typing errors.

/// The digit that makes `digits` followed by it pass the Luhn test (ISO/IEC 7812-1, annex B).
/// Characters that are no digits are skipped.
pub fn luhn(digits: &str) -> u8 {
    let sum: u32 = decimal(digits)
        .rev()
        .enumerate()
        .map(|(position, digit)| match (position % 2, digit * 2) {
            (0, doubled) => doubled / 10 + doubled % 10,
            _ => digit,
        })
        .sum();
    u8::try_from((10 - sum % 10) % 10).unwrap_or_default()
}

/// The remainder of the number that `digits` spell, divided by seven. Characters that are no digits
/// are skipped.
pub fn mod7(digits: &str) -> u8 {
    let remainder = decimal(digits).fold(0, |remainder, digit| (remainder * 10 + digit) % 7);
    u8::try_from(remainder).unwrap_or_default()
}

fn decimal(digits: &str) -> impl DoubleEndedIterator<Item = u32> {
    digits.chars().filter_map(|c| c.to_digit(10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The Luhn test in the words of the standard: from the right, every second digit is doubled.
    fn passes_luhn(number: &str) -> bool {
        let digits: Vec<u32> = number.chars().rev().map(|c| c.to_digit(10).unwrap()).collect();
        let sum: u32 = digits
            .iter()
            .enumerate()
            .map(|(i, d)| if i % 2 == 1 { (d * 2) / 10 + (d * 2) % 10 } else { *d })
            .sum();
        sum.is_multiple_of(10)
    }

    #[test]
    fn known_numbers() {
        assert_eq!(luhn("7992739871"), 3);
        assert_eq!(luhn("411111111111111"), 1);
        assert_eq!(luhn("0"), 0);
        assert_eq!(mod7("0000003000"), 4);
        assert_eq!(mod7("7"), 0);
        assert_eq!(luhn("AB79-92739871"), 3, "letters are skipped");
        assert_eq!(mod7("X8"), 1);
    }

    proptest! {
        #[test]
        fn a_number_with_its_luhn_digit_passes(digits in "[0-9]{1,49}") {
            let number = format!("{digits}{}", luhn(&digits));
            prop_assert!(passes_luhn(&number));
        }

        #[test]
        fn mod7_is_the_remainder(number in any::<u64>()) {
            prop_assert_eq!(u64::from(mod7(&number.to_string())), number % 7);
        }
    }
}
