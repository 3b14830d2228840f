//! Requests with an `Idempotency-Key` happen once.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use http::Method;
use loyalty_codes::{
    model::{org::OrgId, till::Permission},
    store::keys,
};
use serde_json::{Value, json};

use crate::{
    common::{
        Answer, MOBILE, PASSWORD, TestService, TestTable, demo, demo_org_with, demo_with,
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

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_from_many_among_many_without_one_takes_one_number() {
    let (table, service) = demo().await;
    let work = |service: TestService, i: usize| async move {
        if i.is_multiple_of(2) {
            return service.card_number().await;
        }
        let answer = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
        answer.json["entity"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let numbers: HashSet<String> = all_at_once(&processes(&table), 40, work).await.into_iter().collect();
    let expected = (0..21).map(|i| (1_000_000_010_u64 + i).to_string()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(service.card_number().await, "1000000031");
}

/// Lets somebody else be faster to the number that the first transaction of a request takes, and calls go wrong as `then`
/// says.
pub fn outrun(
    route: &str,
    mut then: impl FnMut(&str, usize) -> Option<Fault> + Send + 'static,
) -> impl FnMut(&str, usize) -> Option<Fault> + Send + 'static {
    // A customer's three items come before the counter.
    let before = if route == "/v2/customers" { vec!["None"; 3] } else { Vec::new() };
    let mut rival = Some(Fault::cancelled(&[before, vec!["ConditionalCheckFailed", "None"]].concat()));
    move |operation, call| {
        rival.take_if(|_| operation == "TransactWriteItems").or_else(|| then(operation, call))
    }
}

/// After a number was reserved, nothing works.
fn dies_after_reserving() -> impl FnMut(&str, usize) -> Option<Fault> + Send + 'static {
    let mut reserved = false;
    move |operation, _| {
        let over = reserved;
        reserved |= operation == "TransactWriteItems";
        over.then(|| Fault::error("ProvisionedThroughputExceededException"))
    }
}

async fn reservations(table: &TestTable) -> usize {
    let key = keys::card_number_counter(OrgId(966)).attributes();
    let counter = table.client().get_item().table_name(table.name()).set_key(Some(key)).send().await.unwrap();
    let (values, since): (Vec<String>, Vec<String>) = counter
        .item
        .unwrap()
        .into_keys()
        .filter(|name| name.starts_with("reserved"))
        .partition(|name| name.starts_with("reserved#"));
    assert_eq!(values.len(), since.len());
    values.len()
}

#[tokio::test]
async fn who_is_outrun_has_a_number_reserved() {
    for route in ["/v2/cardNumber", "/v2/customers"] {
        let (table, plain) = demo().await;
        let (service, faults) = behind_faults(&table, "store.server").await;
        faults.inject(outrun(route, |_, _| None));
        let first = send(&service, route, "key-1", &body(route)).await;
        assert_eq!(first.status, 200, "{route}: {first:?}");
        assert_eq!(reservations(&table).await, 0, "{route}: it is taken");
        assert_eq!(send(&plain, route, "key-1", &body(route)).await.text, first.text, "{route}");
        assert_eq!(plain.card_number().await, "1000000011", "{route}");
    }
}

#[tokio::test]
async fn a_reserved_number_waits_for_the_next_attempt() {
    for route in ["/v2/cardNumber", "/v2/customers"] {
        let (table, plain) = demo().await;
        let (service, faults) = behind_faults(&table, "store.server").await;
        faults.inject(outrun(route, dies_after_reserving()));
        let first = send(&service, route, "key-1", &body(route)).await;
        assert_eq!(first.status, 503, "{route}: {first:?}");
        assert_eq!(reservations(&table).await, 1, "{route}");
        assert_eq!(plain.card_number().await, "1000000011", "{route}: nobody else gets it");
        let again = send(&plain, route, "key-1", &body(route)).await;
        assert_eq!(again.status, 200, "{route}: {again:?}");
        if route == "/v2/cardNumber" {
            assert_eq!(again.json["entity"], "1000000010");
        }
        assert_eq!(plain.card_number().await, "1000000012", "{route}: no second number is burnt");
        assert_eq!(reservations(&table).await, 0, "{route}");
    }
}

#[tokio::test]
async fn what_nobody_came_back_for_is_swept_after_a_day() {
    let (table, plain) = demo().await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    for key in ["key-1", "key-2"] {
        faults.inject(outrun("/v2/cardNumber", dies_after_reserving()));
        assert_eq!(send(&service, "/v2/cardNumber", key, &json!({})).await.status, 503);
    }
    plain.clock.advance(TimeDelta::hours(24));
    faults.inject(outrun("/v2/cardNumber", |_, _| None));
    assert_eq!(send(&service, "/v2/cardNumber", "key-3", &json!({})).await.status, 200);
    assert_eq!(reservations(&table).await, 2, "a day is not over");
    plain.clock.advance(TimeDelta::seconds(1));
    faults.inject(outrun("/v2/cardNumber", |_, _| None));
    assert_eq!(send(&service, "/v2/cardNumber", "key-4", &json!({})).await.status, 200);
    assert_eq!(reservations(&table).await, 0);
    assert_eq!(send(&plain, "/v2/cardNumber", "key-1", &json!({})).await.json["entity"], "1000000014");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_number_is_given_to_all_who_ask_with_its_key() {
    for _ in 0..4 {
        let (table, _service) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99").await;
        let work = |service: TestService, _| async move {
            send(&service, "/v2/cardNumber", "key-1", &json!({})).await
        };
        for answer in all_at_once(&processes(&table), 16, work).await {
            assert_eq!(answer.json["entity"], "99", "{answer:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_reserved_for_who_was_answered_meanwhile() {
    for route in ["/v2/cardNumber", "/v2/customers"] {
        let (table, plain) = demo().await;
        let (service, faults) = behind_faults(&table, "store.server").await;
        let (reserving, reserves) = tokio::sync::oneshot::channel();
        let mut reserving = Some(reserving);
        faults.inject(outrun(route, move |operation, _| {
            let reserving = reserving.take_if(|_| operation == "TransactWriteItems")?;
            reserving.send(()).unwrap();
            Some(Fault::Delay(Duration::from_millis(500)))
        }));
        let rival = async {
            reserves.await.unwrap();
            send(&plain, route, "key-1", &body(route)).await
        };
        let body = body(route);
        let (answer, rival) = tokio::join!(send(&service, route, "key-1", &body), rival);
        assert_eq!((answer.status, answer.text), (200, rival.text), "{route}");
        assert_eq!(reservations(&table).await, 0, "{route}");
        assert_eq!(plain.card_number().await, "1000000011", "{route}: no second number is burnt");
    }
}

#[tokio::test]
async fn a_new_plan_ends_what_was_reserved_under_the_old_one() {
    let (table, plain) = demo().await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    faults.inject(outrun("/v2/cardNumber", dies_after_reserving()));
    assert_eq!(send(&service, "/v2/cardNumber", "key-1", &json!({})).await.status, 503);
    plain.apply(&demo_org_with("CONF_CARD_NUMBER_OFFSET = 2000000000")).await.unwrap();
    // This process still has the old plan in its cache.
    let again = send(&plain, "/v2/cardNumber", "key-1", &json!({})).await;
    assert_eq!((again.status, &again.json["entity"]), (200, &"2000000000".into()), "{again:?}");
}

#[tokio::test]
async fn the_last_number_is_reserved_and_then_there_is_none() {
    let (table, plain) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99").await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    faults.inject(outrun("/v2/cardNumber", dies_after_reserving()));
    assert_eq!(send(&service, "/v2/cardNumber", "key-1", &json!({})).await.status, 503);
    faults.inject(outrun("/v2/cardNumber", |_, _| None));
    let exhausted = plain.get("/v2/cardNumber").await.refusal();
    assert_eq!(exhausted, (409, vec![702]));
    assert_eq!(send(&service, "/v2/cardNumber", "key-2", &json!({})).await.refusal(), exhausted);
    assert_eq!(send(&plain, "/v2/cardNumber", "key-1", &json!({})).await.json["entity"], "99");
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
    let (table, service) = demo().await;
    let mut by_hand = body("/v2/customers");
    by_hand["profiles"][0]["identifiers"] = json!([{"type": "externalId", "value": "1000000010"}]);
    assert_eq!(service.post("/v2/customers", &by_hand).await.status, 200);
    assert_eq!(send(&service, "/v2/customers", "key-1", &body("/v2/customers")).await.status, 200);
    assert_eq!(service.card_number().await, "1000000012");

    by_hand["profiles"][0]["identifiers"][0]["value"] = "1000000013".into();
    assert_eq!(service.post("/v2/customers", &by_hand).await.status, 200);
    let (outran, faults) = behind_faults(&table, "store.server").await;
    faults.inject(outrun("/v2/customers", |_, _| None));
    let mut other = body("/v2/customers");
    other["profiles"][0]["identifiers"][0]["value"] = "9010000023".into();
    assert_eq!(send(&outran, "/v2/customers", "key-2", &other).await.status, 200);
    assert_eq!(service.card_number().await, "1000000015", "a reserved one is skipped, too");
    assert_eq!(reservations(&table).await, 0);
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
