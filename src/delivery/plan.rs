//! What is done with a message on each of its channels, and what the org's hourly budget leaves.

use chrono::{DateTime, Utc};

use super::{Deliverer, Mode};
use crate::{
    model::{
        delivery::{AwsSettings, Provider},
        delivery_state::{ChannelState, Claim, FailureReason, Outcome},
        message::{Channel, ChannelType, Message},
        org::OrgId,
        otp::Code,
        webhook::WebhookSecrets,
    },
    store::{MessageOtp, StoreError, StoredMessage, StoredOrg},
};

/// What is done on a channel that has not ended.
pub(super) struct Planned<'a> {
    /// The position of the channel.
    pub position: usize,
    /// The claim of a delivery that began on the channel and did not end.
    pub interrupted: Option<Claim>,
    pub action: Action<'a>,
}

pub(super) enum Action<'a> {
    Send(Route<'a>, &'a Code),
    /// Nothing is sent.
    End(Outcome),
}

/// Who sends a channel's messages, with the settings for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route<'a> {
    Aws(&'a AwsSettings),
    Webhook { url: &'a str, secrets: &'a WebhookSecrets },
    Show(fn(&Channel, &Message)),
}

impl Planned<'_> {
    /// Whether the channel takes from the budget. One that was interrupted was counted then.
    const fn is_counted(&self) -> bool {
        self.interrupted.is_none() && matches!(self.action, Action::Send(..))
    }
}

impl Deliverer {
    /// Decides about each channel that has not ended, and counts those to be sent for the first
    /// time in the org's budget. `claim` is that of the delivery.
    pub(super) async fn plan<'a>(
        &self,
        org: &'a StoredOrg,
        stored: &'a StoredMessage,
        claim: &Claim,
    ) -> Result<Vec<Planned<'a>>, StoreError> {
        let now = self.clock.now();
        let code = match &stored.otp {
            _ if now >= stored.valid_until => Err(Outcome::Expired),
            MessageOtp::Gone => Err(Outcome::Expired),
            MessageOtp::Consumed => Err(Outcome::Used),
            MessageOtp::Unused(code) => Ok(code),
        };
        let channels = stored.message.channels.iter().zip(&stored.states).enumerate();
        let mut plan: Vec<Planned<'a>> = channels
            .filter_map(|(position, (channel, state))| {
                let interrupted = match state {
                    None => None,
                    Some(ChannelState::Sending(claim)) => Some(claim.clone()),
                    Some(ChannelState::Done(_)) => return None,
                };
                let route = self.route(org, channel.channel_type);
                let action = match (&code, route) {
                    (Err(outcome), _) => Action::End(outcome.clone()),
                    (_, Err(reason)) => Action::End(Outcome::Failed(reason)),
                    (Ok(code), Ok(route)) => Action::Send(route, code),
                };
                Some(Planned { position, interrupted, action })
            })
            .collect();
        let Some(limit) = org.org.config().otp_hourly_messages else {
            return Ok(plan);
        };
        let wanted = plan.iter().filter(|planned| planned.is_counted()).count();
        let room = self.count(org.org.id(), claim, wanted, limit, now).await?;
        for planned in plan.iter_mut().filter(|planned| planned.is_counted()).skip(room) {
            planned.action = Action::End(Outcome::OverBudget);
        }
        Ok(plan)
    }

    /// Counts up to `wanted` messages of the org's hour. Returns how many there is room for.
    async fn count(
        &self,
        org: OrgId,
        claim: &Claim,
        mut wanted: usize,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        while wanted > 0 {
            let room = self.store.count_messages(org, claim, wanted, limit, now).await?;
            if room >= wanted {
                break;
            }
            wanted = room;
        }
        Ok(wanted)
    }

    /// Who sends the messages of a channel.
    pub(super) fn route<'a>(
        &self,
        org: &'a StoredOrg,
        channel: ChannelType,
    ) -> Result<Route<'a>, FailureReason> {
        if let Mode::Show(show) = self.mode {
            return Ok(Route::Show(show));
        }
        let delivery = org.org.definition.delivery.as_ref();
        let provider = delivery.and_then(|delivery| delivery.provider(channel));
        let (Some(delivery), Some(provider)) = (delivery, provider) else {
            return Err(FailureReason::NotConfigured);
        };
        match provider {
            Provider::Aws if !matches!(self.mode, Mode::Webhook) => Ok(Route::Aws(&delivery.aws)),
            Provider::Aws | Provider::Webhook => match (&delivery.webhook, &org.secrets) {
                (Some(webhook), Some(secrets)) => Ok(Route::Webhook { url: &webhook.url, secrets }),
                _ => Err(FailureReason::NotConfigured),
            },
        }
    }
}
