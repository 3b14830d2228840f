//! A table with messages to be delivered, a deliverer, and its fake providers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue::{self, M, N, S};
use chrono::{DateTime, TimeDelta, Utc};
use loyalty_codes::{
    aws,
    clock::Clock,
    delivery::{AwsClients, ChannelOutcome, Deliverer, Limits, WebhookClient},
    model::{
        delivery_state::Outcome,
        org::{Definition, OrgId},
        webhook::WebhookSecret,
    },
    secret::os_rng,
    settings::{ProviderSettings, Settings},
    store::{Store, keys::Key},
};
use serde_json::Value;

use crate::{
    common::{DEMO_ORG, TestClock, TestService, TestTable},
    providers::Providers,
};

pub const MOBILE: &str = "918799361139";
pub const EMAIL: &str = "tom@example.com";
pub const CODE: &str = "538AD87";
pub const ORG: OrgId = OrgId(966);

/// Short limits, so that no test waits for seconds.
pub const SHORT: Limits = Limits {
    total: Duration::from_millis(600),
    aws_attempt: Duration::from_millis(400),
    first_backoff: Duration::from_millis(20),
    store_outcome: Duration::from_millis(600),
};

pub struct World {
    pub table: TestTable,
    pub service: TestService,
    pub providers: Providers,
    pub deliverer: Arc<Deliverer>,
    pub secret: WebhookSecret,
}

/// Every channel by AWS that can be, and the others by the gateway.
pub const BY_AWS: &str = r#"
    SMS = "aws"
    PHONE = "aws"
    EMAIL = "aws"
    WHATSAPP = "webhook"
"#;
pub const BY_WEBHOOK: &str = r#"
    SMS = "webhook"
    PHONE = "webhook"
    EMAIL = "webhook"
    WHATSAPP = "webhook"
    WECHAT = "webhook"
    ZALO = "webhook"
"#;

/// The demo org with a `[delivery]` table and more lines in its `[config]`.
pub fn org(channels: &str, gateway: &str, config: &str) -> Definition {
    let mut document: toml::Table = DEMO_ORG.parse().unwrap();
    document["config"].as_table_mut().unwrap().extend(config.parse::<toml::Table>().unwrap());
    let delivery = format!(
        r#"
        {channels}
        [aws]
        sms_origination = "LOYALTY"
        email_from = "Demo Stores <otp@example.com>"
        voice_origination = "+15550100"
        sms_configuration_set = "otp"
        sms_protect_configuration = "protect-1"
        sms_max_price = "0.10"
        sms_entity_id = "1101"
        [webhook]
        url = "{gateway}"
        "#
    );
    document.insert("delivery".to_owned(), delivery.parse::<toml::Table>().unwrap().into());
    document.try_into().unwrap()
}

impl World {
    pub async fn new(channels: &str) -> Self {
        Self::with_config(channels, "").await
    }

    pub async fn with_config(channels: &str, config: &str) -> Self {
        let table = TestTable::new().await;
        let service = table.service("store.server");
        let providers = Providers::start().await;
        let gateway = format!("{}/otp", providers.endpoint());
        service.apply(&org(channels, &gateway, config)).await.unwrap();
        let secret = WebhookSecret::generate(&mut os_rng());
        assert!(service.store.replace_webhook_secret(ORG, secret.clone(), table.clock.now()).await.unwrap());
        let deliverer = Arc::new(deliverer(service.store.clone(), table.clock.clock(), &providers));
        Self { table, service, providers, deliverer, secret }
    }

    pub fn clock(&self) -> &TestClock {
        &self.table.clock
    }

    /// Another process, on a store of its own.
    pub fn another_deliverer(&self, store: Store) -> Arc<Deliverer> {
        Arc::new(deliverer(store, self.table.clock.clock(), &self.providers))
    }

    /// Puts an OTP and its message for these channels, and returns the message's key.
    pub async fn put(&self, channels: &Value) -> Key {
        self.put_for(5, channels).await
    }

    /// Puts an OTP and its message for the customer with that id.
    pub async fn put_for(&self, user: u64, channels: &Value) -> Key {
        self.put_in(format!("ORG#966#USER#{user}"), channels).await
    }

    /// Puts an OTP and its message in the partition of a customer.
    pub async fn put_in(&self, pk: String, channels: &Value) -> Key {
        let now = self.clock().now();
        let created = now.timestamp_millis() * 1000 + 294;
        let otp_sk = format!("OTP#POINTS#{created:0>16}");
        let valid_until = now + TimeDelta::seconds(300);
        let otp = [
            ("created_id", N(created.to_string())),
            ("code", S(CODE.to_owned())),
            ("valid_until", millis(valid_until)),
        ];
        self.put_item(&pk, &otp_sk, &otp).await;
        let message_sk = format!("MESSAGE#POINTS#{created:0>16}#00001");
        let message = [
            ("created_id", N(created.to_string())),
            ("org", N(pk.split('#').nth(1).unwrap().to_owned())),
            ("scope", S("POINTS".to_owned())),
            ("channels", S(channels.to_string())),
            ("text", S(format!("R&D: your OTP is {CODE}."))),
            ("email_subject", S("Überprüfung".to_owned())),
            ("email_body", S(format!("<p>Your OTP is <b>{CODE}</b>.</p>"))),
            ("sms_template_id", S("1107".to_owned())),
            ("valid_until", millis(valid_until)),
            ("deliveries", M(HashMap::new())),
        ];
        self.put_item(&pk, &message_sk, &message).await;
        Key { pk, sk: message_sk }
    }

    pub async fn put_item(&self, pk: &str, sk: &str, attributes: &[(&str, AttributeValue)]) {
        let mut put = self.service.client.put_item().table_name(self.table.name());
        put = put.item("PK", S(pk.to_owned())).item("SK", S(sk.to_owned()));
        for (name, value) in attributes {
            put = put.item(*name, value.clone());
        }
        put.send().await.unwrap();
    }

    /// Consumes the OTP of a message.
    pub async fn consume(&self, key: &Key) {
        let sk = loyalty_codes::store::keys::otp_of_message(&key.sk).unwrap();
        let update = self.service.client.update_item().table_name(self.table.name());
        let update = update.key("PK", S(key.pk.clone())).key("SK", S(sk));
        let update = update.update_expression("SET consumed_at = :now");
        update.expression_attribute_values(":now", millis(self.clock().now())).send().await.unwrap();
    }

    /// How many messages are counted in the org's budget of this hour.
    pub async fn counted(&self) -> Option<u64> {
        let key = loyalty_codes::store::keys::message_budget(ORG, self.clock().now());
        let read = self.service.client.get_item().table_name(self.table.name()).consistent_read(true);
        let item = read.set_key(Some(key.attributes())).send().await.unwrap().item?;
        Some(item["sent"].as_n().unwrap().parse().unwrap())
    }

    pub async fn deliver(&self, key: &Key) -> Vec<ChannelOutcome> {
        self.deliverer.deliver(key).await.unwrap()
    }

    /// The states on a message's item, such as `["sent: id-1", "failed: opted_out", "-"]`.
    pub async fn states(&self, key: &Key) -> Vec<String> {
        let read = self.service.client.get_item().table_name(self.table.name()).consistent_read(true);
        let read = read.key("PK", S(key.pk.clone())).key("SK", S(key.sk.clone()));
        let item = read.send().await.unwrap().item.unwrap();
        let channels: Vec<Value> = serde_json::from_str(item["channels"].as_s().unwrap()).unwrap();
        let deliveries = item["deliveries"].as_m().unwrap();
        let state = |position: usize| {
            let Some(entry) = deliveries.get(&position.to_string()) else {
                return "-".to_owned();
            };
            let entry = entry.as_m().unwrap();
            let detail =
                entry.get("reason").or(entry.get("provider_id")).map(|detail| detail.as_s().unwrap());
            let state = entry["state"].as_s().unwrap();
            detail.map_or_else(|| state.clone(), |detail| format!("{state}: {detail}"))
        };
        (0..channels.len()).map(state).collect()
    }
}

pub fn deliverer(store: Store, clock: Clock, providers: &Providers) -> Deliverer {
    let settings = Settings::default();
    let provider_settings = ProviderSettings {
        sms_endpoint: Some(providers.endpoint()),
        email_endpoint: Some(providers.endpoint()),
        allow_private_webhooks: true,
    };
    let clients = AwsClients::new(&aws::for_local(&settings).unwrap(), &provider_settings);
    let webhooks = WebhookClient::new(&settings, &provider_settings).unwrap();
    Deliverer::new(store, clock, clients, webhooks).with_limits(SHORT)
}

pub fn millis(time: DateTime<Utc>) -> AttributeValue {
    N(time.timestamp_millis().to_string())
}

/// The outcomes as text, such as `failed: opted_out`.
pub fn shown(outcomes: &[ChannelOutcome]) -> Vec<String> {
    let show = |ended: &ChannelOutcome| match &ended.outcome {
        Outcome::Sent { provider_id } => format!("sent: {provider_id}"),
        Outcome::Failed(reason) => format!("failed: {reason}"),
        other => other.name().to_owned(),
    };
    outcomes.iter().map(show).collect()
}
