//! The log lines of deliveries, with their metrics. They contain neither a code nor an address.

use super::ChannelOutcome;
use crate::{
    logging::DELIVERY,
    model::{delivery_state::Outcome, org::OrgId},
    store::{StoreError, error_chain, keys},
};

/// Logs how the delivery of a message on a channel ended.
pub(super) fn log(org: OrgId, ended: &ChannelOutcome) {
    let ChannelOutcome { channel, outcome, provider_code, latency } = ended;
    let reason = match outcome {
        Outcome::Failed(reason) => Some(reason.to_string()),
        _ => None,
    };
    let is = |name: &str| (outcome.name() == name).then_some(1);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: DELIVERY,
                org = org.to_string(),
                channel = channel.as_str(),
                outcome = outcome.name(),
                reason,
                provider_code = (!provider_code.is_empty()).then_some(provider_code.as_str()),
                ms = (latency.to_std().unwrap_or_default().as_secs_f64() * 1e6).round() / 1e3,
                MessagesSent = is("sent"),
                MessagesFailed = is("failed"),
                MessagesExpired = is("expired"),
                MessagesOverBudget = is("over_budget"),
                "delivery"
            )
        };
    }
    // The alarm for failures is on the metrics: one failed message is no error of the service.
    if matches!(outcome, Outcome::Failed(_) | Outcome::OverBudget) { line!(warn) } else { line!(info) }
}

/// Logs that the message with that key cannot be read, so that it is given up. Its channels are not
/// known.
pub fn log_unreadable(key: &keys::Key, error: &StoreError) {
    tracing::error!(
        target: DELIVERY,
        org = keys::org_of(&key.pk).map(|org| org.to_string()),
        channel = "UNKNOWN",
        outcome = "failed",
        reason = "unreadable",
        cause = error_chain(error),
        MessagesFailed = 1,
        "delivery"
    );
}
