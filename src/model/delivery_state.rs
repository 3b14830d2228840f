//! What became of a message on each of its channels.

use std::fmt;

use rand::{Rng, RngExt};

use crate::wire::hex;

/// How the delivery of a message on one channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A provider took the message. The id is the provider's own, or that of the webhook's request.
    Sent {
        /// What the provider calls the message.
        provider_id: String,
    },
    /// It was not sent, as far as is known, and is not tried again.
    Failed(FailureReason),
    /// Its OTP expired before it could be sent.
    Expired,
    /// Its OTP was consumed before it was sent.
    Used,
    /// The org had sent all the messages of the hour that its configuration allows.
    OverBudget,
}

impl Outcome {
    /// The name in the item and in the log, such as `sent`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sent { .. } => "sent",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::OverBudget => "over_budget",
        }
    }

    /// `None` for a message that was sent.
    pub const fn explanation(&self) -> Option<Explanation> {
        Some(match self {
            Self::Sent { .. } => return None,
            Self::Failed(reason) => reason.explanation(),
            Self::Expired => Explanation {
                meaning: "Its OTP expired before it could be sent.",
                remedy: "Let the customer ask again. If it happens often, `loyaltyctl doctor` says why sending is slow.",
            },
            Self::Used => Explanation {
                meaning: "Its OTP was consumed before it was sent.",
                remedy: "Nothing: the code had come by another channel or from the till.",
            },
            Self::OverBudget => Explanation {
                meaning: "The org had sent all the messages of the hour that its configuration allows.",
                remedy: "Look for traffic that is not your customers', or raise `CONF_OTP_MESSAGES_PER_HOUR`.",
            },
        })
    }
}

/// What an operator reads about a state or a reason: what it means, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub meaning: &'static str,
    pub remedy: &'static str,
}

/// Declares the reasons with their names and explanations.
macro_rules! failure_reasons {
    ($( $variant:ident = $name:literal, $meaning:literal, $remedy:literal; )+) => {
        /// Why a message was not sent on a channel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureReason {
            $( #[doc = $meaning] $variant, )+
            /// The webhook's gateway answered with this HTTP status, which is not of the 2xx.
            Gateway(u16),
        }

        impl FailureReason {
            /// Every reason except those of gateways, which are `gateway_` and an HTTP status.
            pub const NAMED: &'static [Self] = &[$( Self::$variant ),+];

            /// The reason with that name. `None` if there is none.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $( $name => Some(Self::$variant), )+
                    _ => name.strip_prefix("gateway_")?.parse().ok().map(Self::Gateway),
                }
            }

            pub const fn explanation(self) -> Explanation {
                match self {
                    $( Self::$variant => Explanation { meaning: $meaning, remedy: $remedy }, )+
                    Self::Gateway(_) => Explanation {
                        meaning: "The webhook's gateway answered with this HTTP status, which is not of the 2xx.",
                        remedy: "Look into the gateway's log, with the id of the request.",
                    },
                }
            }
        }

        impl fmt::Display for FailureReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$variant => f.pad($name), )+
                    Self::Gateway(status) => write!(f, "gateway_{status}"),
                }
            }
        }
    };
}

failure_reasons! {
    InvalidNumber = "invalid_number",
        "The provider does not take the address for a phone number.",
        "Ask the customer for the number again, and change the identifier.";
    OptedOut = "opted_out",
        "The customer has asked the provider for no more messages.",
        "If the customer wants them again, remove the number from the provider's opt-out list.";
    BlockedCountry = "blocked_country",
        "The provider, or the org's settings there, do not allow messages to the country.",
        "If the org has customers there, allow the country in the protect configuration.";
    BlockedNumber = "blocked_number",
        "The org's settings at the provider do not allow messages to this number.",
        "If it is a customer's, remove the number's rule from the protect configuration.";
    NotVerified = "not_verified",
        "The account is in the provider's sandbox and the recipient is not verified, or the sender is not verified.",
        "Leave the sandbox or verify the recipient, and verify the sender: `loyaltyctl doctor` says which.";
    TooExpensive = "too_expensive",
        "The message costs more than `sms_max_price`.",
        "Shorten the text, because each part costs, or raise `sms_max_price`.";
    TooLong = "too_long",
        "The text is longer than the provider allows.",
        "Shorten the org's template, or the text that the request sets.";
    NotConfigured = "not_configured",
        "The org's file names no provider for the channel, the webhook has no secret, or the provider does not know \
         the sender.",
        "`loyaltyctl doctor --org ID` says which.";
    NotPermitted = "not_permitted",
        "The provider does not allow the account or the function's role to send.",
        "`loyaltyctl doctor --org ID` says what is missing; the stack's roles are in template.yaml.";
    QuotaExceeded = "quota_exceeded",
        "A quota or a spending limit of the account is used up.",
        "Ask the provider for a higher one, and look for traffic that is not your customers'.";
    Rejected = "rejected",
        "The provider refuses the message for another reason.",
        "The log line of the delivery has the provider's error code.";
    PrivateAddress = "private_address",
        "The host of the webhook has no public address.",
        "Correct the host's DNS record, or the `url` in the org's file.";
    Throttled = "throttled",
        "Too many messages at once, at every attempt.",
        "Let the customer ask again, and the provider for a higher rate.";
    Unavailable = "unavailable",
        "The provider failed, at every attempt.",
        "Let the customer ask again, and look at the provider's status page.";
    TimedOut = "timed_out",
        "The provider did not answer in time. It may have taken the message.",
        "Let the customer ask again if nothing arrives.";
    Unreachable = "unreachable",
        "The provider could not be connected to, or the connection broke.",
        "Check that the webhook's `url` answers from the internet.";
}

/// Distinguishes the deliveries of a message that may run at the same time: a random number, drawn
/// for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(pub String);

impl Claim {
    /// Draws a number that no other delivery has.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self(hex(&rng.random::<[u8; 8]>()))
    }
}

/// The state of a message on one channel, as it is stored. A channel without one was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelState {
    /// A delivery has begun. If its process ended before it could store the outcome, a provider may
    /// or may not have taken the message.
    Sending(Claim),
    Done(Outcome),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_by_its_name() {
        let gateways = [FailureReason::Gateway(400), FailureReason::Gateway(302)];
        for reason in FailureReason::NAMED.iter().copied().chain(gateways) {
            assert_eq!(FailureReason::parse(&reason.to_string()), Some(reason));
        }
        for name in ["", "gateway_", "gateway_x", "Throttled"] {
            assert_eq!(FailureReason::parse(name), None, "{name}");
        }
    }
}
