//! What each provider gets, and which messages are not sent.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use chrono::TimeDelta;
use loyalty_codes::{
    delivery::Mode,
    entrypoints::stream,
    model::{
        delivery_state::{FailureReason, Outcome},
        message::{Channel, ChannelType, Message},
        org::OrgId,
        otp::{Code, Scope},
    },
    store::keys::{self, Key},
};
use serde_json::{Value, json};

use crate::{
    common::{MOBILE as NATIONAL_MOBILE, events::stream_event},
    providers::{Called, Reply},
    world::{BY_AWS, BY_WEBHOOK, CODE, EMAIL, MOBILE, ORG, World, deliverer, org, shown},
};

fn sms() -> Value {
    json!([{"type": "SMS", "value": MOBILE}])
}

#[tokio::test]
async fn a_text_message_has_the_limits_and_ids_of_the_org() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    world.clock().advance(TimeDelta::milliseconds(1500));
    let outcomes = world.deliver(&key).await;
    assert_eq!(shown(&outcomes), ["sent: id-1"]);
    assert_eq!(outcomes[0].latency, TimeDelta::milliseconds(1500));
    assert_eq!(world.states(&key).await, ["sent: id-1"]);
    let [text] = &world.providers.taken()[..] else { panic!("one message") };
    assert_eq!(text.called, Called::Text);
    let expected = json!({
        "DestinationPhoneNumber": "+918799361139",
        "OriginationIdentity": "LOYALTY",
        "MessageBody": "R&D: your OTP is 538AD87.",
        "MessageType": "TRANSACTIONAL",
        "TimeToLive": 298,
        "ConfigurationSetName": "otp",
        "ProtectConfigurationId": "protect-1",
        "MaxPrice": "0.10",
        "DestinationCountryParameters": {"IN_ENTITY_ID": "1101", "IN_TEMPLATE_ID": "1107"},
    });
    assert_eq!(text.json, expected);
}

#[tokio::test]
async fn numbers_outside_of_india_have_no_dlt_ids_and_empty_settings_are_left_out() {
    let world = World::new(BY_AWS).await;
    let mut definition = org(BY_AWS, "https://gateway.example/otp", "");
    let aws = &mut definition.delivery.as_mut().unwrap().aws;
    aws.sms_max_price = "2".to_owned();
    aws.sms_configuration_set.clear();
    aws.sms_protect_configuration.clear();
    world.service.apply(&definition).await.unwrap();
    let key = world.put(&json!([{"type": "SMS", "value": "97150123456"}])).await;
    world.clock().advance(TimeDelta::seconds(297));
    assert_eq!(shown(&world.deliver(&key).await), ["sent: id-1"]);
    let expected = json!({
        "DestinationPhoneNumber": "+97150123456",
        "OriginationIdentity": "LOYALTY",
        "MessageBody": "R&D: your OTP is 538AD87.",
        "MessageType": "TRANSACTIONAL",
        "TimeToLive": 5,
        "MaxPrice": "2.0",
    });
    assert_eq!(world.providers.taken()[0].json, expected);
}

#[tokio::test]
async fn a_call_spells_the_code() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&json!([{"type": "PHONE", "value": MOBILE}])).await;
    assert_eq!(shown(&world.deliver(&key).await), ["sent: id-1"]);
    let [call] = &world.providers.taken()[..] else { panic!("one call") };
    assert_eq!(call.called, Called::Voice);
    let expected = json!({
        "DestinationPhoneNumber": "+918799361139",
        "OriginationIdentity": "+15550100",
        "MessageBody":
            "<speak>R&amp;D: your OTP is <say-as interpret-as=\"characters\">538AD87</say-as>.</speak>",
        "MessageBodyTextType": "SSML",
        "TimeToLive": 300,
        "ConfigurationSetName": "otp",
        "ProtectConfigurationId": "protect-1",
    });
    assert_eq!(call.json, expected);
}

#[tokio::test]
async fn an_email_has_a_text_and_html() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&json!([{"type": "EMAIL", "value": EMAIL}])).await;
    assert_eq!(shown(&world.deliver(&key).await), ["sent: id-1"]);
    let utf8 = |data: &str| json!({"Data": data, "Charset": "UTF-8"});
    let body = json!({
        "Text": utf8("R&D: your OTP is 538AD87."),
        "Html": utf8("<p>Your OTP is <b>538AD87</b>.</p>"),
    });
    let expected = json!({
        "FromEmailAddress": "Demo Stores <otp@example.com>",
        "Destination": {"ToAddresses": [EMAIL]},
        "Content": {"Simple": {"Subject": utf8("Überprüfung"), "Body": body}},
    });
    let [email] = &world.providers.taken()[..] else { panic!("one e-mail") };
    assert_eq!((email.called, &email.json), (Called::Email, &expected));
}

#[tokio::test]
async fn a_webhook_carries_a_text_or_an_email() {
    let world = World::new(BY_WEBHOOK).await;
    for (user, channel, to) in [
        (1, "SMS", MOBILE),
        (2, "PHONE", MOBILE),
        (3, "WHATSAPP", MOBILE),
        (4, "WECHAT", "openid-1"),
        (5, "ZALO", "zalo-1"),
        (6, "EMAIL", EMAIL),
    ] {
        world.providers.reply(|_, _| Reply::Taken);
        let key = world.put_for(user, &json!([{"type": channel, "value": to}])).await;
        let outcomes = world.deliver(&key).await;
        let [webhook] = &world.providers.taken()[..] else { panic!("one webhook for {channel}") };
        assert_eq!(shown(&outcomes), [format!("sent: {}", webhook.header("webhook-id"))]);
        let mut data = json!({
            "orgId": 966, "createdId": 1_795_235_400_000_294_u64, "scope": "POINTS", "channel": channel,
            "to": to, "validUpto": "2026-11-21T10:05:00+05:30",
        });
        if channel == "EMAIL" {
            data["subject"] = "Überprüfung".into();
            data["html"] = format!("<p>Your OTP is <b>{CODE}</b>.</p>").into();
        } else {
            data["text"] = format!("R&D: your OTP is {CODE}.").into();
        }
        let expected = json!({"type": "otp.message", "timestamp": "2026-11-21T04:30:00.000Z", "data": data});
        assert_eq!(webhook.json, expected);
        assert_eq!(webhook.header("content-type"), "application/json");
        assert!(webhook.header("user-agent").starts_with("loyalty-codes/"));
    }
}

#[tokio::test]
async fn a_requested_otp_is_delivered_with_the_code_that_a_fetch_finds() {
    let world = World::new(BY_AWS).await;
    world.service.create_till("store.server", 966, loyalty_codes::model::till::Permission::ALL).await;
    world.service.register_demo_customer().await;
    let body = json!({
        "entityType": "MOBILE", "entityValue": NATIONAL_MOBILE, "action": "POINTS",
        "channels": [{"type": "SMS", "value": NATIONAL_MOBILE}, {"type": "EMAIL", "value": EMAIL}],
    });
    assert_eq!(world.service.post("/v2/otp/generate", &body).await.status, 200);
    let code = world.service.code().await;
    let [key] = &messages(&world).await[..] else { panic!("one message") };
    let outcomes = world.deliver(key).await;
    assert_eq!(outcomes.len(), 2);
    let taken = world.providers.taken();
    for called in [Called::Text, Called::Email] {
        let received = taken.iter().find(|received| received.called == called).unwrap();
        assert!(received.text.contains(&code), "{received:?}");
    }
    assert!(world.service.is_right(&code).await);
}

/// The keys of all messages in the table.
async fn messages(world: &World) -> Vec<Key> {
    let items = world.service.client.scan().table_name(world.table.name()).send().await.unwrap().items;
    let key =
        |name: &str, item: &std::collections::HashMap<_, AttributeValue>| item[name].as_s().unwrap().clone();
    let keys = items.unwrap().into_iter().map(|item| Key { pk: key("PK", &item), sk: key("SK", &item) });
    keys.filter(|key| key.sk.starts_with("MESSAGE#")).collect()
}

#[tokio::test]
async fn a_delivered_message_is_not_sent_again_when_it_is_redelivered() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&json!([
        {"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}, {"type": "WHATSAPP", "value": MOBILE},
    ])).await;
    assert_eq!(world.deliver(&key).await.len(), 3);
    let states = world.states(&key).await;
    assert_eq!(world.deliver(&key).await, []);
    assert_eq!((world.providers.taken().len(), world.states(&key).await), (3, states));
}

#[tokio::test]
async fn nothing_is_sent_after_the_otp_has_expired_or_was_consumed() {
    let world = World::new(BY_AWS).await;
    let expired = world.put(&sms()).await;
    world.clock().advance(TimeDelta::seconds(300));
    assert_eq!(shown(&world.deliver(&expired).await), ["expired"]);
    let used = world.put(&sms()).await;
    world.consume(&used).await;
    assert_eq!(shown(&world.deliver(&used).await), ["used"]);
    assert_eq!(world.states(&expired).await, ["expired"]);
    assert_eq!(world.states(&used).await, ["used"]);
    let gone = world.put_for(6, &sms()).await;
    let otp = Key { pk: gone.pk.clone(), sk: keys::otp_of_message(&gone.sk).unwrap() };
    let delete = world.service.client.delete_item().table_name(world.table.name());
    delete.set_key(Some(otp.attributes())).send().await.unwrap();
    assert_eq!(shown(&world.deliver(&gone).await), ["expired"]);
    assert_eq!(world.providers.received().len(), 0);
}

#[tokio::test]
async fn a_message_whose_otp_expires_while_its_provider_is_silent_has_expired() {
    let world = World::new(BY_AWS).await;
    world.providers.reply(|_, _| Reply::Silent);
    let key = world.put(&sms()).await;
    world.clock().advance(TimeDelta::milliseconds(299_900));
    assert_eq!(shown(&world.deliver(&key).await), ["expired"]);
    assert_eq!(world.providers.received().len(), 1);
}

#[tokio::test]
async fn messages_of_the_first_version_and_of_orgs_without_delivery_are_left_alone() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let remove = world.service.client.update_item().table_name(world.table.name());
    let remove = remove.set_key(Some(key.attributes())).update_expression("REMOVE deliveries, valid_until");
    remove.send().await.unwrap();
    assert_eq!(world.deliver(&key).await, []);

    let mut definition = org(BY_AWS, "https://gateway.example/otp", "");
    definition.delivery = None;
    world.service.apply(&definition).await.unwrap();
    let key = world.put_for(6, &sms()).await;
    assert_eq!(world.deliver(&key).await, []);
    assert_eq!(world.states(&key).await, ["-"]);
    let missing = Key { pk: "ORG#966#USER#7".into(), ..key };
    assert_eq!(world.deliver(&missing).await, []);
    assert_eq!(world.providers.received().len(), 0);
}

#[tokio::test]
async fn a_channel_that_nobody_sends_fails_as_not_configured() {
    let world = World::new("SMS = \"aws\"").await;
    let key = world.put(&json!([{"type": "ZALO", "value": "x"}, {"type": "SMS", "value": MOBILE}])).await;
    assert_eq!(shown(&world.deliver(&key).await), ["failed: not_configured", "sent: id-1"]);
}

#[tokio::test]
async fn no_message_is_refused_because_of_what_the_org_was_before() {
    let world = World::with_config("EMAIL = \"aws\"", "CONF_OTP_MESSAGES_PER_HOUR = 1").await;
    let mut before = org(BY_AWS, "https://gateway.example/otp", "CONF_OTP_MESSAGES_PER_HOUR = 1");
    let deliver = async |user| shown(&world.deliver(&world.put_for(user, &sms()).await).await);
    assert_eq!(deliver(1).await, ["failed: not_configured"]);
    world.service.apply(&before).await.unwrap();
    assert_eq!(deliver(2).await, ["sent: id-1"]);
    assert_eq!(deliver(3).await, ["over_budget"]);
    world.service.apply(&org(BY_AWS, "https://gateway.example/otp", "")).await.unwrap();
    assert_eq!(deliver(4).await, ["sent: id-2"]);
    before.delivery = None;
    world.service.apply(&before).await.unwrap();
    assert_eq!(deliver(5).await, [""; 0]);
    world.service.apply(&org(BY_AWS, "https://gateway.example/otp", "")).await.unwrap();
    assert_eq!(deliver(6).await, ["sent: id-3"]);
}

#[tokio::test]
async fn a_corrupt_org_fails_its_records_until_it_is_repaired() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let set = async |version: AttributeValue| {
        let update = world.service.client.update_item().table_name(world.table.name());
        let update = update.set_key(Some(keys::org(ORG).attributes()));
        let update =
            update.update_expression("SET version = :version").return_values(ReturnValue::UpdatedOld);
        let updated = update.expression_attribute_values(":version", version).send().await.unwrap();
        updated.attributes.unwrap()["version"].clone()
    };
    let version = set(AttributeValue::S("corrupt".to_owned())).await;
    let handle = async || {
        let event = stream_event(std::slice::from_ref(&key));
        let deadline = SystemTime::now() + Duration::from_mins(1);
        serde_json::to_value(stream::handle(&world.deliverer, &event, deadline).await).unwrap()
    };
    assert_eq!(handle().await, json!({"batchItemFailures": [{"itemIdentifier": "100"}]}));
    assert_eq!(world.states(&key).await, ["-"]);
    set(version).await;
    assert_eq!(handle().await, json!({"batchItemFailures": []}));
    assert_eq!(world.states(&key).await, ["sent: id-1"]);
}

static SHOWN: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

fn show(channel: &Channel, message: &Message) {
    SHOWN.lock().unwrap().push(format!("{}: {}", channel.value, message.text.expose()));
}

#[tokio::test]
async fn a_process_may_send_all_channels_to_the_webhook_or_show_them() {
    let world = World::new(BY_AWS).await;
    let with_mode = |mode| {
        deliverer(world.service.store.clone(), world.clock().clock(), &world.providers).with_mode(mode)
    };
    let key = world.put(&sms()).await;
    let outcomes = with_mode(Mode::Webhook).deliver(&key).await.unwrap();
    assert!(shown(&outcomes)[0].starts_with("sent: msg_"), "{outcomes:?}");
    assert_eq!(world.providers.taken()[0].called, Called::Webhook);

    let key = world.put_for(6, &sms()).await;
    let outcomes = with_mode(Mode::Show(show)).deliver(&key).await.unwrap();
    assert_eq!(shown(&outcomes), ["sent: shown"]);
    assert_eq!(*SHOWN.lock().unwrap(), [format!("{MOBILE}: R&D: your OTP is {CODE}.")]);
    assert_eq!(world.providers.taken().len(), 1);
    assert_eq!(world.states(&key).await, ["sent: shown"]);
}

#[tokio::test]
async fn a_test_message_is_sent_with_the_texts_of_the_org() {
    let world = World::new(BY_AWS).await;
    let channel = Channel { channel_type: ChannelType::Sms, value: MOBILE.to_owned() };
    let send = |org| {
        let (deliverer, channel) = (world.deliverer.clone(), channel.clone());
        async move { deliverer.send_one(org, Scope::Points, &channel, &Code::stored("TEST123")).await.unwrap() }
    };
    let outcome = send(ORG).await.unwrap().outcome;
    assert_eq!(outcome, Outcome::Sent { provider_id: "id-1".to_owned() });
    let request = &world.providers.taken()[0].json;
    assert_eq!(request["MessageBody"], "Hi user.Your otp for validation is TEST123.");
    world.providers.reply(|_, _| Reply::error("ConflictException", "DESTINATION_PHONE_NUMBER_NOT_VERIFIED"));
    let failed = send(ORG).await.unwrap();
    assert_eq!(failed.outcome, Outcome::Failed(FailureReason::NotVerified));
    assert_eq!(failed.provider_code, "ConflictException/DESTINATION_PHONE_NUMBER_NOT_VERIFIED");
    assert!(send(OrgId(1)).await.is_none());
}
