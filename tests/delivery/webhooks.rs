//! Signatures, ids and addresses of webhooks.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use loyalty_codes::{
    delivery::{AwsClients, Deliverer, WebhookClient},
    model::{delivery_state::Outcome, webhook::WebhookSecret},
    secret::os_rng,
    settings::{ProviderSettings, Settings},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use standardwebhooks::Webhook;

use crate::{
    providers::{Received, Reply},
    world::{BY_WEBHOOK, EMAIL, MOBILE, ORG, SHORT, World, org, shown},
};

/// Whether a receiver with that secret accepts a request, whatever the time.
fn accepts(secret: &WebhookSecret, received: &Received) -> bool {
    let timestamp = received.header("webhook-timestamp").parse().unwrap();
    let webhook = Webhook::new(&secret.to_text()).unwrap();
    let expected = webhook.sign(received.header("webhook-id"), timestamp, received.text.as_bytes()).unwrap();
    received.header("webhook-signature").split(' ').any(|signature| signature == expected)
}

fn sms() -> serde_json::Value {
    json!([{"type": "SMS", "value": MOBILE}])
}

#[tokio::test]
async fn receivers_of_standard_webhooks_verify_a_request() {
    let world = World::new(BY_WEBHOOK).await;
    // Receivers refuse requests that are older than five minutes by their own clock.
    world.clock().advance(chrono::Utc::now() - world.clock().now());
    let key = world.put(&sms()).await;
    assert!(shown(&world.deliver(&key).await)[0].starts_with("sent"));
    let received = &world.providers.taken()[0];
    Webhook::new(&world.secret.to_text())
        .unwrap()
        .verify(received.text.as_bytes(), &received.headers)
        .unwrap();
    let other = Webhook::new(&WebhookSecret::generate(&mut os_rng()).to_text()).unwrap();
    assert!(other.verify(received.text.as_bytes(), &received.headers).is_err());
}

#[tokio::test]
async fn a_replaced_secret_signs_beside_the_new_one_for_a_day() {
    let world = World::new(BY_WEBHOOK).await;
    world.deliver(&world.put_for(1, &sms()).await).await;
    world.providers.reply(|_, _| Reply::Taken);
    let new = WebhookSecret::generate(&mut os_rng());
    let now = world.clock().now();
    assert!(world.service.store.replace_webhook_secret(ORG, new.clone(), now).await.unwrap());
    world.deliver(&world.put(&sms()).await).await;
    world.clock().advance(TimeDelta::days(1));
    world.deliver(&world.put(&sms()).await).await;
    let [during, after] = &world.providers.taken()[..] else { panic!("two requests") };
    assert!(accepts(&new, during) && accepts(&world.secret, during));
    assert!(accepts(&new, after) && !accepts(&world.secret, after));
}

#[tokio::test]
async fn attempts_have_the_same_id_and_channels_and_messages_have_different_ones() {
    let world = World::new(BY_WEBHOOK).await;
    world.providers.reply(|_, before| if before < 3 { Reply::status(503) } else { Reply::Taken });
    let key = world.put(&sms()).await;
    world.deliver(&key).await;
    let received = world.providers.received();
    assert_eq!(received.len(), 4);
    let id = received[0].header("webhook-id").to_owned();
    for attempt in &received {
        assert_eq!(attempt.header("webhook-id"), id);
        assert_eq!(attempt.text, received[0].text);
        assert!(accepts(&world.secret, attempt));
    }
    assert!(!id.contains("966") && !id.contains(MOBILE));

    world.providers.reply(|_, _| Reply::Taken);
    let channels = json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}]);
    // Two customers may have OTPs with the same number.
    for user in [6, 7] {
        world.deliver(&world.put_for(user, &channels).await).await;
    }
    let mut ids: BTreeSet<_> = BTreeSet::from([id]);
    ids.extend(world.providers.taken().iter().map(|received| received.header("webhook-id").to_owned()));
    assert_eq!(ids.len(), 5, "{ids:?}");
}

#[tokio::test]
async fn an_org_without_a_secret_sends_no_webhooks() {
    let world = World::new(BY_WEBHOOK).await;
    let mut definition = org(BY_WEBHOOK, "https://gateway.example/otp", "");
    definition.id = loyalty_codes::model::org::OrgId(967);
    world.service.apply(&definition).await.unwrap();
    let key = world.put_in("ORG#967#USER#5".to_owned(), &sms()).await;
    assert_eq!(shown(&world.deliver(&key).await), ["failed: not_configured"]);
}

/// A deliverer as the function has it, for which only public addresses exist.
fn public_only(world: &World, settings: &Settings) -> Deliverer {
    let providers = ProviderSettings::default();
    let clients = AwsClients::new(&loyalty_codes::aws::for_local(settings).unwrap(), &providers);
    let webhooks = WebhookClient::new(settings, &providers).unwrap();
    let clock = world.clock().clock();
    Deliverer::new(world.service.store.clone(), clock, clients, webhooks).with_limits(SHORT)
}

#[tokio::test]
async fn private_addresses_are_refused_whatever_name_they_have() {
    let world = World::new(BY_WEBHOOK).await;
    let port = world.providers.endpoint().rsplit(':').next().unwrap().to_owned();
    for url in [
        format!("https://localhost:{port}/otp"),
        format!("https://127.0.0.1:{port}/otp"),
        format!("https://[::1]:{port}/otp"),
        format!("https://[::ffff:127.0.0.1]:{port}/otp"),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        "https://[fd00:ec2::254]/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        format!("http://127.0.0.1:{port}/otp"),
        format!("http://localhost:{port}/otp"),
    ] {
        world.service.apply(&org(BY_WEBHOOK, &url, "")).await.unwrap();
        let key = world.put(&sms()).await;
        let outcomes = public_only(&world, &Settings::default()).deliver(&key).await.unwrap();
        assert_eq!(shown(&outcomes), ["failed: private_address"], "{url}");
    }
    // Resolvers read these as 127.0.0.1, too. They are no names that a certificate can have, so
    // some fail before they are resolved.
    for host in ["127.1", "2130706433", "0x7f000001", "0"] {
        world.service.apply(&org(BY_WEBHOOK, &format!("https://{host}:{port}/otp"), "")).await.unwrap();
        let key = world.put(&sms()).await;
        let outcomes = public_only(&world, &Settings::default()).deliver(&key).await.unwrap();
        assert!(matches!(outcomes[0].outcome, Outcome::Failed(_)), "{host}: {outcomes:?}");
    }
    assert_eq!(world.providers.connections(), 0);
}

#[tokio::test]
async fn the_gateways_certificate_is_verified() {
    let world = World::new(BY_WEBHOOK).await;
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let gateway = crate::providers::serve_tls(&cert, &signing_key).await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("roots.pem");
    std::fs::write(&trusted, cert.pem()).unwrap();
    let url = format!("https://localhost:{}/otp", gateway.port());
    world.service.apply(&org(BY_WEBHOOK, &url, "")).await.unwrap();
    let with_roots = |ca_bundle| {
        let settings = Settings { ca_bundle, ..Settings::default() };
        let providers = ProviderSettings { allow_private_webhooks: true, ..ProviderSettings::default() };
        let clients = AwsClients::new(&loyalty_codes::aws::for_local(&settings).unwrap(), &providers);
        let webhooks = WebhookClient::new(&settings, &providers).unwrap();
        let (store, clock) = (world.service.store.clone(), world.clock().clock());
        Deliverer::new(store, clock, clients, webhooks).with_limits(SHORT)
    };
    let untrusting = with_roots(None).deliver(&world.put_for(1, &sms()).await).await.unwrap();
    assert_eq!(shown(&untrusting), ["failed: unreachable"]);
    assert_eq!(untrusting[0].provider_code, "tls");
    let trusting = with_roots(Some(trusted)).deliver(&world.put_for(2, &sms()).await).await.unwrap();
    assert!(shown(&trusting)[0].starts_with("sent"), "{trusting:?}");
}

#[tokio::test]
async fn an_answer_is_not_read_beyond_its_status() {
    let world = World::new(BY_WEBHOOK).await;
    world.providers.reply(|_, _| Reply::EndlessBody);
    let started = std::time::Instant::now();
    assert!(shown(&world.deliver(&world.put(&sms()).await).await)[0].starts_with("sent"));
    assert!(started.elapsed() < SHORT.total, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_counts_as_soon_as_its_status_is_there_and_no_connection_is_used_again() {
    const MESSAGES: u64 = 20;
    let world = World::new(BY_WEBHOOK).await;
    let deliver_all = async |users: std::ops::Range<u64>| {
        let started = std::time::Instant::now();
        for user in users {
            let outcomes = world.deliver(&world.put_for(user, &sms()).await).await;
            assert!(shown(&outcomes)[0].starts_with("sent"), "{outcomes:?}");
        }
        started.elapsed()
    };
    let with_body = deliver_all(0..MESSAGES).await;
    world.providers.reply(|_, _| Reply::NoBody);
    let without_body = deliver_all(MESSAGES..2 * MESSAGES).await;
    // Waiting for a body, for a tenth of a second each time, would take longer.
    assert!(without_body < with_body + Duration::from_secs(2), "{with_body:?}, {without_body:?}");
    assert_eq!(world.providers.connections(), 40);
}
