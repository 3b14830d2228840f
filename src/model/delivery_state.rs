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
    /// No provider took it, and it is not tried again.
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
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sent { .. } => "sent",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::OverBudget => "over_budget",
        }
    }
}

/// Declares the reasons with their names.
macro_rules! failure_reasons {
    ($( $(#[$meta:meta])* $variant:ident = $name:literal ),+ $(,)?) => {
        /// Why a message was not sent on a channel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureReason {
            $( $(#[$meta])* $variant, )+
            /// The webhook's gateway answered with this HTTP status, which is not of the 2xx.
            Gateway(u16),
        }

        impl FailureReason {
            /// Every reason except those of gateways, which are `gateway_` and an HTTP status.
            pub const NAMED: &'static [Self] = &[$( Self::$variant ),+];

            /// The reason with that name. `None` if there is none.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $( $name => Some(Self::$variant), )+
                    _ => name.strip_prefix("gateway_")?.parse().ok().map(Self::Gateway),
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
    /// The provider does not take the address for a phone number.
    InvalidNumber = "invalid_number",
    /// The customer has asked the provider for no more messages.
    OptedOut = "opted_out",
    /// The provider, or the org's settings there, do not allow messages to the country.
    BlockedCountry = "blocked_country",
    /// The org's settings at the provider do not allow messages to this number.
    BlockedNumber = "blocked_number",
    /// The account is in the provider's sandbox and the recipient is not verified, or the sender is
    /// not verified.
    NotVerified = "not_verified",
    /// The message costs more than `sms_max_price`.
    TooExpensive = "too_expensive",
    /// The text is longer than the provider allows.
    TooLong = "too_long",
    /// The org's file names no provider for the channel, the webhook has no secret, or the provider
    /// does not know the sender.
    NotConfigured = "not_configured",
    /// The provider does not allow the account or the function's role to send.
    NotPermitted = "not_permitted",
    /// A quota or a spending limit of the account is used up.
    QuotaExceeded = "quota_exceeded",
    /// The provider refuses the message for another reason.
    Rejected = "rejected",
    /// The host of the webhook has no public address.
    PrivateAddress = "private_address",
    /// Too many messages at once, at every attempt.
    Throttled = "throttled",
    /// The provider failed, at every attempt.
    Unavailable = "unavailable",
    /// The provider did not answer in time. It may have taken the message.
    TimedOut = "timed_out",
    /// The provider could not be connected to, or the connection broke.
    Unreachable = "unreachable",
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
