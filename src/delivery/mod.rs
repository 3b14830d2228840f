//! Delivers stored messages: each channel of a message by the provider that the org's file names.
//!
//! A message is sent at least once if a provider takes it before its OTP expires. Before a provider
//! is called, the channel is marked as `sending`; afterwards, what became of it is stored. It is
//! sent twice only if the process dies, or the provider's answer is lost, between the two.
//!
//! A provider is tried again after transient failures, for [`Limits::total`] at most, and no
//! failure of a provider is an error here: the item is the record of it. Only a failing DynamoDB
//! is, and a lack of time.
//!
//! Each delivery reads the org. An older copy could refuse a channel for good that the org has been
//! given since, or sign without its new secret.

mod address;
mod attempts;
mod aws;
#[cfg(feature = "cli")]
mod diagnosis;
mod log;
mod plan;
mod webhook;

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

pub use attempts::Limits;
use attempts::{AttemptError, jittered, with_attempts};
pub use aws::AwsClients;
use aws::Sms;
#[cfg(feature = "cli")]
pub use diagnosis::{
    EmailAccount, EmailIdentity, Origination, SmsAccount, SpendLimit, SpendLimits, webhook_addresses,
};
pub use log::log_unreadable;
use plan::{Action, Route};
use webhook::Headers;
pub use webhook::WebhookClient;

use crate::{
    clock::Clock,
    model::{
        content,
        delivery::AwsSettings,
        delivery_state::{ChannelState, Claim, FailureReason, Outcome},
        message::{Channel, ChannelType, Message},
        org::OrgId,
        otp::{Code, CreatedId, Scope},
        webhook::{Outgoing, WebhookSecrets, webhook_id},
    },
    secret::os_rng,
    store::{OPERATION_TIMEOUT, StateChange, Store, StoreError, StoredOrg, keys::Key},
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
    /// A permit for each message that may be on its way to a provider.
    sending: Semaphore,
}

/// How many messages are on their way to providers at the same time. Each has a connection, and a
/// function on Lambda may have 1,024 files and connections open.
const MAX_SENDING: usize = 400;

/// Why a message was not delivered, or not all of it. It can be delivered again; channels that have
/// ended are not sent twice.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process may end before the outcome is stored. Nothing was sent.
    #[error("too little time is left to send a message and to store what became of it")]
    TooLate,
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
    outgoing: Outgoing<'a>,
    code: &'a Code,
    /// The same at every attempt, and at no other dispatch.
    id: String,
}

impl Deliverer {
    pub fn new(store: Store, clock: Clock, aws: AwsClients, webhooks: WebhookClient) -> Self {
        Self {
            store,
            clock,
            aws,
            webhooks,
            mode: Mode::default(),
            limits: Limits::default(),
            sending: Semaphore::new(MAX_SENDING),
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
    /// [`DeliveryError::Store`] when DynamoDB fails or an item is corrupt.
    pub async fn deliver(&self, key: &Key) -> Result<Vec<ChannelOutcome>, DeliveryError> {
        self.deliver_until(key, None).await
    }

    /// Delivers a message in a process that may end at `deadline`.
    async fn deliver_until(
        &self,
        key: &Key,
        deadline: Option<Instant>,
    ) -> Result<Vec<ChannelOutcome>, DeliveryError> {
        let Some(stored) = self.store.message(key).await? else {
            return Ok(Vec::new());
        };
        let Some(org) = stored.org.as_ref().filter(|org| self.delivers(org)) else {
            return Ok(Vec::new());
        };
        let claim = Claim::draw(&mut os_rng());
        let plan = self.plan(org, &stored, &claim).await?;
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let changes: Vec<StateChange> = plan
            .iter()
            .map(|planned| StateChange {
                position: planned.position,
                from: planned.interrupted.clone(),
                to: match &planned.action {
                    Action::Send(..) => ChannelState::Sending(claim.clone()),
                    Action::End(outcome) => ChannelState::Done(outcome.clone()),
                },
            })
            .collect();
        if !self.store.change_states(key, &changes).await? {
            return Ok(Vec::new());
        }
        let deliveries = plan.iter().map(async |planned| {
            let channel = &stored.message.channels[planned.position];
            let (outcome, provider_code) = match &planned.action {
                Action::End(outcome) => (outcome.clone(), String::new()),
                Action::Send(route, code) => {
                    let outgoing = Outgoing {
                        org: &org.org,
                        channel,
                        message: &stored.message,
                        created_id: stored.created_id,
                        scope: stored.scope,
                        requested_at: stored.requested_at,
                        valid_until: stored.valid_until,
                    };
                    let id = webhook_id(&org.org.permutation_key, &key.pk, &key.sk, planned.position);
                    let _permit = self.permit(deadline).await?;
                    self.dispatch(*route, &Dispatch { outgoing, code, id }).await
                }
            };
            let ended = ChannelOutcome {
                channel: channel.channel_type,
                latency: self.clock.now() - stored.requested_at,
                outcome,
                provider_code,
            };
            log::log(org.org.id(), &ended);
            if matches!(planned.action, Action::Send(..)) {
                self.store_outcome(key, planned.position, &claim, &ended.outcome).await?;
            }
            Ok(ended)
        });
        // Every channel is awaited, so that an error on one does not interrupt the others.
        join_all(deliveries).await.into_iter().collect()
    }

    /// Whether the messages of an org are delivered at all.
    fn delivers(&self, org: &StoredOrg) -> bool {
        org.org.sends_messages() || matches!(self.mode, Mode::Show(_))
    }

    /// Waits until another message may be sent. A process that ended between sending a message and
    /// storing its outcome would have it sent twice, so this fails if the time for both is not
    /// left.
    async fn permit(&self, deadline: Option<Instant>) -> Result<Option<SemaphorePermit<'_>>, DeliveryError> {
        // The semaphore is never closed.
        let permit = self.sending.acquire().await.ok();
        let needed = self.limits.total + self.limits.store_outcome + OPERATION_TIMEOUT;
        if deadline.is_some_and(|deadline| Instant::now() + needed > deadline) {
            return Err(DeliveryError::TooLate);
        }
        Ok(permit)
    }

    /// Delivers several messages side by side, in a process that may end after `time_left`. Returns
    /// the error of each that failed, by its position in `keys`.
    pub async fn deliver_all(
        &self,
        keys: &[Key],
        time_left: Option<Duration>,
    ) -> Vec<(usize, DeliveryError)> {
        let deadline = time_left.map(|time| Instant::now() + time);
        // Boxed, because the futures of a batch are moved.
        let deliveries = keys.iter().map(|key| Box::pin(self.deliver_until(key, deadline)));
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
        let Some(org) = self.store.stored_org(org).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let message = Message::new(vec![channel.clone()], &org.org.templates(scope), code);
        let outgoing = Outgoing {
            org: &org.org,
            channel,
            message: &message,
            created_id: CreatedId::draw(now, &mut os_rng()),
            scope,
            requested_at: now,
            valid_until: now + org.org.otp_validity(),
        };
        let id = format!("msg_{}", Claim::draw(&mut os_rng()).0);
        let (outcome, provider_code) = match self.route(&org, channel.channel_type) {
            Ok(route) => self.dispatch(route, &Dispatch { outgoing, code, id }).await,
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

    /// Sends a message on one channel, with all attempts. Returns the outcome and the provider's
    /// code for a failure.
    async fn dispatch(&self, route: Route<'_>, dispatch: &Dispatch<'_>) -> (Outcome, String) {
        let validity = (dispatch.outgoing.valid_until - self.clock.now()).to_std().unwrap_or_default();
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
                let body = dispatch.outgoing.webhook_body();
                let attempt = || self.by_webhook(url, secrets, &dispatch.id, &body);
                with_attempts(total, total, backoff, attempt).await
            }
            Route::Show(show) => {
                show(dispatch.outgoing.channel, dispatch.outgoing.message);
                Ok("shown".to_owned())
            }
        };
        match sent {
            Ok(provider_id) => (Outcome::Sent { provider_id }, String::new()),
            // The OTP expired while there was time for another attempt.
            Err(error) if error.is_transient && validity < self.limits.total => {
                (Outcome::Expired, String::new())
            }
            Err(AttemptError { reason, provider_code, .. }) => (Outcome::Failed(reason), provider_code),
        }
    }

    async fn by_aws(
        &self,
        settings: &AwsSettings,
        Dispatch { outgoing: Outgoing { channel, message, valid_until, .. }, code, .. }: &Dispatch<'_>,
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
                let parts = content::email(message.email_body.expose(), text);
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
}

/// The wait before an outcome is written again. The SDK has then tried for several seconds.
const WAIT_FOR_STORE: Duration = Duration::from_millis(500);
