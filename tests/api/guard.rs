//! Where OTPs are sent, and how many of them: channels and addresses, texts, test identifiers,
//! quotas, the cooldown, and OTPs that are sent again.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use loyalty_codes::{api::App, model::till::Permission};
use serde_json::{Value, json};

use crate::{
    common::{Answer, Log, MOBILE, PASSWORD, TestService, TestTable, demo, demo_of, demo_org_and, demo_with},
    idempotency,
};

/// The end of an org's file whose messages are sent.
pub const DELIVERY: &str = r#"
    [delivery]
    SMS = "aws"
    EMAIL = "aws"
    PHONE = "aws"
    [delivery.aws]
    sms_origination = "LOYALTY"
    email_from = "otp@example.com"
    voice_origination = "+15550100"
"#;

/// An org whose messages are sent, with more lines in its `[config]`.
pub async fn sending(config: &str) -> (TestTable, TestService) {
    demo_of(&demo_org_and(&format!("{config}\n{DELIVERY}"))).await
}

/// A request for the demo customer, by mobile.
fn request(channels: &[(&str, &str)]) -> Value {
    request_for("MOBILE", MOBILE, "POINTS", channels)
}

pub fn request_for(entity_type: &str, value: &str, action: &str, channels: &[(&str, &str)]) -> Value {
    let channels: Vec<Value> = channels.iter().map(|(t, v)| json!({"type": t, "value": v})).collect();
    json!({"entityType": entity_type, "entityValue": value, "action": action, "channels": channels})
}

async fn generate(service: &TestService, body: &Value) -> Answer {
    service.post("/v2/otp/generate", body).await
}

async fn created_id(service: &TestService, body: &Value) -> u64 {
    let answer = generate(service, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["createdId"].as_u64().unwrap()
}

/// A stored message: its sort key, its channels and its texts.
#[derive(Debug)]
pub struct Stored {
    pub sk: String,
    pub channels: Vec<String>,
    pub text: String,
    subject: String,
    body: String,
    template_id: String,
}

pub async fn messages(table: &TestTable) -> Vec<Stored> {
    let items = table.items("MESSAGE#").await;
    let read = |item: &std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>| {
        let text = |name: &str| item[name].as_s().unwrap().clone();
        let channels: Vec<Value> = serde_json::from_str(&text("channels")).unwrap();
        let channel = |c: &Value| format!("{} {}", c["type"].as_str().unwrap(), c["value"].as_str().unwrap());
        Stored {
            sk: text("SK"),
            channels: channels.iter().map(channel).collect(),
            text: text("text"),
            subject: text("email_subject"),
            body: text("email_body"),
            template_id: text("sms_template_id"),
        }
    };
    items.iter().map(read).collect()
}

async fn only_message(table: &TestTable) -> Stored {
    let mut messages = messages(table).await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.pop().unwrap()
}

#[tokio::test]
async fn without_a_delivery_table_every_channel_is_accepted_and_no_message_is_stored() {
    let (table, service) = demo().await;
    let all = ["SMS", "MOBILE", "PHONE", "EMAIL", "WHATSAPP", "WECHAT", "ZALO", "BOTH"];
    let value = |channel| if channel == "EMAIL" { "tom@example.com" } else { MOBILE };
    let channels: Vec<_> = all.iter().map(|channel| (*channel, value(*channel))).collect();
    assert_eq!(generate(&service, &request(&channels)).await.status, 200);
    assert!(messages(&table).await.is_empty());
}

#[tokio::test]
async fn a_message_has_each_channel_and_address_once() {
    let (table, service) = sending("").await;
    let channels = [
        ("SMS", MOBILE),
        ("MOBILE", "+91 87993 61139"),
        ("sms", "918799361139"),
        ("PHONE", MOBILE),
        ("BOTH", MOBILE),
        ("email", "TOM@Example.com"),
    ];
    let id = created_id(&service, &request(&channels)).await;
    let message = only_message(&table).await;
    assert_eq!(message.sk, format!("MESSAGE#POINTS#{id:0>16}#00001"));
    let expected = ["SMS 918799361139", "PHONE 918799361139", "EMAIL tom@example.com"];
    assert_eq!(message.channels, expected, "BOTH brings the customer's e-mail address");
    assert!(message.text.contains(&service.code().await));
}

#[tokio::test]
async fn a_contact_has_no_other_address_than_entity_value() {
    let (table, service) = sending("").await;
    let body = request_for("EMAIL", "new@example.com", "REGISTRATION", &[("BOTH", "9010000022")]);
    assert_eq!(generate(&service, &body).await.status, 200);
    let body = request_for("MOBILE", "9010000033", "REGISTRATION", &[("BOTH", "9010000033")]);
    assert_eq!(generate(&service, &body).await.status, 200);
    let mut channels: Vec<_> = messages(&table).await.into_iter().map(|message| message.channels).collect();
    channels.sort();
    let expected = [vec!["SMS 919010000022", "EMAIL new@example.com"], vec!["SMS 919010000033"]];
    assert_eq!(channels, expected);
}

#[tokio::test]
async fn a_channel_or_a_country_that_the_org_does_not_send_to_is_603() {
    let (table, service) = sending("CONF_OTP_ALLOWED_COUNTRY_CODES = [\"91\", \"971\"]").await;
    for (channel, message) in [
        (("WHATSAPP", MOBILE), "The org sends no messages by a communication channel of the request"),
        (("WECHAT", "openid-1"), "The org sends no messages by a communication channel of the request"),
        (("SMS", "+44 7700 900123"), "The org sends no messages to the country of a mobile"),
        (("PHONE", "+1 555 010 0100"), "The org sends no messages to the country of a mobile"),
        (("BOTH", "+44 7700 900123"), "The org sends no messages to the country of a mobile"),
    ] {
        for body in [request(&[channel]), request_for("MOBILE", "9010000022", "REGISTRATION", &[channel])] {
            let answer = generate(&service, &body).await;
            assert_eq!(answer.refusal(), (400, vec![603]), "{channel:?}");
            assert_eq!(answer.json["errors"][0]["message"], message);
        }
    }
    let abroad = request_for("MOBILE", "9010000022", "REGISTRATION", &[("SMS", "+971 50 123 4567")]);
    assert_eq!(generate(&service, &abroad).await.status, 200);
    assert_eq!(messages(&table).await.len(), 1);
}

#[tokio::test]
async fn a_customers_otp_is_sent_to_the_customers_own_addresses_only() {
    let (table, service) = sending("").await;
    let body = json!({"profiles": [{"source": "WECHAT", "accountId": "WECHAT-API2", "identifiers": [
        {"type": "mobile", "value": "9010000022"}, {"type": "email", "value": "eve@example.com"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200, "another customer");
    service.create_till("issuer", 966, &[Permission::OtpIssue]).await;
    service.create_till("any", 966, &[Permission::OtpIssue, Permission::OtpIssueToAny]).await;
    let (issuer, any) = (service.as_till("issuer", PASSWORD), service.as_till("any", PASSWORD));

    for channel in [("SMS", "9010000022"), ("EMAIL", "eve@example.com"), ("PHONE", "9010000099")] {
        let body = request(&[("SMS", MOBILE), channel]);
        let refused = generate(&issuer, &body).await;
        assert_eq!(refused.refusal(), (403, vec![4000]), "{channel:?}");
        let message = "An address is not the customer's own, and the till may not send to any other";
        assert_eq!(refused.json["errors"][0]["message"], message);
    }
    assert_eq!(service.issued_otps().await, 0, "nothing was issued");
    assert!(messages(&table).await.is_empty());

    assert_eq!(generate(&any, &request(&[("SMS", "9010000022")])).await.status, 200);
    let own = [("SMS", MOBILE), ("EMAIL", "tom@example.com")];
    assert_eq!(generate(&issuer, &request(&own)).await.status, 200);
    let by_card = request_for("EXTERNAL_ID", "CARD-1", "POINTS", &own);
    assert_eq!(generate(&issuer, &by_card).await.status, 200);
    let registered = request_for("MOBILE", MOBILE, "GENERIC", &[("SMS", "9010000022")]);
    assert_eq!(generate(&issuer, &registered).await.refusal(), (403, vec![4000]));
    let unregistered = request_for("MOBILE", "9010000044", "GENERIC", &[("SMS", "9010000022")]);
    assert_eq!(generate(&issuer, &unregistered).await.status, 200, "a contact's may be sent anywhere");

    let elsewhere = |channel| request_for("MOBILE", "9010000022", "GENERIC", &[channel]);
    assert_eq!(generate(&issuer, &elsewhere(("SMS", "9010000099"))).await.refusal(), (403, vec![4000]));
    let own = generate(&issuer, &elsewhere(("EMAIL", "eve@example.com"))).await;
    assert_eq!(own.status, 200, "the address of the customer whom another account has");
    let registration = request_for("EMAIL", "new@example.com", "REGISTRATION", &[("SMS", "9010000055")]);
    assert_eq!(generate(&issuer, &registration).await.status, 200);
}

#[tokio::test]
async fn a_request_without_channels_is_sent_by_the_orgs_default_ones() {
    let (table, service) = sending("CONF_OTP_COMMUNICATE_VIA = [\"EMAIL\", \"SMS\"]").await;
    let sent = async |body: &Value| {
        let before = messages(&table).await.len();
        assert_eq!(generate(&service, body).await.status, 200, "{body}");
        service.clock.advance(TimeDelta::milliseconds(1));
        let mut messages = messages(&table).await;
        assert_eq!(messages.len(), before + 1);
        messages.retain(|message| message.sk.contains("#POINTS#") || message.sk.contains("#REGISTRATION#"));
        messages.pop().unwrap().channels
    };
    let both = ["EMAIL tom@example.com", "SMS 918799361139"];
    assert_eq!(sent(&request(&[])).await, both, "an empty array names none");
    let mut absent = request(&[]);
    absent["channels"] = Value::Null;
    assert_eq!(sent(&absent).await, both);
    let by_wechat = request_for("WECHAT", "openid-1", "POINTS", &[]);
    assert_eq!(sent(&by_wechat).await, both);
    assert_eq!(sent(&request(&[("PHONE", MOBILE)])).await, ["PHONE 918799361139"]);

    let contact = request_for("WECHAT", "openid-9", "REGISTRATION", &[]);
    let refused = generate(&service, &contact).await;
    assert_eq!(refused.refusal(), (400, vec![603]));
    assert_eq!(refused.json["errors"][0]["message"], "There is no address to send the OTP to");
}

#[tokio::test]
async fn the_address_that_was_added_last_is_the_default_one() {
    let (table, service) = sending("CONF_OTP_COMMUNICATE_VIA = [\"SMS\"]").await;
    let identifiers = json!([
        {"type": "mobile", "value": "9010000022"}, {"type": "mobile", "value": "9010000033"},
        {"type": "externalId", "value": "CARD-2"},
    ]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    assert_eq!(generate(&service, &request_for("EXTERNAL_ID", "CARD-2", "POINTS", &[])).await.status, 200);
    assert_eq!(only_message(&table).await.channels, ["SMS 919010000033"]);
}

#[tokio::test]
async fn texts_are_of_the_request_or_else_of_the_scope_or_the_org_or_built_in() {
    let templates = r#"
        [templates.default]
        text = "default {{ otp_code }}"
        sms_template_id = "1007"
        email_subject = "default"
        [templates.POINTS]
        text = "points {{otp_code}}"
    "#;
    let (table, service) = demo_of(&demo_org_and(&format!("{DELIVERY}{templates}"))).await;
    let mut coupon = request_for("MOBILE", MOBILE, "COUPON", &[("SMS", MOBILE)]);
    let mut points = request(&[("SMS", MOBILE)]);
    points["emailTemplate"] = json!({"body": "own {{ validation_code }}"});
    for body in [&coupon, &points] {
        assert_eq!(generate(&service, body).await.status, 200);
    }
    let code = service.code().await;
    let found = messages(&table).await;
    let [by_default, of_scope] = &found[..] else { panic!("{found:?}") };
    assert!(by_default.text.starts_with("default "), "{by_default:?}");
    assert_eq!((by_default.subject.as_str(), by_default.template_id.as_str()), ("default", "1007"));
    assert!(by_default.body.starts_with("Dear Customer"), "{by_default:?}");
    assert_eq!(of_scope.text, format!("points {code}"));
    assert_eq!(of_scope.body, format!("own {code}"));
    assert_eq!(of_scope.template_id, "", "the registered text is another one");

    coupon["template"] = json!("mine {{ otp_code }}");
    service.clock.advance(TimeDelta::seconds(1));
    assert_eq!(generate(&service, &coupon).await.status, 200);
    let found = messages(&table).await;
    let newest = found.iter().rfind(|message| message.sk.contains("COUPON")).unwrap();
    assert!(newest.text.starts_with("mine ") && newest.template_id.is_empty(), "{newest:?}");
}

#[tokio::test]
async fn a_test_identifier_has_its_code_and_gets_no_message() {
    let tests = "[test_identifiers]\n\"919999900001\" = \"1234567\"\n\"review@example.com\" = \"REVIEW1\"";
    let config = "CONF_OTP_RATE_LIMIT_ONE_HOUR = 1\nCONF_OTP_COMMUNICATE_VIA = [\"SMS\"]";
    let (table, service) = demo_of(&demo_org_and(&format!("{config}{DELIVERY}{tests}"))).await;
    let test = request_for("MOBILE", "+91 99999 00001", "REGISTRATION", &[("EMAIL", "tom@example.com")]);
    for body in [&test, &request_for("MOBILE", "9999900001", "REGISTRATION", &[])] {
        assert_eq!(generate(&service, body).await.status, 200);
        let url = "/v2/otp?source=INSTORE&mobile=9999900001&scope=REGISTRATION";
        assert_eq!(service.get(url).await.json["code"], "1234567");
    }
    assert!(messages(&table).await.is_empty(), "nothing is sent of a test identifier's OTP");

    let channels = [("EMAIL", "review@example.com"), ("SMS", MOBILE)];
    assert_eq!(generate(&service, &request(&channels)).await.status, 200);
    assert_ne!(service.code().await, "REVIEW1", "only entityValue gives the code");
    assert_eq!(only_message(&table).await.channels, ["SMS 918799361139"]);
    let only_test = request(&[("EMAIL", "review@example.com")]);
    assert_eq!(generate(&service, &only_test).await.status, 200);
    assert_eq!(generate(&service, &only_test).await.status, 200, "it has no hourly limit");
    assert_eq!(messages(&table).await.len(), 1);
}

#[tokio::test]
async fn a_generally_known_code_is_not_sent_again_to_others() {
    let tests = "[test_identifiers]\n\"review@example.com\" = \"REVIEW1\"";
    let config = "CONF_OTP_REISSUE = \"SAME\"";
    let (table, service) = demo_of(&demo_org_and(&format!("{config}{DELIVERY}{tests}"))).await;
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [
        {"type": "mobile", "value": "9010000022"}, {"type": "email", "value": "review@example.com"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    let by_test = request_for("EMAIL", "review@example.com", "POINTS", &[]);
    let by_mobile = request_for("MOBILE", "9010000022", "POINTS", &[("SMS", "9010000022")]);
    let test = created_id(&service, &by_test).await;
    assert_eq!(created_id(&service, &by_test).await, test);
    let own = created_id(&service, &by_mobile).await;
    assert_ne!(own, test);
    assert!(!only_message(&table).await.text.contains("REVIEW1"));
    assert_eq!(created_id(&service, &by_test).await, test, "a test identifier always has the same code");
    assert_eq!(created_id(&service, &by_mobile).await, own);
}

#[tokio::test]
async fn an_address_gets_no_more_otps_in_an_hour_than_the_org_allows() {
    let (_table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 3").await;
    service.clock.advance(TimeDelta::minutes(25));
    let customers = request(&[("SMS", MOBILE), ("PHONE", MOBILE)]);
    assert_eq!(generate(&service, &customers).await.status, 200, "counts once");
    let other_scope = request_for("WECHAT", "openid-1", "COUPON", &[("SMS", MOBILE)]);
    assert_eq!(generate(&service, &other_scope).await.status, 200);
    let contacts = request_for("EMAIL", "new@example.com", "REGISTRATION", &[("SMS", MOBILE)]);
    assert_eq!(generate(&service, &contacts).await.status, 200);

    let both = request(&[("EMAIL", "tom@example.com"), ("SMS", MOBILE)]);
    for body in [&customers, &both] {
        let refused = generate(&service, body).await;
        assert_eq!(refused.refusal(), (429, vec![429]));
        assert_eq!(refused.retry_after(), 5 * 60, "4:55 to 5:00 in UTC");
        let message = "The OTPs of the hour are used up for an address";
        assert_eq!(refused.json["errors"][0]["message"], message);
    }
    assert_eq!(service.issued_otps().await, 1, "nothing was issued to the other address");
    assert_eq!(generate(&service, &request(&[])).await.status, 200, "what is sent nowhere does not count");
    for _ in 0..3 {
        let other = request(&[("EMAIL", "tom@example.com")]);
        assert_eq!(generate(&service, &other).await.status, 200, "the refused one did not count");
    }
    service.clock.advance(TimeDelta::minutes(5));
    assert_eq!(generate(&service, &customers).await.status, 200);
}

#[tokio::test]
async fn a_contact_has_one_daily_limit_in_all_accounts() {
    let (_table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 3").await;
    let contact = |source: &str, account: &str, mobile: &str, channels: &[(&str, &str)]| {
        let mut body = request_for("MOBILE", mobile, "REGISTRATION", channels);
        (body["source"], body["accountId"]) = (json!(source), json!(account));
        body
    };
    for (source, account, mobile) in [
        ("INSTORE", "", "9010000022"),
        ("WECHAT", "WECHAT-API1", "+91 90100 00022"),
        ("WECHAT", "WECHAT-API2", "919010000022"),
    ] {
        assert_eq!(generate(&service, &contact(source, account, mobile, &[])).await.status, 200);
    }
    let refused = generate(&service, &contact("MARTJACK", "SHOP", "9010000022", &[])).await;
    assert_eq!(refused.refusal(), (429, vec![429]));
    assert_eq!(refused.retry_after(), 14 * 3600, "10:00 to midnight in Kolkata");
    let generic = request_for("MOBILE", "9010000022", "GENERIC", &[]);
    assert_eq!(generate(&service, &generic).await.status, 429, "whatever the scope");
    let to_the_same = contact("INSTORE", "", "9010000033", &[("SMS", "9010000022")]);
    assert_eq!(generate(&service, &to_the_same).await.status, 429, "each address counts");
    let another = contact("INSTORE", "", "9010000033", &[("SMS", "9010000033")]);
    assert_eq!(generate(&service, &another).await.status, 200);
    service.clock.advance(TimeDelta::hours(14));
    assert_eq!(generate(&service, &contact("MARTJACK", "SHOP", "9010000022", &[])).await.status, 200);
}

#[tokio::test]
async fn the_longest_wait_is_answered_when_several_limits_are_reached() {
    let (_table, service) = sending("CONF_OTP_DAILY_LIMIT = 1\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 1").await;
    let body = request(&[("SMS", MOBILE)]);
    assert_eq!(generate(&service, &body).await.status, 200);
    assert_eq!(generate(&service, &body).await.retry_after(), 14 * 3600);
    // The day ends at 18:30 in UTC, in the middle of an hour.
    service.clock.advance(TimeDelta::minutes(13 * 60 + 45));
    let other = request_for("MOBILE", MOBILE, "GENERIC", &[("EMAIL", "tom@example.com")]);
    assert_eq!(generate(&service, &other).await.retry_after(), 15 * 60, "the day is used up");
}

#[tokio::test]
async fn between_two_otps_of_a_customer_and_scope_the_cooldown_passes() {
    let (_table, service) = demo_with("CONF_OTP_COOLDOWN_SECONDS = 30").await;
    service.issue().await;
    service.clock.advance(TimeDelta::milliseconds(9_500));
    let refused = generate(&service, &request(&[])).await;
    assert_eq!(refused.refusal(), (429, vec![429]));
    assert_eq!(refused.retry_after(), 21, "rounded up");
    assert_eq!(refused.json["errors"][0]["message"], "The last OTP was issued a moment ago");
    let by_email = request_for("EMAIL", "tom@example.com", "POINTS", &[]);
    assert_eq!(generate(&service, &by_email).await.status, 429, "it is the same customer");
    let other_scope = request_for("MOBILE", MOBILE, "COUPON", &[]);
    assert_eq!(generate(&service, &other_scope).await.status, 200);
    let contact = request_for("MOBILE", MOBILE, "REGISTRATION", &[]);
    assert_eq!(generate(&service, &contact).await.status, 200);
    assert_eq!(generate(&service, &contact).await.status, 429, "contacts have a cooldown, too");

    assert!(service.is_right(&service.code().await).await);
    assert_eq!(generate(&service, &request(&[])).await.status, 429, "also after the OTP was used");
    service.clock.advance(TimeDelta::milliseconds(20_500));
    service.issue().await;
    assert_eq!(service.issued_otps().await, 2, "refused requests issued nothing");
}

/// Applies other lines of `[config]`, and waits until every process uses them.
async fn reconfigure(service: &TestService, config: &str) {
    service.apply(&demo_org_and(config)).await.unwrap();
    service.clock.advance(TimeDelta::seconds(60));
}

#[tokio::test]
async fn a_cooldown_may_be_switched_on_and_off() {
    let (_table, service) = demo_with("CONF_OTP_COOLDOWN_SECONDS = 600").await;
    service.issue().await;
    reconfigure(&service, "").await;
    service.issue().await;
    service.issue().await;
    reconfigure(&service, "CONF_OTP_COOLDOWN_SECONDS = 100").await;
    let refused = generate(&service, &request(&[])).await;
    assert_eq!(refused.retry_after(), 40, "from an OTP that was issued without a cooldown");
    service.clock.advance(TimeDelta::seconds(40));
    service.issue().await;
}

const SAME: &str = "CONF_OTP_REISSUE = \"SAME\"";

#[tokio::test]
async fn a_valid_otp_is_sent_again_by_the_channels_and_with_the_texts_of_the_new_request() {
    let (table, service) = sending(SAME).await;
    let first = created_id(&service, &request(&[("SMS", MOBILE)])).await;
    let fetched = service.fetch().await;
    service.clock.advance(TimeDelta::seconds(200));
    let mut again = request(&[("EMAIL", "tom@example.com")]);
    again["emailTemplate"] = json!({"subject": "Again", "body": "again: {{ otp_code }}"});
    assert_eq!(created_id(&service, &again).await, first);
    assert_eq!(service.fetch().await.text, fetched.text, "the same code until the same time");

    let found = messages(&table).await;
    let [one, two] = &found[..] else { panic!("{found:?}") };
    let key = |send| format!("MESSAGE#POINTS#{first:0>16}#0000{send}");
    assert_eq!((&one.sk, &two.sk), (&key(1), &key(2)));
    assert_eq!(two.channels, ["EMAIL tom@example.com"]);
    assert_eq!(two.body, format!("again: {}", fetched.json["code"].as_str().unwrap()));
    assert_eq!(two.subject, "Again");

    service.clock.advance(TimeDelta::seconds(40));
    assert_eq!(created_id(&service, &request(&[])).await, first, "a minute is left");
    service.clock.advance(TimeDelta::seconds(1));
    let second = created_id(&service, &request(&[("SMS", MOBILE)])).await;
    assert_ne!(second, first, "less than a minute is left");
    assert!(service.is_right(&service.code().await).await, "the newer one");
    assert_ne!(created_id(&service, &request(&[])).await, second, "a used one is not sent again");
}

#[tokio::test]
async fn sending_again_counts_in_every_limit_and_in_the_cooldown() {
    let config = format!("{SAME}\nCONF_OTP_COOLDOWN_SECONDS = 10\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 2");
    let (_table, service) = sending(&config).await;
    let body = request(&[("SMS", MOBILE)]);
    let first = created_id(&service, &body).await;
    assert_eq!(generate(&service, &body).await.retry_after(), 10);
    service.clock.advance(TimeDelta::seconds(10));
    assert_eq!(created_id(&service, &body).await, first);
    service.clock.advance(TimeDelta::seconds(9));
    assert_eq!(generate(&service, &body).await.retry_after(), 1, "from when it was sent again");
    service.clock.advance(TimeDelta::seconds(1));
    assert_eq!(generate(&service, &body).await.retry_after(), 30 * 60 - 20, "two in this hour");

    let (_table, service) = demo_with(&format!("{SAME}\nCONF_OTP_DAILY_LIMIT = 2")).await;
    assert_eq!(service.issue().await, service.issue().await);
    assert_eq!(generate(&service, &request(&[])).await.retry_after(), 14 * 3600);
}

#[tokio::test]
async fn same_may_be_switched_on_and_off() {
    let (table, service) = demo_with("CONF_OTP_VALIDITY_SECONDS = 3600").await;
    let older = service.issue().await;
    service.clock.advance(TimeDelta::seconds(1));
    let newer = service.issue().await;
    assert!(table.items("OTP#POINTS#LAST").await.is_empty(), "plain orgs do not write it");
    let same = format!("{SAME}\nCONF_OTP_VALIDITY_SECONDS = 3600");
    reconfigure(&service, &same).await;
    assert_eq!(service.issue().await, newer);
    assert!(service.is_right(&service.code().await).await);
    assert_eq!(service.issue().await, older, "a used one does not hide an older one");
    reconfigure(&service, "").await;
    let newest = service.issue().await;
    assert!(newest > newer);
    reconfigure(&service, &same).await;
    assert_eq!(service.issue().await, newest);
}

#[tokio::test]
async fn a_repeated_request_with_a_key_counts_in_no_limit() {
    let config = format!("{SAME}\nCONF_OTP_COOLDOWN_SECONDS = 60\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 2");
    let (table, service) = sending(&config).await;
    let body = request(&[("SMS", MOBILE)]);
    let send = async |key| idempotency::send(&service, "/v2/otp/generate", key, &body).await;
    let first = send("a").await;
    assert_eq!(first.status, 200);
    for _ in 0..3 {
        assert_eq!(send("a").await.text, first.text, "within the cooldown");
    }
    assert_eq!(send("b").await.refusal(), (429, vec![429]));
    service.clock.advance(TimeDelta::seconds(60));
    let again = send("b").await;
    assert_eq!(again.text, first.text, "a refused key is judged anew: the OTP is sent again");
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(send("c").await.status, 429, "the hour's two are used up");
    assert_eq!(send("b").await.text, first.text);
    assert_eq!(messages(&table).await.len(), 2);
}

#[tokio::test]
async fn a_wrong_address_is_refused_before_any_limit() {
    let (_table, service) = sending("CONF_OTP_COOLDOWN_SECONDS = 60\nCONF_OTP_DAILY_LIMIT = 1").await;
    service.create_till("issuer", 966, &[Permission::OtpIssue]).await;
    let issuer = service.as_till("issuer", PASSWORD);
    let order = [
        (request(&[("ZALO", "x")]), (400, vec![603])),
        (request(&[("SMS", "9010000022")]), (403, vec![4000])),
        (request(&[("SMS", MOBILE)]), (429, vec![429])),
    ];
    assert_eq!(generate(&issuer, &request(&[("SMS", MOBILE)])).await.status, 200);
    for (body, expected) in order {
        assert_eq!(generate(&issuer, &body).await.refusal(), expected, "{body}");
    }
    assert_eq!(generate(&issuer, &request(&[])).await.retry_after(), 60, "the cooldown comes first");
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(generate(&issuer, &request(&[])).await.retry_after(), 14 * 3600 - 60);
}

#[tokio::test]
async fn the_listener_of_a_process_gets_the_key_of_every_message() {
    let (table, service) = sending(SAME).await;
    let stored = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&stored);
    let app = App::new(service.store.clone(), service.clock.clock());
    let app = app.with_message_listener(move |key| record.lock().unwrap().push(key.sk));
    let service = TestService { app: Arc::new(app), ..service };
    for channels in [&[("SMS", MOBILE)][..], &[("SMS", MOBILE), ("EMAIL", "tom@example.com")], &[]] {
        assert_eq!(generate(&service, &request(channels)).await.status, 200);
    }
    let found = messages(&table).await;
    assert_eq!(found.iter().map(|message| message.channels.len()).collect::<Vec<_>>(), [1, 2]);
    let keys: Vec<&str> = found.iter().map(|message| message.sk.as_str()).collect();
    assert_eq!(*stored.lock().unwrap(), keys);
}

#[tokio::test]
async fn no_address_and_no_code_is_logged() {
    let config = format!(
        "{SAME}\nCONF_OTP_COOLDOWN_SECONDS = 1\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 2\n\
         CONF_OTP_ALLOWED_COUNTRY_CODES = [\"91\"]\nCONF_OTP_COMMUNICATE_VIA = [\"EMAIL\"]"
    );
    let tests = "[test_identifiers]\n\"919999900001\" = \"1234567\"";
    let (table, service) = demo_of(&demo_org_and(&format!("{config}{DELIVERY}{tests}"))).await;
    service.create_till("issuer", 966, &[Permission::OtpIssue, Permission::OtpFetch]).await;
    let service = service.as_till("issuer", PASSWORD);
    let (log, guard) = Log::record();
    let mut statuses = Vec::new();
    for body in [
        request(&[("SMS", MOBILE), ("EMAIL", "tom@example.com")]),
        request(&[]),
        request(&[("SMS", "9010000022")]),
        request(&[("SMS", "+44 7700 900123")]),
        request_for("MOBILE", "9999900001", "REGISTRATION", &[("SMS", "9999900001")]),
        request_for("EMAIL", "new@example.com", "REGISTRATION", &[("SMS", "9010000033")]),
    ] {
        statuses.push(generate(&service, &body).await.status);
        service.clock.advance(TimeDelta::milliseconds(500));
    }
    assert_eq!(statuses, [200, 429, 403, 400, 200, 200]);
    let code = service.code().await;
    for _ in 0..2 {
        statuses.push(generate(&service, &request(&[])).await.status);
        service.clock.advance(TimeDelta::seconds(1));
    }
    assert_eq!(statuses[6..], [200, 429]);
    table.client().delete_table().table_name(table.name()).send().await.unwrap();
    assert_eq!(generate(&service, &request(&[("EMAIL", "tom@example.com")])).await.status, 500);
    drop(guard);
    let text = log.text();
    for secret in [
        MOBILE, "9010000022", "7700900123", "7700 900123", "9999900001", "1234567", "new@example.com",
        "9010000033", "tom@example.com", &code,
    ] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
}
