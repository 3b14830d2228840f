//! Requests with an `Idempotency-Key` happen once.

use chrono::TimeDelta;
use http::Method;
use loyalty_codes::till::Permission;
use serde_json::{Value, json};

use crate::{
    common::{
        Answer, MOBILE, PASSWORD, TestService, demo, demo_with,
        faults::{Fault, behind_faults},
    },
    races::{all_at_once, processes},
};

const ROUTES: [&str; 3] = ["/v2/cardNumber", "/v2/otp/generate", "/v2/customers"];

/// A request that succeeds, for each route that takes a key.
pub fn body(route: &str) -> Value {
    match route {
        "/v2/otp/generate" => json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}),
        "/v2/customers" => {
            json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": "9010000022"}]}]})
        }
        _ => json!({}),
    }
}

pub async fn send(service: &TestService, route: &str, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    service.send(Method::POST, route, &headers, body.to_string().into()).await
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_again_from_every_process() {
    for route in ROUTES {
        let (table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
        let first = send(&service, route, "key-1", &body(route)).await;
        assert_eq!(first.status, 200, "{route}: {first:?}");
        service.clock.advance(TimeDelta::seconds(86_399));
        let again = send(&table.service("store.server"), route, "key-1", &body(route)).await;
        assert_eq!((again.status, again.text), (200, first.text), "{route}");
        // The range begins at …10; a registration takes a number, too.
        let next = if route == "/v2/otp/generate" { "1000000010" } else { "1000000011" };
        assert_eq!(service.card_number().await, next, "{route}: no second number is burnt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_from_many_at_once_happens_once() {
    for route in ROUTES {
        let (table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
        let work =
            |service: TestService, _| async move { send(&service, route, "key-1", &body(route)).await };
        let answers = all_at_once(&processes(&table), 16, work).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.text), (200, &answers[0].text), "{route}");
        }
        let next = if route == "/v2/otp/generate" { "1000000010" } else { "1000000011" };
        assert_eq!(service.card_number().await, next, "{route}: no second number is burnt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_with_and_without_keys_are_all_different_and_leave_no_gap() {
    let (table, _service) = demo().await;
    let work = |service: TestService, i: usize| async move {
        if i.is_multiple_of(2) {
            return service.card_number().await;
        }
        let answer = send(&service, "/v2/cardNumber", &format!("key-{i}"), &json!({})).await;
        answer.json["entity"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let mut numbers = all_at_once(&processes(&table), 40, work).await;
    numbers.sort();
    let expected: Vec<String> = (0..40).map(|i| (1_000_000_010_u64 + i).to_string()).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn a_number_is_given_also_where_somebody_else_is_always_faster() {
    let (table, _service) = demo().await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    for route in ["/v2/cardNumber", "/v2/customers"] {
        // As DynamoDB answers when the counter has moved on.
        let outrun = if route == "/v2/customers" { vec!["None", "None", "None"] } else { Vec::new() };
        let outrun = [outrun, vec!["ConditionalCheckFailed", "None"]].concat();
        let mut left = 10;
        faults.inject(move |operation, _| {
            let rival = operation == "TransactWriteItems" && left > 0;
            left -= usize::from(rival);
            rival.then(|| Fault::cancelled(&outrun))
        });
        let first = send(&service, route, route, &body(route)).await;
        assert_eq!(first.status, 200, "{route}: {first:?}");
        assert_eq!(send(&service, route, route, &body(route)).await.text, first.text, "{route}");
    }
}

#[tokio::test]
async fn the_same_key_for_another_request_is_422() {
    let (_table, service) = demo().await;
    let first = body("/v2/otp/generate");
    assert_eq!(send(&service, "/v2/otp/generate", "key-1", &first).await.status, 200);
    let mut other = first.clone();
    other["action"] = "COUPON".into();
    assert_eq!(send(&service, "/v2/otp/generate", "key-1", &other).await.refusal(), (422, vec![422]));
    assert_eq!(send(&service, "/v2/cardNumber", "key-1", &first).await.refusal(), (422, vec![422]));
    let with_query = "/v2/cardNumber?source=INSTORE";
    assert_eq!(send(&service, with_query, "key-2", &first).await.status, 200);
    assert_eq!(send(&service, "/v2/cardNumber", "key-2", &first).await.refusal(), (422, vec![422]));
}

#[tokio::test]
async fn a_key_belongs_to_its_till() {
    let (_table, service) = demo().await;
    service.create_till("second", 966, Permission::ALL).await;
    let mine = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
    let theirs = send(&service.as_till("second", PASSWORD), "/v2/cardNumber", "key-1", &json!({})).await;
    assert_eq!((mine.status, theirs.status), (200, 200));
    assert_ne!(mine.text, theirs.text);
}

#[tokio::test]
async fn a_key_is_free_again_after_24_hours() {
    let (_table, service) = demo().await;
    let first = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
    service.clock.advance(TimeDelta::hours(24) + TimeDelta::seconds(1));
    let later = send(&service, "/v2/cardNumber", "key-1", &json!({"other": "request"})).await;
    assert_eq!((first.status, later.status), (200, 200));
    assert_ne!(first.text, later.text);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let (_table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
    service.issue().await;
    let otp = body("/v2/otp/generate");
    assert_eq!(send(&service, "/v2/otp/generate", "key-1", &otp).await.refusal(), (429, vec![429]));
    service.clock.advance(TimeDelta::hours(23));
    assert_eq!(send(&service, "/v2/otp/generate", "key-1", &otp).await.status, 200, "it is another day");

    let mut taken = body("/v2/customers");
    taken["profiles"][0]["identifiers"][0]["value"] = MOBILE.into();
    assert_eq!(send(&service, "/v2/customers", "key-2", &taken).await.refusal(), (409, vec![8008]));
    assert_eq!(send(&service, "/v2/customers", "key-2", &body("/v2/customers")).await.status, 200);
}

#[tokio::test]
async fn a_number_registered_by_hand_is_skipped_with_a_key_too() {
    let (_table, service) = demo().await;
    let mut by_hand = body("/v2/customers");
    by_hand["profiles"][0]["identifiers"] = json!([{"type": "externalId", "value": "1000000010"}]);
    assert_eq!(service.post("/v2/customers", &by_hand).await.status, 200);
    assert_eq!(send(&service, "/v2/customers", "key-1", &body("/v2/customers")).await.status, 200);
    assert_eq!(service.card_number().await, "1000000012");
}

#[tokio::test]
async fn keys_that_cannot_be_one_are_refused() {
    let (_table, service) = demo().await;
    for key in ["", "with space", &"x".repeat(256), "tab\t"] {
        let answer = send(&service, "/v2/cardNumber", key, &json!({})).await;
        assert_eq!(answer.refusal(), (400, vec![400]), "{key:?}");
    }
    assert_eq!(send(&service, "/v2/cardNumber", &"x".repeat(255), &json!({})).await.status, 200);
}

#[tokio::test]
async fn a_get_ignores_the_header() {
    let (_table, service) = demo().await;
    let key = [("idempotency-key", "key-1")];
    let get = async || service.send(Method::GET, "/v2/cardNumber", &key, "".into()).await.text;
    assert_ne!(get().await, get().await, "a GET gives the next number");
}
