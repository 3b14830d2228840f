//! Checks that a change of the numbering plan repeats no number. The org's item lists every plan
//! under which numbers were issued, with the used part of its sequence. A new plan is compared with
//! all of them.

use serde::{Deserialize, Serialize};

use super::NumberingPlan;

/// The numbers issued under one plan: the sequence values from `first` up to, but not including,
/// `next`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedRange {
    pub plan: NumberingPlan,
    pub first: u64,
    pub next: u64,
}

/// Why a plan could repeat an issued number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PossibleDuplicate {
    /// The plan has the same format and begins before `next`, the first value that was not issued.
    #[error(
        "CONF_CARD_NUMBER_OFFSET {offset} would hand out numbers again: this plan has used its sequence \
         up to {}, so the offset must be {next} or higher",
        next - 1
    )]
    OffsetTooLow { offset: u64, next: u64 },
    /// The plan has another format, but some of its numbers could equal issued ones.
    #[error(
        "numbers of the new plan could equal some of the {issued} handed out under an earlier one \
         ({earlier}): change CONF_CARD_NUMBER_LENGTH, or choose a prefix that they do not begin with"
    )]
    Overlap { earlier: String, issued: u64 },
    /// The counter of the org's plan is lost.
    #[error(
        "the counter of the org's card numbers is missing or has another plan, so it is not known which \
         numbers were given: set CONF_CARD_NUMBER_OFFSET higher than all of them, or change \
         CONF_CARD_NUMBER_LENGTH"
    )]
    CounterLost,
}

/// Checks that every number of `plan`, from its offset on, differs from every number in `issued`.
///
/// # Errors
/// [`PossibleDuplicate`] when two numbers could be equal. Plans of different formats are compared
/// position by position. That refuses some safe plans, but never accepts an unsafe one.
pub fn check_disjoint(plan: &NumberingPlan, issued: &[IssuedRange]) -> Result<(), PossibleDuplicate> {
    for earlier in issued.iter().filter(|earlier| earlier.first < earlier.next) {
        if earlier.plan.format() == plan.format() {
            if plan.offset() < earlier.next {
                return Err(PossibleDuplicate::OffsetTooLow { offset: plan.offset(), next: earlier.next });
            }
        } else {
            let used = pattern(&earlier.plan, earlier.first, earlier.next - 1);
            let planned = pattern(plan, plan.offset(), plan.end() - 1);
            if overlap(&used, &planned) {
                return Err(PossibleDuplicate::Overlap {
                    earlier: earlier.plan.format(),
                    issued: earlier.next - earlier.first,
                });
            }
        }
    }
    Ok(())
}

/// What an org's counter does when its plan changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The counter continues.
    Keep,
    /// The counter is replaced by one for this range.
    Start(IssuedRange),
}

/// How the counter `current` of an org with the plan `before` changes to `plan`. `retired` are the
/// earlier plans.
///
/// If the plan is unchanged, the counter continues. Otherwise it starts at the offset of `plan`.
///
/// # Errors
/// [`PossibleDuplicate`] when a number could appear twice.
pub fn transition(
    before: Option<&NumberingPlan>,
    current: Option<&IssuedRange>,
    retired: &[IssuedRange],
    plan: &NumberingPlan,
) -> Result<Transition, PossibleDuplicate> {
    if current.is_some_and(|current| current.plan == *plan) {
        return Ok(Transition::Keep);
    }
    if before == Some(plan) && current.is_none_or(|current| current.plan.format() != plan.format()) {
        return Err(PossibleDuplicate::CounterLost);
    }
    let all: Vec<IssuedRange> = retired.iter().chain(current).cloned().collect();
    check_disjoint(plan, &all)?;
    // With a higher offset in the same format, the issued range keeps its beginning.
    let first = match current {
        Some(current) if current.plan.format() == plan.format() && current.first < current.next => {
            current.first
        }
        _ => plan.offset(),
    };
    Ok(Transition::Start(IssuedRange { plan: plan.clone(), first, next: plan.offset() }))
}

/// What is known about one character of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Fixed(char),
    AnyDigit,
}

/// What all numbers for the sequence values `first..=last` have in common.
fn pattern(plan: &NumberingPlan, first: u64, last: u64) -> Vec<Position> {
    let width = plan.width as usize;
    let (first, last) = (format!("{first:0>width$}"), format!("{last:0>width$}"));
    let common = if plan.algorithm.is_random() {
        0
    } else {
        first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count()
    };
    let fixed = |text: &str| text.chars().map(Position::Fixed).collect::<Vec<_>>();
    let free = |count| std::iter::repeat_n(Position::AnyDigit, count);
    let mut pattern = fixed(&plan.prefix);
    pattern.extend(fixed(&first[..common]));
    pattern.extend(free(width - common));
    pattern.extend(fixed(&plan.suffix));
    pattern.extend(free(plan.algorithm.check_digits()));
    pattern
}

fn overlap(a: &[Position], b: &[Position]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Position::Fixed(a), Position::Fixed(b)) => a == b,
            (Position::Fixed(c), Position::AnyDigit) | (Position::AnyDigit, Position::Fixed(c)) => {
                c.is_ascii_digit()
            }
            (Position::AnyDigit, Position::AnyDigit) => true,
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::{Algorithm, CardNumberSettings, permutation::PermutationKey};
    use super::*;
    use crate::secret::Secret;

    const KEY: PermutationKey = Secret::new([5; 32]);

    fn plan(algorithm: Algorithm, length: i64, prefix: &str, suffix: &str, offset: i64) -> NumberingPlan {
        NumberingPlan::try_from(&CardNumberSettings {
            length: Some(length),
            offset: Some(offset),
            prefix: prefix.into(),
            suffix: suffix.into(),
            algorithm: Some(algorithm),
            checksum_includes: None,
        })
        .unwrap()
    }

    fn auto(length: i64, prefix: &str, offset: i64) -> NumberingPlan {
        plan(Algorithm::AutoInc, length, prefix, "", offset)
    }

    fn used(plan: NumberingPlan, count: u64) -> [IssuedRange; 1] {
        let first = plan.offset();
        [IssuedRange { plan, first, next: first + count }]
    }

    #[test]
    fn a_higher_offset_may_follow_and_a_lower_one_may_not() {
        let issued = used(auto(10, "", 1_000_000_010), 5);
        assert_eq!(check_disjoint(&auto(10, "", 1_000_000_015), &issued), Ok(()));
        let error = check_disjoint(&auto(10, "", 1_000_000_014), &issued).unwrap_err();
        assert!(error.to_string().contains("must be 1000000015 or higher"), "{error}");
    }

    #[test]
    fn another_length_is_always_safe() {
        assert_eq!(check_disjoint(&auto(11, "", 0), &used(auto(10, "", 0), 1000)), Ok(()));
    }

    #[test]
    fn another_prefix_is_safe_where_the_used_numbers_do_not_begin_with_it() {
        let issued = used(auto(10, "", 1_000_000_010), 500);
        assert_eq!(check_disjoint(&auto(10, "2", 0), &issued), Ok(()));
        assert_eq!(check_disjoint(&auto(10, "A", 0), &issued), Ok(()));
        assert!(check_disjoint(&auto(10, "1", 0), &issued).is_err());
        assert!(check_disjoint(&plan(Algorithm::Random, 10, "", "", 0), &issued).is_err());
    }

    #[test]
    fn a_plan_that_never_gave_a_number_forbids_nothing() {
        assert_eq!(check_disjoint(&auto(10, "1", 0), &used(auto(10, "", 0), 0)), Ok(()));
    }

    #[test]
    fn a_plan_that_stays_goes_on_counting() {
        let plan = auto(10, "", 1_000_000_010);
        let [issued] = used(plan.clone(), 5);
        assert_eq!(transition(None, Some(&issued), &[], &plan), Ok(Transition::Keep));
    }

    #[test]
    fn a_jump_remembers_what_was_issued_before_it() {
        let [issued] = used(auto(10, "", 10), 5);
        let Ok(Transition::Start(started)) = transition(None, Some(&issued), &[], &auto(10, "", 50)) else {
            panic!("a higher offset is admitted");
        };
        assert_eq!((started.first, started.next), (10, 50));
        let used_up = IssuedRange { next: 52, ..started };
        assert!(check_disjoint(&auto(10, "", 12), &[used_up]).is_err());
    }

    #[test]
    fn a_plan_without_its_counter_does_not_begin_again() {
        let plan = auto(10, "", 10);
        let [other] = used(auto(12, "", 0), 3);
        for counter in [None, Some(&other)] {
            let lost = transition(Some(&plan), counter, &[], &plan);
            assert_eq!(lost, Err(PossibleDuplicate::CounterLost), "{counter:?}");
            assert!(transition(Some(&plan), counter, &[], &auto(10, "", 50)).is_ok(), "{counter:?}");
        }
        let [behind] = used(auto(10, "", 2), 3);
        assert!(matches!(transition(Some(&plan), Some(&behind), &[], &plan), Ok(Transition::Start(_))));
    }

    #[test]
    fn a_plan_that_comes_back_must_go_on_after_its_own_numbers() {
        let retired = used(auto(10, "", 10), 5);
        let [current] = used(auto(12, "", 0), 3);
        assert!(transition(None, Some(&current), &retired, &auto(10, "", 14)).is_err());
        assert!(transition(None, Some(&current), &retired, &auto(10, "", 15)).is_ok());
    }

    proptest! {
        /// Uses short numbers, so that every admitted change can be checked by enumerating them.
        #[test]
        fn an_admitted_plan_repeats_nothing(
            a in prop::sample::select(Algorithm::ALL), b in prop::sample::select(Algorithm::ALL),
            prefix_a in "[0-2A]?", prefix_b in "[0-2A]?", suffix in "[01]?",
            offset_a in 0_i64..8, offset_b in 0_i64..9, used_up in 0_u64..9,
        ) {
            let suffix_for = |algorithm| if algorithm == Algorithm::AutoInc { suffix.as_str() } else { "" };
            let old = plan(a, 4, &prefix_a, suffix_for(a), offset_a);
            let new = plan(b, 4, &prefix_b, suffix_for(b), offset_b);
            let issued = used(old, used_up.min(10 - offset_a.unsigned_abs()));
            if check_disjoint(&new, &issued).is_ok() {
                let before: HashSet<String> =
                    (issued[0].first..issued[0].next).map(|v| issued[0].plan.number(v, &KEY)).collect();
                for value in new.offset()..new.end() {
                    let number = new.number(value, &KEY);
                    prop_assert!(!before.contains(&number), "{number} twice");
                }
            }
        }
    }
}
