//! Delivery of OTP messages on this machine: by `serve`, and by `org test-delivery`.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use loyalty_codes::{
    aws,
    clock::Clock,
    delivery::{AwsClients, Deliverer, Mode, WebhookClient},
    model::message::{Channel, ChannelType, Message},
    settings::ProviderSettings,
    store::{Store, error_chain, keys::Key},
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    Target,
    failure::Failure,
    output::{line, printable},
};

/// How `serve` delivers messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// By the providers that each org's file names
    AsConfigured,
    /// To the webhook of each org, also what its file gives to AWS
    Webhook,
    /// To the console; no provider is called
    Console,
}

/// What a deliverer may and must do.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Whether webhooks may be at private addresses, which the delivery function refuses.
    pub private_webhooks: bool,
    /// Whether a missing AWS configuration is a failure. Otherwise it is a warning, because all
    /// messages may go to webhooks.
    pub aws: bool,
}

/// A deliverer of the messages in `store`.
pub async fn deliverer(
    target: &Target,
    store: Store,
    delivery: Delivery,
    needs: Needs,
) -> Result<Deliverer, Failure> {
    let settings = target.settings()?;
    let mut providers = ProviderSettings::from_env()?;
    providers.allow_private_webhooks |= needs.private_webhooks;
    let (config, mode) = match delivery {
        Delivery::AsConfigured => {
            let config = match aws::of_operator(&settings, None).await {
                Err(error) if !needs.aws => {
                    tracing::warn!(cause = %error, "AWS sends no messages");
                    aws::for_local(&settings)?
                }
                config => config?,
            };
            (config, Mode::AsConfigured)
        }
        Delivery::Webhook => (aws::for_local(&settings)?, Mode::Webhook),
        Delivery::Console => (aws::for_local(&settings)?, Mode::Show(to_console)),
    };
    let clients = AwsClients::new(&config, &providers);
    let webhooks = WebhookClient::new(&settings, &providers)?;
    Ok(Deliverer::new(store, Clock::system(), clients, webhooks).with_mode(mode))
}

/// Prints a message.
fn to_console(channel: &Channel, message: &Message) {
    let text = match channel.channel_type {
        ChannelType::Email => format!("{}: {}", message.email_subject.expose(), message.email_body.expose()),
        _ => message.text.expose().clone(),
    };
    let text = format!("delivered by {} to {}: {text}", channel.channel_type, channel.value);
    // Only a warning, because the service must go on if the console is closed.
    if let Err(failure) = line(&printable(&text)) {
        tracing::warn!(cause = %failure, "a message cannot be shown");
    }
}

/// The most messages that are delivered at the same time. Further ones wait.
const MAX_CONCURRENT: usize = 100;

/// The deliveries of a running service.
pub struct Deliveries {
    messages: UnboundedSender<Key>,
    work: JoinHandle<()>,
}

impl Deliveries {
    /// Begins to deliver the messages that [`Self::listener`] is told of.
    pub fn start(deliverer: Deliverer) -> Self {
        let (messages, received) = mpsc::unbounded_channel();
        Self { messages, work: tokio::spawn(deliver_all(Arc::new(deliverer), received)) }
    }

    /// What a service calls with the key of each message that it has stored.
    pub fn listener(&self) -> impl Fn(Key) + Send + Sync + 'static {
        let messages = self.messages.clone();
        move |key| {
            // Nobody receives it if the service has ended.
            let _ = messages.send(key);
        }
    }

    /// Waits at most `time` for the deliveries that have begun. The listeners must be dropped.
    pub async fn finish(self, time: Duration) {
        drop(self.messages);
        if timeout(time, self.work).await.is_err() {
            tracing::warn!("the process ends while messages are being delivered");
        }
    }
}

async fn deliver_all(deliverer: Arc<Deliverer>, mut messages: UnboundedReceiver<Key>) {
    let mut running = JoinSet::new();
    while let Some(key) = messages.recv().await {
        if running.len() == MAX_CONCURRENT {
            running.join_next().await;
        }
        while running.try_join_next().is_some() {}
        let deliverer = Arc::clone(&deliverer);
        running.spawn(async move {
            if let Err(error) = deliverer.deliver(&key).await {
                tracing::error!(cause = error_chain(&error), "a message was not delivered");
            }
        });
    }
    running.join_all().await;
}
