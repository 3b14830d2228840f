//! OTPs for GENERIC, USERGROUP and SUBSCRIPTION. They belong to the customer if the identifier is registered
//! and to the contact otherwise, and registering in between loses none of them.

use serde_json::{Value, json};

use crate::{
    common::{Answer, TestService, USER, demo, faults::behind_faults},
    idempotency::while_held,
};

const STRANGER: &str = "9010000099";

fn body(mobile: &str, scope: &str, code: &str) -> Value {
    json!({"entityType": "MOBILE", "entityValue": mobile, "action": scope, "code": code})
}

async fn issue(service: &TestService, mobile: &str, scope: &str) -> Answer {
    service.post("/v2/otp/generate", &body(mobile, scope, "")).await
}

async fn fetch(service: &TestService, mobile: &str, scope: &str) -> Answer {
    service.get(&format!("/v2/otp?source=INSTORE&mobile={mobile}&scope={scope}")).await
}

async fn validate(service: &TestService, mobile: &str, scope: &str, code: &str) -> Answer {
    service.post("/v2/otp/validate", &body(mobile, scope, code)).await
}

async fn register(service: &TestService, mobile: &str) -> u64 {
    let identifiers = json!([{"type": "mobile", "value": mobile}]);
    let profiles = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    let answer = service.post("/v2/customers", &profiles).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["createdId"].as_u64().unwrap()
}

fn code(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stranger_gets_an_otp_where_the_scope_allows_it_and_no_user_id() {
    let (_table, service) = demo().await;
    for scope in ["GENERIC", "USERGROUP", "SUBSCRIPTION"] {
        assert_eq!(fetch(&service, STRANGER, scope).await.refusal(), (404, vec![9001]), "{scope}");
        assert_eq!(issue(&service, STRANGER, scope).await.status, 200, "{scope}");
        let fetched = fetch(&service, STRANGER, scope).await;
        assert_eq!(fetched.json["userId"], Value::Null, "{scope}");
        let right = validate(&service, STRANGER, scope, &code(&fetched)).await;
        assert_eq!(right.json["entity"], true, "{scope}");
    }
    for scope in ["POINTS", "COUPON", "POINTSTRANSFER", "CUSTOMER_STATUS_UPDATE"] {
        assert_eq!(issue(&service, STRANGER, scope).await.refusal(), (404, vec![8015]), "{scope}");
        assert_eq!(fetch(&service, STRANGER, scope).await.refusal(), (404, vec![8015]), "{scope}");
        assert_eq!(validate(&service, STRANGER, scope, "X").await.refusal(), (404, vec![8015]), "{scope}");
    }
}

#[tokio::test]
async fn a_registered_customer_owns_the_otp() {
    let (_table, service) = demo().await;
    assert_eq!(issue(&service, crate::common::MOBILE, "GENERIC").await.status, 200);
    let by_email = "/v2/otp?source=INSTORE&email=tom@example.com&scope=GENERIC";
    let fetched = service.get(by_email).await;
    assert_eq!(fetched.json["userId"], USER, "the OTP is the customer's, whichever identifier is used");
}

#[tokio::test]
async fn registering_in_between_loses_no_otp() {
    let (_table, service) = demo().await;
    issue(&service, STRANGER, "GENERIC").await;
    let before = fetch(&service, STRANGER, "GENERIC").await;
    let user = register(&service, STRANGER).await;
    assert_eq!(fetch(&service, STRANGER, "GENERIC").await.text, before.text, "it is still the contact's");

    // A newer one is the customer's, and hides the older one in a fetch only.
    service.clock.advance(chrono::TimeDelta::seconds(1));
    issue(&service, STRANGER, "GENERIC").await;
    let after = fetch(&service, STRANGER, "GENERIC").await;
    assert_eq!(after.json["userId"], user);
    assert_ne!(code(&after), code(&before));
    for answer in [&before, &after] {
        assert_eq!(validate(&service, STRANGER, "GENERIC", &code(answer)).await.json["entity"], true);
        assert_eq!(validate(&service, STRANGER, "GENERIC", &code(answer)).await.json["entity"], false);
    }
}

#[tokio::test]
async fn registering_gives_no_second_set_of_attempts() {
    let (_table, service) = demo().await;
    issue(&service, STRANGER, "GENERIC").await;
    let right = code(&fetch(&service, STRANGER, "GENERIC").await);
    for _ in 0..3 {
        assert_eq!(validate(&service, STRANGER, "GENERIC", "WRONG").await.json["entity"], false);
    }
    register(&service, STRANGER).await;
    for _ in 0..2 {
        assert_eq!(validate(&service, STRANGER, "GENERIC", "WRONG").await.json["entity"], false);
    }
    assert_eq!(validate(&service, STRANGER, "GENERIC", &right).await.refusal(), (429, vec![429]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_validates_after_a_registration_exactly_one_is_true() {
    let (table, service) = demo().await;
    issue(&service, STRANGER, "GENERIC").await;
    let right = code(&fetch(&service, STRANGER, "GENERIC").await);
    register(&service, STRANGER).await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (process, right) = (table.service("store.server"), right.clone());
            tokio::spawn(async move { validate(&process, STRANGER, "GENERIC", &right).await })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        accepted += usize::from(task.await.unwrap().json["entity"] == true);
    }
    assert_eq!(accepted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_wrong_codes_after_a_registration_exactly_5_are_judged() {
    let (table, service) = demo().await;
    issue(&service, STRANGER, "GENERIC").await;
    register(&service, STRANGER).await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let process = table.service("store.server");
            tokio::spawn(async move { validate(&process, STRANGER, "GENERIC", "WRONG").await.status })
        })
        .collect();
    let mut judged = 0;
    for task in tasks {
        judged += usize::from(task.await.unwrap() == 200);
    }
    assert_eq!(judged, 5);
}

#[tokio::test]
async fn a_registration_during_a_validate_gives_no_more_attempts() {
    let (table, plain) = demo().await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    service.fetch().await;
    issue(&plain, STRANGER, "GENERIC").await;
    let right = code(&fetch(&plain, STRANGER, "GENERIC").await);
    let rival = async {
        register(&plain, STRANGER).await;
        for _ in 0..5 {
            assert_eq!(validate(&plain, STRANGER, "GENERIC", "WRONG").await.json["entity"], false);
        }
    };
    let slow = validate(&service, STRANGER, "GENERIC", &right);
    let answer = while_held(&faults, "TransactWriteItems", slow, rival).await;
    assert_eq!(answer.refusal(), (429, vec![429]), "the customer is locked by now");
}
