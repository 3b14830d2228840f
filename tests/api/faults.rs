//! Answers when DynamoDB throttles, conflicts, fails or does not answer. Afterwards the service
//! works again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    Log, MOBILE, TestService, demo,
    faults::{Fault, Faults, with_fault_proxy},
};

async fn setup() -> (crate::common::TestTable, TestService, Faults) {
    let (table, _service) = demo().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    service.card_number().await;
    (table, service, faults)
}

fn otp() -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": "WRONG"})
}

/// Sends every kind of request that uses DynamoDB.
async fn all_routes(service: &TestService) -> Vec<(&'static str, crate::common::Answer)> {
    let customer = json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": "9010000022"}]}]});
    let unknown = service.as_till("nobody", "x");
    let (generated, validated) = (otp(), otp());
    let (fetched, generated, validated, number, registered, unknown) = tokio::join!(
        service.fetch(),
        service.post("/v2/otp/generate", &generated),
        service.post("/v2/otp/validate", &validated),
        service.get("/v2/cardNumber"),
        service.post("/v2/customers", &customer),
        unknown.get("/v2/cardNumber"),
    );
    vec![
        ("fetch", fetched),
        ("generate", generated),
        ("validate", validated),
        ("card number", number),
        ("register", registered),
        ("unknown till", unknown),
    ]
}

#[tokio::test]
async fn transient_errors_are_503_with_retry_after_on_every_route() {
    let (_table, service, faults) = setup().await;
    for code in ["ThrottlingException", "InternalServerError"] {
        faults.inject(move |_, _| Some(Fault::error(code)));
        for (route, answer) in all_routes(&service).await {
            assert_eq!(answer.refusal(), (503, vec![503]), "{code} on {route}");
            assert_eq!(answer.retry_after(), 1);
            assert!(!answer.text.contains("injected"), "DynamoDB's messages must not reach a caller");
        }
    }
    faults.clear();
    service.issue().await;
    assert_eq!(service.fetch().await.status, 200, "it works again without a restart");
}

#[tokio::test]
async fn other_errors_of_dynamodb_are_500_without_details() {
    let (_table, service, faults) = setup().await;
    for code in ["ResourceNotFoundException", "AccessDeniedException", "ValidationException"] {
        faults.inject(move |_, _| Some(Fault::error(code)));
        for (route, answer) in all_routes(&service).await {
            assert_eq!(answer.refusal(), (500, vec![500]), "{code} on {route}");
            assert_eq!(answer.json["errors"][0]["message"], "Internal error");
        }
    }
}

#[tokio::test]
async fn one_transient_error_is_retried_without_the_caller_noticing() {
    let (_table, service, faults) = setup().await;
    faults.inject(|_, call| (call == 0).then(|| Fault::error("ThrottlingException")));
    service.card_number().await;
    assert_eq!(faults.calls(), 2);
}

#[tokio::test]
async fn conflicting_transactions_are_retried() {
    let (_table, service, faults) = setup().await;
    let conflict = || Fault::cancelled(&["None", "TransactionConflict"]);
    faults.inject(move |operation, call| (operation == "TransactWriteItems" && call < 4).then(conflict));
    service.issue().await;
    assert_eq!(faults.calls(), 5, "one look-up, three conflicts, one success");
}

#[tokio::test]
async fn persistent_conflicts_are_503() {
    let (_table, service, faults) = setup().await;
    faults.inject(|operation, _| {
        (operation == "TransactWriteItems").then(|| Fault::cancelled(&["TransactionConflict", "None"]))
    });
    assert_eq!(service.post("/v2/otp/generate", &otp()).await.refusal(), (503, vec![503]));
    assert_eq!(faults.calls(), 1 + 8);
}

#[tokio::test]
async fn throttled_transactions_are_retried_and_503_if_throttling_persists() {
    let (_table, service, faults) = setup().await;
    for reason in ["ThrottlingError", "ProvisionedThroughputExceeded"] {
        let throttled = move || Fault::cancelled(&["None", reason]);
        faults.inject(move |operation, call| (operation == "TransactWriteItems" && call < 3).then(throttled));
        service.issue().await;
        assert_eq!(faults.calls(), 4, "one look-up, two refusals, one success");
        faults.inject(move |operation, _| (operation == "TransactWriteItems").then(throttled));
        let (log, _recording) = Log::record();
        assert_eq!(service.post("/v2/otp/generate", &otp()).await.refusal(), (503, vec![503]));
        assert_eq!(faults.calls(), 1 + 8);
        let cause = format!("DynamoDB cancelled the transaction: None, {reason}");
        assert_eq!(log.requests()[0]["cause"], cause);
    }
}

#[tokio::test]
async fn an_invalid_transaction_is_500_at_once_and_its_cause_is_logged() {
    let (_table, service, faults) = setup().await;
    for reason in ["ValidationError", "ItemCollectionSizeLimitExceeded", "SomethingNew"] {
        faults.inject(move |operation, _| {
            let reasons = [reason, "TransactionConflict"];
            (operation == "TransactWriteItems").then(|| Fault::cancelled(&reasons))
        });
        let (log, _recording) = Log::record();
        assert_eq!(service.post("/v2/otp/generate", &otp()).await.refusal(), (500, vec![500]));
        assert_eq!(faults.calls(), 2);
        let cause = format!("DynamoDB cancelled the transaction: {reason}, TransactionConflict");
        assert_eq!(log.requests()[0]["cause"], cause);
    }
}

#[tokio::test]
async fn a_transaction_in_progress_is_retried_once_after_five_seconds() {
    let (_table, service, faults) = setup().await;
    faults.inject(|operation, call| {
        (operation == "TransactWriteItems" && call < 2)
            .then(|| Fault::error("TransactionInProgressException"))
    });
    let started = Instant::now();
    service.issue().await;
    assert_eq!(faults.calls(), 3, "one look-up, one refusal, one success");
    assert!(started.elapsed() > Duration::from_secs(5));
}

#[tokio::test]
async fn a_transaction_in_progress_is_503_at_once_if_time_is_short() {
    let (_table, mut service, faults) = setup().await;
    service.time_limit = Duration::from_secs(5);
    faults.inject(|operation, _| {
        (operation == "TransactWriteItems").then(|| Fault::error("TransactionInProgressException"))
    });
    let (log, _recording) = Log::record();
    let started = Instant::now();
    assert_eq!(service.post("/v2/otp/generate", &otp()).await.refusal(), (503, vec![503]));
    assert!(started.elapsed() < Duration::from_secs(4), "it must not wait if the time limit is too short");
    assert_eq!(faults.calls(), 2);
    assert!(log.requests()[0]["cause"].as_str().unwrap().contains("TransactionInProgressException"));
}

#[tokio::test]
async fn the_retry_quota_limits_retries_of_errors_but_not_of_conflicts() {
    let (_table, service, faults) = setup().await;
    faults.inject(|_, _| Some(Fault::error("ThrottlingException")));
    let mut failing = JoinSet::new();
    for _ in 0..50 {
        let service = service.clone();
        failing.spawn(async move { service.get("/v2/cardNumber").await.status });
    }
    assert_eq!(failing.join_all().await, [503; 50]);
    assert!(faults.calls() <= 50 + 500 / 5 + 20, "only the retry quota and its refill may be used");
    let conflict = || Fault::cancelled(&["None", "TransactionConflict"]);
    faults.inject(move |operation, call| (operation == "TransactWriteItems" && call < 4).then(conflict));
    service.issue().await;
}

#[tokio::test]
async fn repeated_id_collisions_are_606() {
    let (_table, service, faults) = setup().await;
    faults.inject(|operation, _| {
        (operation == "TransactWriteItems").then(|| Fault::cancelled(&["ConditionalCheckFailed", "None"]))
    });
    let answer = service.post("/v2/otp/generate", &otp()).await;
    assert_eq!(answer.refusal(), (503, vec![606]));
    assert_eq!(answer.retry_after(), 1);
}

#[tokio::test]
async fn unprocessed_keys_are_requested_again() {
    let (table, service, faults) = setup().await;
    let name = table.name().to_owned();
    let unprocessed = move |value: &str| {
        let key = format!(r#"{{"PK":{{"S":"ORG#966#ID#INSTORE##mobile#91{value}"}},"SK":{{"S":"ID"}}}}"#);
        let keys = format!(r#"{{"{name}":{{"ConsistentRead":true,"Keys":[{key}]}}}}"#);
        Fault::Answer(200, format!(r#"{{"Responses":{{}},"UnprocessedKeys":{keys}}}"#))
    };
    let register =
        json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": MOBILE}]}]});
    let twice = unprocessed.clone();
    faults.inject(move |operation, call| (operation == "BatchGetItem" && call < 2).then(|| twice(MOBILE)));
    assert_eq!(service.post("/v2/customers", &register).await.refusal(), (409, vec![8006]));
    faults.inject(move |operation, _| (operation == "BatchGetItem").then(|| unprocessed(MOBILE)));
    assert_eq!(service.post("/v2/customers", &register).await.refusal(), (503, vec![503]));
}

#[tokio::test]
async fn a_missing_answer_is_503_at_the_time_limit() {
    let (_table, mut service, faults) = setup().await;
    service.time_limit = Duration::from_millis(50);
    faults.inject(|_, _| Some(Fault::Dropped));
    for (route, answer) in all_routes(&service).await {
        assert_eq!(answer.refusal(), (503, vec![503]), "{route}");
    }
}

#[tokio::test]
async fn a_failed_request_is_logged_in_one_line_with_its_cause() {
    let (_table, service, faults) = setup().await;
    faults.inject(|_, _| Some(Fault::error("ThrottlingException")));
    let (log, _recording) = Log::record();
    service.get("/v2/cardNumber").await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line = &log.requests()[0];
    assert_eq!((&line["level"], &line["status"]), (&json!("ERROR"), &json!(503)));
    assert!(line["cause"].as_str().unwrap().contains("ThrottlingException"), "{line}");
}
