use std::collections::HashSet;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::common::{MOBILE, demo, demo_with};

fn request() -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"})
}

/// The usual request with one changed field. `null` removes the field.
fn with(member: &str, value: Value) -> Value {
    let mut request = request();
    request[member] = value;
    request
}

#[tokio::test]
async fn the_documented_request_gets_a_time_ordered_number_and_no_code() {
    let (_table, service) = demo().await;
    let body = json!({
        "entityType": "MOBILE", "entityValue": "8799361139", "action": "POINTS",
        "source": "WECHAT", "accountId": "WECHAT-API1",
        "template": "Your OTP is {{ validation_code }}",
        "emailTemplate": {"subject": "Code", "body": "It is {{ validation_code }}"},
        "channels": [{"type": "SMS", "value": "8799361139"}, {"type": "email", "value": "tom@example.com"}],
    });
    let answer = service.post("/v2/otp/generate", &body).await;
    assert_eq!(answer.status, 200);
    let id = answer.json["createdId"].as_u64().unwrap();
    let issued_ms = u64::try_from(service.clock.now().timestamp_millis()).unwrap();
    assert_eq!(id / 1000, issued_ms);
    assert_eq!(answer.text, format!(r#"{{"createdId":{id},"warnings":[]}}"#));
}

#[tokio::test]
async fn every_identifier_of_a_customer_finds_the_same_otps() {
    let (_table, service) = demo().await;
    for (entity_type, value) in [
        ("MOBILE", "+91 87993 61139"),
        ("email", "TOM@example.com"),
        ("EXTERNAL_ID", "CARD-1"),
        ("WECHAT", "openid-1"),
    ] {
        let body = json!({"entityType": entity_type, "entityValue": value, "action": "POINTS"});
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200, "{entity_type}");
        assert!(service.is_right(&service.code().await).await);
    }
}

#[tokio::test]
async fn codes_follow_the_orgs_type_length_and_validity() {
    let config = "CONF_OTP_TYPE = \"NUMERIC\"\nCONF_OTP_LENGTH = 4\nCONF_OTP_VALIDITY_SECONDS = 60";
    let (_table, service) = demo_with(config).await;
    service.issue().await;
    let answer = service.fetch().await;
    let code = answer.json["code"].as_str().unwrap();
    assert!(code.len() == 4 && code.bytes().all(|b| b.is_ascii_digit()), "{code}");
    assert_eq!(answer.json["validUpto"], "2026-11-21T10:01:00+05:30");
}

#[tokio::test]
async fn two_otps_of_the_same_millisecond_both_exist() {
    let (_table, service) = demo().await;
    let ids: HashSet<u64> = [service.issue().await, service.issue().await].into();
    assert_eq!(ids.len(), 2);
    let first = service.code().await;
    assert!(service.is_right(&first).await);
    let second = service.code().await;
    assert_ne!(first, second);
    assert!(service.is_right(&second).await);
}

#[tokio::test]
async fn a_colliding_id_is_drawn_again() {
    // A millisecond has a thousand ids. Among 300 OTPs of one millisecond, dozens of random ids
    // collide.
    let (_table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1000").await;
    let mut ids = HashSet::new();
    for _ in 0..300 {
        ids.insert(service.issue().await);
    }
    assert_eq!(ids.len(), 300);
}

#[tokio::test]
async fn the_eleventh_otp_of_a_day_is_refused_until_the_orgs_midnight() {
    let (_table, service) = demo().await;
    for _ in 0..10 {
        service.issue().await;
    }
    let refused = service.post("/v2/otp/generate", &request()).await;
    assert_eq!(refused.refusal(), (429, vec![429]));
    assert_eq!(refused.retry_after(), 14 * 3600, "10:00 to midnight in Kolkata");
    let other_scope = service.post("/v2/otp/generate", &with("action", json!("COUPON"))).await;
    assert_eq!(other_scope.status, 429, "the limit is the customer's, not the scope's");

    service.clock.advance(TimeDelta::seconds(14 * 3600 - 1));
    assert_eq!(service.post("/v2/otp/generate", &request()).await.retry_after(), 1);
    service.clock.advance(TimeDelta::seconds(1));
    service.issue().await;
}

#[tokio::test]
async fn a_contact_has_its_own_daily_limit() {
    let (_table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
    service.issue().await;
    let body = with("action", json!("REGISTRATION"));
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 429);
}

#[tokio::test]
async fn an_omitted_account_id_of_the_only_account_causes_a_warning() {
    let (_table, service) = demo().await;
    let answer = service.post("/v2/otp/generate", &with("source", json!("martjack"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["warnings"][0]["code"], 8054);
}

#[tokio::test]
async fn each_invalid_field_has_its_error_code() {
    let (_table, service) = demo().await;
    let channels = |value: Value| with("channels", value);
    let eleven: Vec<Value> = (0..11).map(|_| json!({"type": "SMS", "value": MOBILE})).collect();
    for (body, status, codes) in [
        (with("action", Value::Null), 400, vec![600]),
        (with("action", json!("LUNCH")), 400, vec![600]),
        (with("action", json!(7)), 400, vec![600]),
        (with("entityType", json!("")), 400, vec![601]),
        (with("entityType", json!("PASSPORT")), 400, vec![601]),
        (with("entityValue", Value::Null), 400, vec![602]),
        (with("entityValue", json!(true)), 400, vec![602]),
        (with("entityValue", json!(8.8e9)), 400, vec![602]),
        (with("entityType", json!({})), 400, vec![601]),
        (with("entityValue", json!("12")), 400, vec![8056]),
        (json!({"entityType": "EMAIL", "entityValue": "tom", "action": "POINTS"}), 400, vec![8057]),
        (json!({}), 400, vec![600, 601, 602]),
        (channels(json!("SMS")), 400, vec![603]),
        (channels(json!(["SMS"])), 400, vec![603]),
        (channels(json!([{"type": "PIGEON", "value": "x"}])), 400, vec![603]),
        (channels(json!([{"type": "SMS"}])), 400, vec![603]),
        (channels(json!([{"type": "SMS", "value": "12"}])), 400, vec![603]),
        (channels(json!([{"type": "EMAIL", "value": "tom"}])), 400, vec![603]),
        (channels(json!(eleven)), 400, vec![603]),
        (with("template", json!(1)), 400, vec![400]),
        (with("template", json!("Your OTP is {{ code }}")), 400, vec![400]),
        (with("emailTemplate", json!({"body": "no place for it"})), 400, vec![400]),
        (with("emailTemplate", json!("text")), 400, vec![400]),
        (with("template", long(10_001).into()), 400, vec![400]),
        (with("emailTemplate", json!({"body": long(10_001)})), 400, vec![400]),
        (with("emailTemplate", json!({"subject": long(10_001)})), 400, vec![400]),
        (with("emailTemplate", json!({"subject": true})), 400, vec![400]),
        (with("emailTemplate", json!({"subject": "Code\r\nBcc: a@example.com"})), 400, vec![400]),
        (with("source", json!("TELEX")), 400, vec![8012]),
        (with("source", json!("WECHAT")), 400, vec![8091]),
        (with("accountId", json!("X")), 400, vec![8127]),
        (with("entityValue", json!("9999999999")), 404, vec![8015]),
    ] {
        let answer = service.post("/v2/otp/generate", &body).await;
        assert_eq!(answer.refusal(), (status, codes), "{body}");
    }
    assert_eq!(service.fetch().await.status, 404, "nothing was issued");
    let longest = with("template", long(10_000).into());
    assert_eq!(service.post("/v2/otp/generate", &longest).await.status, 200);
}

/// A template with this many characters.
fn long(characters: usize) -> String {
    format!("{:é<characters$}", "{{otp_code}}")
}

#[tokio::test]
async fn absent_null_and_empty_fields_are_equivalent() {
    let (_table, service) = demo().await;
    for member in ["source", "accountId", "template", "emailTemplate", "channels"] {
        for value in [Value::Null, json!("")] {
            service.clock.advance(TimeDelta::days(1));
            let answer = service.post("/v2/otp/generate", &with(member, value)).await;
            assert_eq!(answer.status, 200, "{member}");
        }
    }
    assert_eq!(service.post("/v2/otp/generate", &with("channels", json!([]))).await.status, 200);
}
