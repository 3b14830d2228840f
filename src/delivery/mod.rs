//! Delivers stored messages: each channel of a message by the provider that the org's file names.
//!
//! A message is sent at least once if a provider takes it before its OTP expires. Before a provider
//! is called, the channel is marked as `sending`; afterwards, what became of it is stored. It is
//! sent twice only if the process dies, or the provider's answer is lost, between the two.
//!
//! A provider is tried again after transient failures, for [`Limits::total`] at most, and no
//! failure of a provider is an error here: the item is the record of it. Only a failing DynamoDB
//! is.

mod address;
mod attempts;
mod aws;
#[cfg(feature = "cli")]
mod diagnosis;
mod webhook;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

pub use attempts::Limits;
use attempts::{AttemptError, jittered, with_attempts};
pub use aws::AwsClients;
use aws::Sms;
#[cfg(feature = "cli")]
pub use diagnosis::{
    EmailAccount, EmailIdentity, Origination, SmsAccount, SpendLimit, SpendLimits, webhook_addresses,
};
use webhook::Headers;
pub use webhook::WebhookClient;

use crate::{
    cache::Cache,
    clock::Clock,
    logging,
    model::{
        content,
        delivery::{AwsSettings, Provider},
        delivery_state::{ChannelState, Claim, FailureReason, Outcome},
        message::{Channel, ChannelType, Message},
        org::{Org, OrgId},
        otp::{Code, CreatedId, Scope},
        webhook::{WebhookMessage, WebhookSecrets},
    },
    secret::os_rng,
    store::{MessageOtp, StateChange, Store, StoreError, StoredMessage, keys::Key},
    wire::hex,
};

/// What is done with messages instead of delivering them as the org's file says.
#[derive(Debug, Clone, Copy, Default)]
pub enum Mode {
    /// Nothing: they are delivered as configured.
    #[default]
    AsConfigured,
    /// The channels of AWS go to the org's webhook. Without a webhook, they fail as not configured.
    Webhook,
    /// They are passed to this function and count as sent. No provider is called.
    Show(fn(&Channel, &Message)),
}

/// Delivers messages. It is shared by all deliveries of a process.
#[derive(Debug)]
pub struct Deliverer {
    store: Store,
    clock: Clock,
    aws: AwsClients,
    webhooks: WebhookClient,
    mode: Mode,
    limits: Limits,
    orgs: Cache<OrgId, Arc<OrgDelivery>>,
}

/// An org as the deliverer knows it.
#[derive(Debug)]
struct OrgDelivery {
    org: Org,
    secrets: Option<WebhookSecrets>,
}

/// How the delivery of a message on one channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOutcome {
    pub channel: ChannelType,
    pub outcome: Outcome,
    /// The provider's own error code, without anything of the message. Empty if there is none.
    pub provider_code: String,
    /// From the request for the message to this outcome.
    pub latency: TimeDelta,
}

/// What is sent on one channel.
struct Dispatch<'a> {
    org: &'a OrgDelivery,
    channel: &'a Channel,
    message: &'a Message,
    code: &'a Code,
    created_id: CreatedId,
    scope: Scope,
    /// The same at every attempt, and at no other dispatch.
    id: String,
    requested_at: DateTime<Utc>,
    valid_until: DateTime<Utc>,
}

/// Who sends a channel's messages, with the settings for it.
#[derive(Debug, Clone, Copy)]
enum Route<'a> {
    Aws(&'a AwsSettings),
    Webhook { url: &'a str, secrets: &'a WebhookSecrets },
    Show(fn(&Channel, &Message)),
}

impl Deliverer {
    #[must_use]
    pub fn new(store: Store, clock: Clock, aws: AwsClients, webhooks: WebhookClient) -> Self {
        Self {
            store,
            clock,
            aws,
            webhooks,
            mode: Mode::default(),
            limits: Limits::default(),
            orgs: Cache::default(),
        }
    }

    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Delivers the message with that key, on every channel whose delivery has not ended, side by
    /// side. Returns how each of them ended: nothing if there is no such message, it is of version
    /// 0.1.0, its org delivers no messages, or another process delivers it.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt. The message can be delivered
    /// again; channels that have ended are not sent twice.
    pub async fn deliver(&self, key: &Key) -> Result<Vec<ChannelOutcome>, StoreError> {
        let Some(stored) = self.store.message(key).await? else {
            return Ok(Vec::new());
        };
        let begun = stored.states.iter().enumerate().filter_map(|(position, state)| match state {
            None => Some((position, None)),
            Some(ChannelState::Sending(claim)) => Some((position, Some(claim.clone()))),
            Some(ChannelState::Done(_)) => None,
        });
        let pending: BTreeMap<usize, Option<Claim>> = begun.collect();
        let Some(org) = self.org(stored.org).await? else {
            return Ok(Vec::new());
        };
        let delivers = org.org.definition.delivery.is_some() || matches!(self.mode, Mode::Show(_));
        if pending.is_empty() || !delivers {
            return Ok(Vec::new());
        }
        let plan = self.plan(&org, &stored, &pending).await?;
        let claim = Claim::draw(&mut os_rng());
        let changes: Vec<StateChange> = plan
            .iter()
            .map(|(position, planned)| StateChange {
                position: *position,
                from: pending.get(position).cloned().flatten(),
                to: match planned {
                    Ok(_) => ChannelState::Sending(claim.clone()),
                    Err(outcome) => ChannelState::Done(outcome.clone()),
                },
            })
            .collect();
        if !self.store.change_states(key, &changes).await? {
            return Ok(Vec::new());
        }
        let deliveries = plan.iter().map(async |(position, planned)| {
            let channel = &stored.message.channels[*position];
            let (outcome, provider_code) = match planned {
                Err(outcome) => (outcome.clone(), String::new()),
                Ok((route, code)) => {
                    let dispatch = Dispatch {
                        org: &org,
                        channel,
                        message: &stored.message,
                        code,
                        created_id: stored.created_id,
                        scope: stored.scope,
                        id: dispatch_id(key, *position),
                        requested_at: stored.requested_at,
                        valid_until: stored.valid_until,
                    };
                    self.dispatch(*route, &dispatch).await
                }
            };
            let ended = ChannelOutcome {
                channel: channel.channel_type,
                latency: self.clock.now() - stored.requested_at,
                outcome,
                provider_code,
            };
            log(stored.org, &ended);
            if planned.is_ok() {
                self.store_outcome(key, *position, &claim, &ended.outcome).await?;
            }
            Ok(ended)
        });
        // Every channel is awaited, so that an error on one does not interrupt the others.
        join_all(deliveries).await.into_iter().collect()
    }

    /// Delivers several messages side by side. Returns the error of each that failed, by its
    /// position in `keys`.
    pub async fn deliver_all(&self, keys: &[Key]) -> Vec<(usize, StoreError)> {
        // Boxed, because the futures of a batch are moved.
        let deliveries = keys.iter().map(|key| Box::pin(self.deliver(key)));
        let results = join_all(deliveries).await.into_iter().enumerate();
        results.filter_map(|(position, result)| Some((position, result.err()?))).collect()
    }

    /// Sends `code` to one address with the org's own texts, without a stored message. It counts in
    /// no limit. `None` if there is no such org.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn send_one(
        &self,
        org: OrgId,
        scope: Scope,
        channel: &Channel,
        code: &Code,
    ) -> Result<Option<ChannelOutcome>, StoreError> {
        let Some(org) = self.org(org).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let message = Message::new(vec![channel.clone()], &org.org.templates(scope), code);
        let dispatch = Dispatch {
            org: &org,
            channel,
            message: &message,
            code,
            created_id: CreatedId::draw(now, &mut os_rng()),
            scope,
            id: format!("msg_{}", Claim::draw(&mut os_rng()).0),
            requested_at: now,
            valid_until: now + org.org.otp_validity(),
        };
        let (outcome, provider_code) = match self.route(&org, channel.channel_type) {
            Ok(route) => self.dispatch(route, &dispatch).await,
            Err(reason) => (Outcome::Failed(reason), String::new()),
        };
        let ended = ChannelOutcome {
            channel: channel.channel_type,
            outcome,
            provider_code,
            latency: self.clock.now() - now,
        };
        Ok(Some(ended))
    }

    /// What is to be done on each pending channel: a route and the code to send, or the outcome
    /// without sending anything.
    async fn plan<'a>(
        &self,
        org: &'a OrgDelivery,
        stored: &'a StoredMessage,
        pending: &BTreeMap<usize, Option<Claim>>,
    ) -> Result<Vec<(usize, Result<(Route<'a>, &'a Code), Outcome>)>, StoreError> {
        let now = self.clock.now();
        let code = match &stored.otp {
            _ if now >= stored.valid_until => Err(Outcome::Expired),
            MessageOtp::Gone => Err(Outcome::Expired),
            MessageOtp::Consumed => Err(Outcome::Used),
            MessageOtp::Unused(code) => Ok(code),
        };
        let mut plan = Vec::new();
        for (position, claim) in pending {
            let channel = stored.message.channels[*position].channel_type;
            let planned = code.clone().and_then(|code| {
                self.route(org, channel).map(|route| (route, code)).map_err(Outcome::Failed)
            });
            plan.push((*position, claim.is_some(), planned));
        }
        // A channel that was begun was counted then.
        let is_new = |(_, begun, planned): &&mut (usize, bool, Result<_, Outcome>)| !begun && planned.is_ok();
        let mut allowed = match org.org.config().otp_hourly_messages {
            None => usize::MAX,
            Some(limit) => {
                let wanted = plan.iter_mut().filter(is_new).count();
                self.count(org.org.id(), wanted, limit, now).await?
            }
        };
        for (_, _, planned) in plan.iter_mut().filter(is_new) {
            if allowed == 0 {
                *planned = Err(Outcome::OverBudget);
            } else {
                allowed -= 1;
            }
        }
        Ok(plan.into_iter().map(|(position, _, planned)| (position, planned)).collect())
    }

    /// Counts up to `wanted` messages of the org's hour. Returns how many there is room for.
    async fn count(
        &self,
        org: OrgId,
        wanted: usize,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        let all = u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted == 0 || self.store.count_messages(org, all, limit, now).await? {
            return Ok(wanted);
        }
        let mut counted = 0;
        while counted + 1 < wanted && self.store.count_messages(org, 1, limit, now).await? {
            counted += 1;
        }
        Ok(counted)
    }

    /// Who sends the messages of a channel.
    fn route<'a>(&self, org: &'a OrgDelivery, channel: ChannelType) -> Result<Route<'a>, FailureReason> {
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

    /// Sends a message on one channel, with all attempts. Returns the outcome and the provider's
    /// code for a failure.
    async fn dispatch(&self, route: Route<'_>, dispatch: &Dispatch<'_>) -> (Outcome, String) {
        let validity = (dispatch.valid_until - self.clock.now()).to_std().unwrap_or_default();
        if validity.is_zero() {
            return (Outcome::Expired, String::new());
        }
        let total = self.limits.total.min(validity);
        let backoff = self.limits.first_backoff;
        let sent = match route {
            Route::Aws(settings) => {
                let attempt = || self.by_aws(settings, dispatch);
                with_attempts(total, self.limits.aws_attempt, backoff, attempt).await
            }
            Route::Webhook { url, secrets } => {
                let body = dispatch.webhook_body();
                let attempt = || self.by_webhook(url, secrets, &dispatch.id, &body);
                with_attempts(total, total, backoff, attempt).await
            }
            Route::Show(show) => {
                show(dispatch.channel, dispatch.message);
                Ok("shown".to_owned())
            }
        };
        match sent {
            Ok(provider_id) => (Outcome::Sent { provider_id }, String::new()),
            Err(AttemptError { reason, provider_code, .. }) => (Outcome::Failed(reason), provider_code),
        }
    }

    async fn by_aws(
        &self,
        settings: &AwsSettings,
        Dispatch { channel, message, code, valid_until, .. }: &Dispatch<'_>,
    ) -> Result<String, AttemptError> {
        let text = message.text.expose();
        let sms = |body| Sms {
            settings,
            to: &channel.value,
            body,
            template_id: &message.sms_template_id,
            validity: (*valid_until - self.clock.now()).to_std().unwrap_or_default(),
        };
        match channel.channel_type {
            ChannelType::Sms => self.aws.send_text(&sms(text)).await,
            ChannelType::Phone => self.aws.call(&sms(&content::ssml(text, code.expose()))).await,
            ChannelType::Email => {
                let subject = message.email_subject.expose();
                let parts = content::email(message.email_body.expose());
                self.aws.send_email(settings, &channel.value, subject, parts).await
            }
            // The org's file is refused if it says so.
            ChannelType::Whatsapp | ChannelType::Wechat | ChannelType::Zalo => {
                Err(AttemptError::last(FailureReason::NotConfigured, ""))
            }
        }
    }

    async fn by_webhook(
        &self,
        url: &str,
        secrets: &WebhookSecrets,
        id: &str,
        body: &str,
    ) -> Result<String, AttemptError> {
        let now = self.clock.now();
        let signatures = secrets.signatures(id, body, now);
        let headers = Headers { id, timestamp: now.timestamp(), signatures: &signatures };
        self.webhooks.post(url, &headers, body).await?;
        Ok(id.to_owned())
    }

    /// Stores what became of a channel. While DynamoDB is unavailable, this waits: nothing else can
    /// be delivered, and without the outcome the message would be sent again.
    async fn store_outcome(
        &self,
        key: &Key,
        position: usize,
        claim: &Claim,
        outcome: &Outcome,
    ) -> Result<(), StoreError> {
        let to = ChannelState::Done(outcome.clone());
        let change = [StateChange { position, from: Some(claim.clone()), to }];
        let end = Instant::now() + self.limits.store_outcome;
        loop {
            match self.store.change_states(key, &change).await {
                Err(error) if error.is_unavailable() && Instant::now() < end => {
                    sleep(jittered(WAIT_FOR_STORE)).await;
                }
                // Not changed: a call whose answer was lost has stored it, or another process has
                // begun to deliver the channel.
                result => return result.map(|_| ()),
            }
        }
    }

    /// The org, at most a minute old.
    async fn org(&self, id: OrgId) -> Result<Option<Arc<OrgDelivery>>, StoreError> {
        let now = self.clock.now();
        if let Some(org) = self.orgs.get(&id, now) {
            return Ok(Some(org));
        }
        let Some((org, secrets)) = self.store.org_with_secrets(id).await? else {
            return Ok(None);
        };
        let org = Arc::new(OrgDelivery { org, secrets });
        self.orgs.put(id, Arc::clone(&org), now);
        Ok(Some(org))
    }
}

/// The wait before an outcome is written again. The SDK has then tried for several seconds.
const WAIT_FOR_STORE: Duration = Duration::from_millis(500);

impl Dispatch<'_> {
    fn webhook_body(&self) -> String {
        let message = WebhookMessage {
            org: &self.org.org,
            created_id: self.created_id,
            scope: self.scope,
            channel: self.channel,
            message: self.message,
            requested_at: self.requested_at,
            valid_until: self.valid_until,
        };
        message.body()
    }
}

/// The id of a message on one channel for the webhook. It is a hash, because keys contain
/// addresses.
fn dispatch_id(key: &Key, position: usize) -> String {
    let digest = Sha256::digest(format!("{}\n{}\n{position}", key.pk, key.sk));
    format!("msg_{}", hex(&digest[..16]))
}

/// Writes the log line of a delivery, with its metrics. It contains neither the code nor the
/// address.
fn log(org: OrgId, ended: &ChannelOutcome) {
    let ChannelOutcome { channel, outcome, provider_code, latency } = ended;
    let reason = match outcome {
        Outcome::Failed(reason) => Some(reason.to_string()),
        _ => None,
    };
    let is = |name: &str| (outcome.name() == name).then_some(1);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: logging::DELIVERY,
                org = org.to_string(),
                channel = channel.as_str(),
                outcome = outcome.name(),
                reason,
                provider_code = (!provider_code.is_empty()).then_some(provider_code.as_str()),
                ms = latency.to_std().unwrap_or_default().as_secs_f64() * 1e3,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_and_channel_has_an_id_of_its_own() {
        let key = |pk: &str, send: u32| Key { pk: pk.into(), sk: format!("MESSAGE#POINTS#1#{send:0>5}") };
        let first = dispatch_id(&key("ORG#1#USER#1", 1), 0);
        assert_eq!(first, dispatch_id(&key("ORG#1#USER#1", 1), 0));
        let others = [(key("ORG#1#USER#1", 1), 1), (key("ORG#1#USER#1", 2), 0), (key("ORG#1#USER#2", 1), 0)];
        assert!(others.iter().all(|(key, position)| dispatch_id(key, *position) != first));
    }
}
