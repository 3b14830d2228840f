//! What the states of messages mean, for operators. `docs/messages.md` has all of them.

use chrono::{DateTime, Utc};
use loyalty_codes::{model::delivery_state::Explanation, store::OwnerHistory};

use crate::support::{self, MessageStatus};

/// What became of a message, in words. `None` for one that was sent.
pub const fn explanation(status: &MessageStatus) -> Option<Explanation> {
    Some(match status {
        MessageStatus::Queued => Explanation {
            meaning: "It waits to be sent.",
            remedy: "Look again in some seconds. If it still waits, run `loyaltyctl doctor`.",
        },
        MessageStatus::NotSent => Explanation {
            meaning: "It was not sent, because its OTP was used, revoked or expired before.",
            remedy: "Let the customer ask again if the code is still needed.",
        },
        MessageStatus::Sending => Explanation {
            meaning: "Its delivery has begun. If it stays so, the delivery was interrupted, and a provider may or may \
                      not have taken it.",
            remedy: "Let the customer ask again if nothing arrives.",
        },
        MessageStatus::Ended(outcome) => return outcome.explanation(),
    })
}

/// A line for each state and reason that messages of these OTPs have, except `sent`.
pub fn legend(histories: &[OwnerHistory], now: DateTime<Utc>) -> Vec<String> {
    let mut lines = Vec::new();
    for otp in histories.iter().flat_map(|history| &history.otps) {
        for (_, _, status) in support::otp_channels(otp, now) {
            let Some(Explanation { meaning, remedy }) = explanation(&status) else { continue };
            let line = format!("{status}: {meaning} {remedy}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use loyalty_codes::model::delivery_state::{FailureReason, Outcome};

    use super::*;

    #[test]
    fn the_document_explains_every_state_and_reason_and_no_other() {
        let row =
            |name: &str, Explanation { meaning, remedy }| format!("| `{name}` | {meaning} | {remedy} |");
        let states = [
            MessageStatus::Queued,
            MessageStatus::NotSent,
            MessageStatus::Sending,
            MessageStatus::Ended(Outcome::Expired),
            MessageStatus::Ended(Outcome::Used),
            MessageStatus::Ended(Outcome::OverBudget),
        ];
        let mut expected: Vec<_> =
            states.iter().map(|state| row(state.name(), explanation(state).unwrap())).collect();
        let named = FailureReason::NAMED.iter();
        expected.extend(named.map(|reason| row(&reason.to_string(), reason.explanation())));
        expected.push(row("gateway_NNN", FailureReason::Gateway(400).explanation()));
        let document = include_str!("../../../docs/messages.md");
        let mut rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
        rows.retain(|row| !row.starts_with("| `sent` |") && !row.starts_with("| `failed` |"));
        expected.sort();
        rows.sort_unstable();
        assert_eq!(rows, expected);
    }
}
