//! OTPs for GENERIC, USERGROUP and SUBSCRIPTION. They belong to the customer if the identifier is
//! registered and to the contact otherwise, and registering in between loses none of them.

use serde_json::{Value, json};

use crate::{
    common::{Answer, TestService, USER, demo, faults::with_fault_proxy},
    idempotency::while_held,
};

const UNREGISTERED: &str = "9010000099";

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
async fn an_unregistered_contact_gets_an_otp_without_a_user_id_if_the_scope_allows_it() {
    let (_table, service) = demo().await;
    for scope in ["GENERIC", "USERGROUP", "SUBSCRIPTION"] {
        assert_eq!(fetch(&service, UNREGISTERED, scope).await.refusal(), (404, vec![9001]), "{scope}");
        assert_eq!(issue(&service, UNREGISTERED, scope).await.status, 200, "{scope}");
        let fetched = fetch(&service, UNREGISTERED, scope).await;
        assert_eq!(fetched.json["userId"], Value::Null, "{scope}");
        let right = validate(&service, UNREGISTERED, scope, &code(&fetched)).await;
        assert_eq!(right.json["entity"], true, "{scope}");
    }
    for scope in ["POINTS", "COUPON", "POINTSTRANSFER", "CUSTOMER_STATUS_UPDATE"] {
        assert_eq!(issue(&service, UNREGISTERED, scope).await.refusal(), (404, vec![8015]), "{scope}");
        assert_eq!(fetch(&service, UNREGISTERED, scope).await.refusal(), (404, vec![8015]), "{scope}");
        assert_eq!(
            validate(&service, UNREGISTERED, scope, "X").await.refusal(),
            (404, vec![8015]),
            "{scope}"
        );
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
async fn a_registration_after_the_issue_loses_no_otp() {
    let (_table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    let before = fetch(&service, UNREGISTERED, "GENERIC").await;
    let user = register(&service, UNREGISTERED).await;
    assert_eq!(
        fetch(&service, UNREGISTERED, "GENERIC").await.text,
        before.text,
        "the OTP still belongs to the contact"
    );

    // A newer OTP belongs to the customer. It hides the older one in a fetch only.
    service.clock.advance(chrono::TimeDelta::seconds(1));
    issue(&service, UNREGISTERED, "GENERIC").await;
    let after = fetch(&service, UNREGISTERED, "GENERIC").await;
    assert_eq!(after.json["userId"], user);
    assert_ne!(code(&after), code(&before));
    for answer in [&before, &after] {
        assert_eq!(validate(&service, UNREGISTERED, "GENERIC", &code(answer)).await.json["entity"], true);
        assert_eq!(validate(&service, UNREGISTERED, "GENERIC", &code(answer)).await.json["entity"], false);
    }
}

#[tokio::test]
async fn a_contacts_otp_is_found_after_the_registration_by_the_same_identifier_and_account_only() {
    let (_table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    let identifiers = json!([
        {"type": "mobile", "value": UNREGISTERED},
        {"type": "email", "value": "new@example.com"},
    ]);
    let body = json!({"profiles": [
        {"source": "INSTORE", "identifiers": identifiers},
        {"source": "WECHAT", "accountId": "WECHAT-API1", "identifiers": identifiers},
    ]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    let found = async |account: &str, identifier: &str| {
        service.get(&format!("/v2/otp?{account}&{identifier}&scope=GENERIC")).await.status
    };
    let (mobile, email) = (format!("mobile={UNREGISTERED}"), "email=new@example.com");
    assert_eq!(found("source=INSTORE", &mobile).await, 200);
    assert_eq!(found("source=INSTORE", email).await, 404);
    assert_eq!(found("source=WECHAT&accountId=WECHAT-API1", &mobile).await, 404);
}

#[tokio::test]
async fn a_registration_does_not_reset_failed_attempts() {
    let (_table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    let right = code(&fetch(&service, UNREGISTERED, "GENERIC").await);
    for _ in 0..3 {
        assert_eq!(validate(&service, UNREGISTERED, "GENERIC", "WRONG").await.json["entity"], false);
    }
    register(&service, UNREGISTERED).await;
    for _ in 0..2 {
        assert_eq!(validate(&service, UNREGISTERED, "GENERIC", "WRONG").await.json["entity"], false);
    }
    assert_eq!(validate(&service, UNREGISTERED, "GENERIC", &right).await.refusal(), (429, vec![429]));
}

#[tokio::test]
async fn moving_the_identifier_between_customers_gives_no_new_attempts() {
    let (_table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    let right = code(&fetch(&service, UNREGISTERED, "GENERIC").await);
    let mut wrong = 0;
    for mobile in ["9010000101", "9010000102", "9010000103"] {
        let user = register(&service, mobile).await;
        let change = async |what: &str| {
            let url = format!("/v2/customers/{user}/changeIdentifier?source=INSTORE");
            let answer =
                service.post(&url, &json!({what: [{"type": "mobile", "value": UNREGISTERED}]})).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        change("add").await;
        for _ in 0..3 {
            wrong += usize::from(validate(&service, UNREGISTERED, "GENERIC", "WRONG").await.status == 200);
        }
        change("remove").await;
    }
    assert_eq!(wrong, 5);
    assert_eq!(validate(&service, UNREGISTERED, "GENERIC", &right).await.refusal(), (429, vec![429]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_validates_after_a_registration_exactly_one_is_true() {
    let (table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    let right = code(&fetch(&service, UNREGISTERED, "GENERIC").await);
    register(&service, UNREGISTERED).await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (process, right) = (table.service("store.server"), right.clone());
            tokio::spawn(async move { validate(&process, UNREGISTERED, "GENERIC", &right).await })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        accepted += usize::from(task.await.unwrap().json["entity"] == true);
    }
    assert_eq!(accepted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_wrong_codes_after_a_registration_exactly_5_are_failed_attempts() {
    let (table, service) = demo().await;
    issue(&service, UNREGISTERED, "GENERIC").await;
    register(&service, UNREGISTERED).await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let process = table.service("store.server");
            tokio::spawn(async move { validate(&process, UNREGISTERED, "GENERIC", "WRONG").await.status })
        })
        .collect();
    let mut failed_attempts = 0;
    for task in tasks {
        failed_attempts += usize::from(task.await.unwrap() == 200);
    }
    assert_eq!(failed_attempts, 5);
}

#[tokio::test]
async fn a_registration_during_a_validate_gives_no_more_attempts() {
    let (table, plain) = demo().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    service.fetch().await;
    issue(&plain, UNREGISTERED, "GENERIC").await;
    let right = code(&fetch(&plain, UNREGISTERED, "GENERIC").await);
    let rival = async {
        register(&plain, UNREGISTERED).await;
        for _ in 0..5 {
            assert_eq!(validate(&plain, UNREGISTERED, "GENERIC", "WRONG").await.json["entity"], false);
        }
    };
    let slow = validate(&service, UNREGISTERED, "GENERIC", &right);
    let answer = while_held(&faults, "TransactWriteItems", slow, rival).await;
    assert_eq!(answer.refusal(), (429, vec![429]), "the customer is locked by now");
}
