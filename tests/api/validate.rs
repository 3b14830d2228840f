use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::{
    common::{
        Answer, MOBILE, TestService, demo, demo_with,
        faults::{Fault, with_fault_proxy},
    },
    idempotency,
};

async fn validate_with_key(service: &TestService, key: &str, code: &str) -> Answer {
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": code});
    idempotency::send(service, "/v2/otp/validate", key, &body).await
}

#[tokio::test]
async fn a_right_code_is_true_once_and_then_false() {
    let (_table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    let answer = service.validate(&code).await;
    assert_eq!(answer.text, r#"{"entity":true,"warnings":[]}"#);
    assert_eq!(service.validate(&code).await.text, r#"{"entity":false,"warnings":[]}"#);
    assert_eq!(service.fetch().await.status, 404, "a consumed OTP must not be fetched");
}

#[tokio::test]
async fn letters_are_compared_in_any_case() {
    let (_table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    assert!(service.is_right(&format!(" {} ", code.to_lowercase())).await);
}

#[tokio::test]
async fn an_older_valid_code_is_right_too() {
    let (_table, service) = demo().await;
    service.issue().await;
    let older = service.code().await;
    service.clock.advance(TimeDelta::seconds(1));
    service.issue().await;
    let newer = service.code().await;
    assert!(service.is_right(&older).await);
    assert!(service.is_right(&newer).await);
}

#[tokio::test]
async fn a_code_that_two_otps_have_by_chance_is_true_once() {
    let (table, service) = demo().await;
    for _ in 0..2 {
        service.issue().await;
        service.clock.advance(TimeDelta::seconds(1));
    }
    let code = service.code().await;
    for item in table.items("OTP#").await {
        let update = table.client().update_item().table_name(table.name());
        let update = update.key("PK", item["PK"].clone()).key("SK", item["SK"].clone());
        let update = update.update_expression("SET code = :code");
        update.expression_attribute_values(":code", AttributeValue::S(code.clone())).send().await.unwrap();
    }
    assert!(service.is_right(&code).await);
    assert!(!service.is_right(&code).await);
}

#[tokio::test]
async fn an_expired_code_and_that_of_another_scope_are_wrong() {
    let (_table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    let elsewhere = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "COUPON", "code": code});
    assert_eq!(service.post("/v2/otp/validate", &elsewhere).await.json["entity"], false);
    service.clock.advance(TimeDelta::seconds(300));
    assert!(!service.is_right(&code).await);
}

#[tokio::test]
async fn after_five_failed_attempts_even_a_right_code_is_refused() {
    let (_table, service) = demo().await;
    service.issue().await;
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
        service.clock.advance(TimeDelta::seconds(1));
    }
    service.issue().await;
    let code = service.code().await;
    let refused = service.validate(&code).await;
    assert_eq!(refused.refusal(), (429, vec![429]), "a new OTP must not reset the failed attempts");
    assert_eq!(refused.retry_after(), 895);

    let other_scope = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "COUPON", "code": "X"});
    assert_eq!(
        service.post("/v2/otp/validate", &other_scope).await.status,
        200,
        "the limit counts for each scope"
    );

    service.clock.advance(TimeDelta::seconds(894));
    assert_eq!(service.validate("WRONG").await.retry_after(), 1);
    service.clock.advance(TimeDelta::seconds(1));
    assert!(!service.is_right("WRONG").await, "the first of the five is fifteen minutes old");
    assert_eq!(service.validate("WRONG").await.status, 429, "the second failed attempt still counts");
}

#[tokio::test]
async fn right_codes_do_not_count_as_failed_attempts() {
    let (_table, service) = demo().await;
    for _ in 0..8 {
        service.issue().await;
        assert!(service.is_right(&service.code().await).await);
    }
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
    }
    assert_eq!(service.validate("WRONG").await.status, 429);
}

#[tokio::test]
async fn the_org_configures_the_limit_and_the_window_of_failed_attempts() {
    let config = "CONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 2\nCONF_OTP_VALIDATE_RATE_LIMIT_MINUTE = 1";
    let (_table, service) = demo_with(config).await;
    assert!(!service.is_right("A").await);
    assert!(!service.is_right("B").await);
    assert_eq!(service.validate("C").await.retry_after(), 60);
    service.clock.advance(TimeDelta::seconds(60));
    assert!(!service.is_right("C").await);
}

#[tokio::test]
async fn a_contacts_registration_otp_is_validated() {
    let (_table, service) = demo().await;
    let contact = json!({"entityType": "MOBILE", "entityValue": "9000000001", "action": "REGISTRATION"});
    assert_eq!(service.post("/v2/otp/generate", &contact).await.status, 200);
    let fetched = service.get("/v2/otp?source=INSTORE&mobile=9000000001&scope=REGISTRATION").await;
    let mut body = contact.clone();
    body["code"] = fetched.json["code"].clone();
    assert_eq!(service.post("/v2/otp/validate", &body).await.json["entity"], true);
}

#[tokio::test]
async fn each_invalid_field_has_its_error_code_and_is_no_failed_attempt() {
    let (_table, service) = demo().await;
    let base = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": "X"});
    let with = |member: &str, value: Value| {
        let mut body = base.clone();
        body[member] = value;
        body
    };
    for (body, status, codes) in [
        (with("code", Value::Null), 400, vec![604]),
        (with("code", json!(" ")), 400, vec![604]),
        (with("code", json!("\u{200b}-")), 400, vec![604]),
        (with("code", json!(1234.5)), 400, vec![604]),
        (with("code", json!(["538AD87"])), 400, vec![604]),
        (with("action", json!("LUNCH")), 400, vec![600]),
        (with("entityType", Value::Null), 400, vec![601]),
        (with("entityValue", json!("")), 400, vec![602]),
        (with("entityValue", json!("x")), 400, vec![8056]),
        (json!({}), 400, vec![600, 601, 602, 604]),
        (with("entityValue", json!("9999999999")), 404, vec![8015]),
    ] {
        assert_eq!(service.post("/v2/otp/validate", &body).await.refusal(), (status, codes), "{body}");
    }
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
    }
}

#[tokio::test]
async fn only_with_the_same_key_is_a_right_code_true_again() {
    let (table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    for _ in 0..8 {
        let answer = validate_with_key(&table.service("store.server"), "key-1", &code).await;
        assert_eq!(answer.text, r#"{"entity":true,"warnings":[]}"#);
    }
    assert_eq!(
        validate_with_key(&service, "key-2", &code).await.json["entity"],
        false,
        "another key is another request"
    );
    assert!(!service.is_right(&code).await);
}

#[tokio::test]
async fn a_failed_attempt_with_a_key_counts_once_however_often_it_is_sent() {
    let (_table, service) = demo().await;
    for _ in 0..20 {
        assert_eq!(validate_with_key(&service, "key-1", "WRONG").await.json["entity"], false);
    }
    for _ in 0..4 {
        assert!(!service.is_right("WRONG").await);
    }
    assert_eq!(service.validate("WRONG").await.status, 429);
    assert_eq!(
        validate_with_key(&service, "key-1", "WRONG").await.json["entity"],
        false,
        "the key has a stored response"
    );
}

#[tokio::test]
async fn a_429_is_not_stored_under_the_key() {
    let (_table, service) = demo().await;
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
    }
    assert_eq!(validate_with_key(&service, "key-1", "WRONG").await.refusal(), (429, vec![429]));
    service.clock.advance(TimeDelta::minutes(15));
    service.issue().await;
    let code = service.code().await;
    assert_eq!(validate_with_key(&service, "key-1", &code).await.json["entity"], true);
}

/// A validation that lost a race is evaluated again, at its new time.
#[tokio::test]
async fn a_code_that_expires_during_a_lost_race_is_false() {
    let (table, plain) = demo().await;
    plain.issue().await;
    let code = plain.code().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let clock = plain.clock.clone();
    let mut conflict = Some(Fault::cancelled(&["None", "ConditionalCheckFailed"]));
    faults.inject(move |operation, _| {
        let conflict = conflict.take_if(|_| operation == "TransactWriteItems")?;
        clock.advance(TimeDelta::seconds(300));
        Some(conflict)
    });
    assert!(!service.is_right(&code).await);
}

#[tokio::test]
async fn a_failed_attempt_counts_from_the_time_of_its_evaluation() {
    let (table, plain) = demo_with("CONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 1").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let clock = plain.clock.clone();
    // The OTPs are read five minutes after the request arrived.
    faults.inject(move |operation, _| {
        if operation == "Query" {
            clock.advance(TimeDelta::minutes(5));
        }
        None
    });
    assert!(!service.is_right("WRONG").await);
    assert_eq!(plain.validate("WRONG").await.retry_after(), 900);
}
