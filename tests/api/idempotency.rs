//! Requests with an `Idempotency-Key` are carried out once.

use std::{
    collections::HashSet,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use http::Method;
use loyalty_codes::{
    api::metrics::Event,
    model::{org::OrgId, till::Permission},
    store::keys,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::{
    common::{
        Answer, Log, MOBILE, PASSWORD, TestService, TestTable, demo, demo_org_with, demo_with, events,
        faults::{Fault, Faults, with_fault_proxy},
    },
    races::{all_at_once, processes},
};

const CHANGE: &str = "/v2/customers/313302314/changeIdentifier?source=INSTORE";
const ROUTES: [&str; 5] = ["/v2/cardNumber", "/v2/otp/generate", "/v2/otp/validate", "/v2/customers", CHANGE];

/// A request body that succeeds, for each route that takes a key. The code to validate is a wrong
/// one.
pub fn body(route: &str) -> Value {
    match route {
        "/v2/otp/generate" => json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}),
        "/v2/otp/validate" => {
            json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": "WRONG"})
        }
        "/v2/customers" => {
            json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": "9010000022"}]}]})
        }
        CHANGE => json!({"add": [{"type": "cuid", "value": "C1"}]}),
        _ => json!({}),
    }
}

/// Panics unless the request of [`body`] was carried out exactly once.
async fn assert_carried_out_once(route: &str, service: &TestService) {
    match route {
        "/v2/otp/generate" => assert_eq!(service.issued_otps().await, 1),
        "/v2/otp/validate" => {
            for _ in 0..4 {
                assert!(!service.is_right("WRONG").await);
            }
            assert_eq!(service.validate("WRONG").await.status, 429, "five failed attempts were counted");
        }
        "/v2/customers" => {
            assert_eq!(service.post(route, &body(route)).await.refusal(), (409, vec![8006]));
        }
        CHANGE => {
            let again = service.post(route, &body(route)).await;
            assert_eq!((again.status, &again.json["warnings"][0]["code"]), (200, &json!(8007)));
        }
        _ => {}
    }
}

pub async fn send(service: &TestService, route: &str, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    service.send(Method::POST, route, &headers, body.to_string().into()).await
}

#[tokio::test]
async fn every_process_returns_the_stored_response_of_a_key() {
    for route in ROUTES {
        let (table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
        let first = send(&service, route, "key-1", &body(route)).await;
        assert_eq!(first.status, 200, "{route}: {first:?}");
        service.clock.advance(TimeDelta::seconds(86_399));
        let (log, recording) = Log::record();
        let again = send(&table.service("store.server"), route, "key-1", &body(route)).await;
        drop(recording);
        assert_eq!((again.status, again.text), (200, first.text), "{route}");
        assert_eq!(counted(&log.requests()[0]), [], "{route}: a replay counts nothing");
        // The range begins at …10. A registration takes a number, too.
        let takes_a_number = ["/v2/cardNumber", "/v2/customers"].contains(&route);
        let next = if takes_a_number { "1000000011" } else { "1000000010" };
        assert_eq!(service.card_number().await, next, "{route}: the repeated request must take no number");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_requests_with_one_key_are_carried_out_once() {
    for route in ROUTES {
        let (table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
        let work =
            |service: TestService, _| async move { send(&service, route, "key-1", &body(route)).await };
        let answers = all_at_once(&processes(&table), 40, work).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.text), (200, &answers[0].text), "{route}");
        }
        assert_carried_out_once(route, &service).await;
        let later = send(&service, route, "key-1", &body(route)).await;
        assert_eq!(later.text, answers[0].text, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_different_concurrent_requests_with_one_key_one_is_422() {
    for route in ROUTES {
        let (table, _service) = demo().await;
        let work = |service: TestService, i: usize| async move {
            let mut body = body(route);
            body["comment"] = (i % 8 / 4).into();
            (i % 8 / 4, send(&service, route, "key-1", &body).await)
        };
        let answers = all_at_once(&processes(&table), 40, work).await;
        let (_, answered) = answers.iter().find(|(_, answer)| answer.status == 200).unwrap();
        let winner = answers.iter().find(|(_, answer)| answer.status == 200).unwrap().0;
        for (request, answer) in &answers {
            if *request == winner {
                assert_eq!((answer.status, &answer.text), (200, &answered.text), "{route}");
            } else {
                assert_eq!(answer.refusal(), (422, vec![422]), "{route}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_keys_and_requests_without_keys_get_consecutive_numbers() {
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
async fn a_shared_key_gets_one_number_among_requests_without_keys() {
    let (table, _service) = demo().await;
    let work = |service: TestService, i: usize| async move {
        if i.is_multiple_of(2) {
            return service.card_number().await;
        }
        let answer = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
        answer.json["entity"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let numbers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(numbers.into_iter().collect::<HashSet<_>>().len(), 21);
}

/// Holds the first call of `operation` back until `competitor` has ended.
pub async fn while_held<T>(
    faults: &Faults,
    operation: &'static str,
    request: impl Future<Output = T>,
    competitor: impl Future,
) -> T {
    let (announce, reached) = oneshot::channel();
    let mut announce = Some(announce);
    faults.inject(move |called, _| {
        announce.take_if(|_| called == operation)?.send(()).unwrap();
        Some(Fault::Delay(Duration::from_millis(500)))
    });
    let competitor = async {
        reached.await.unwrap();
        competitor.await;
    };
    tokio::join!(request, competitor).0
}

/// The call by which a route stores its response, and the number of its calls on a warm process.
fn storing_call(route: &str) -> (&'static str, usize) {
    match route {
        "/v2/cardNumber" => ("PutItem", 3),
        "/v2/otp/generate" => ("TransactWriteItems", 3),
        "/v2/otp/validate" | CHANGE => ("TransactWriteItems", 4),
        _ => ("TransactWriteItems", 5),
    }
}

/// The events that a log line counts.
fn counted(line: &Value) -> Vec<Event> {
    Event::ALL.iter().copied().filter(|event| line.get(event.as_str()).is_some()).collect()
}

#[tokio::test]
async fn a_request_that_loses_the_race_for_its_key_returns_the_stored_response_without_another_read() {
    for route in ROUTES {
        let (table, plain) = demo().await;
        let (service, faults) = with_fault_proxy(&table, "store.server").await;
        service.fetch().await;
        let (operation, calls) = storing_call(route);
        let body = body(route);
        let mut first_answer = None;
        let competitor = async { first_answer = Some(send(&plain, route, "key-1", &body).await) };
        let (log, recording) = Log::record();
        let answer = while_held(&faults, operation, send(&service, route, "key-1", &body), competitor).await;
        drop(recording);
        assert_eq!((answer.status, answer.text), (200, first_answer.unwrap().text), "{route}");
        assert_eq!(faults.calls(), calls, "{route}");
        let lines = log.requests();
        // A change of identifiers is no event of the metrics.
        assert_eq!(counted(&lines[0]).is_empty(), route.contains("changeIdentifier"), "{route}: {lines:?}");
        assert_eq!((lines.len(), counted(&lines[1])), (2, Vec::new()), "{route}: a replay counts nothing");
        faults.clear();
        assert_carried_out_once(route, &plain).await;
    }
}

#[tokio::test]
async fn a_request_that_loses_the_race_for_its_key_to_another_request_is_422() {
    for route in ROUTES {
        let (table, plain) = demo().await;
        let (service, faults) = with_fault_proxy(&table, "store.server").await;
        service.fetch().await;
        let (operation, calls) = storing_call(route);
        let competitor =
            async { assert_eq!(send(&plain, "/v2/cardNumber", "key-1", &json!(1)).await.status, 200) };
        let body = body(route);
        let answer = while_held(&faults, operation, send(&service, route, "key-1", &body), competitor).await;
        assert_eq!(answer.refusal(), (422, vec![422]), "{route}");
        assert_eq!(faults.calls(), calls, "{route}");
    }
}

#[tokio::test]
async fn a_request_that_finds_the_range_exhausted_returns_the_stored_response_of_its_key() {
    for route in ["/v2/cardNumber", "/v2/customers"] {
        let (table, plain) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99").await;
        let (service, faults) = with_fault_proxy(&table, "store.server").await;
        service.fetch().await;
        let body = body(route);
        let mut first_answer = None;
        let competitor = async { first_answer = Some(send(&plain, route, "key-1", &body).await) };
        let answer =
            while_held(&faults, "UpdateItem", send(&service, route, "key-1", &body), competitor).await;
        assert_eq!((answer.status, answer.text), (200, first_answer.unwrap().text), "{route}");
        assert_eq!(send(&plain, route, "key-2", &json!({})).await.status / 100, 4, "no number is left");
    }
}

#[tokio::test]
async fn an_sdk_retry_after_a_lost_answer_finds_the_stored_response() {
    let (table, plain) = demo().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let mut lost = Some(Fault::ResetBeforeAnswer);
    faults.inject(move |operation, _| lost.take_if(|_| operation == "PutItem"));
    let (log, _recording) = Log::record();
    let answer = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
    assert_eq!((answer.status, &answer.json["entity"]), (200, &"1000000010".into()), "{answer:?}");
    assert_eq!(counted(&log.requests()[0]), [Event::CardNumberGenerated, Event::CardNumberRangeUsed]);
    assert_eq!(send(&plain, "/v2/cardNumber", "key-1", &json!({})).await.text, answer.text);
}

#[tokio::test]
async fn a_number_without_a_stored_response_is_skipped() {
    let (table, plain) = demo().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    faults.inject(|operation, _| {
        (operation == "PutItem").then(|| Fault::error("ProvisionedThroughputExceededException"))
    });
    assert_eq!(send(&service, "/v2/cardNumber", "key-1", &json!({})).await.status, 503);
    let again = send(&plain, "/v2/cardNumber", "key-1", &json!({})).await;
    assert_eq!(again.json["entity"], "1000000011");
    assert_eq!(
        send(&service.another_process(), "/v2/cardNumber", "key-1", &json!({})).await.text,
        again.text
    );
}

async fn counter(table: &TestTable) -> std::collections::HashMap<String, AttributeValue> {
    let key = keys::card_number_counter(OrgId(966)).attributes();
    let counter = table.client().get_item().table_name(table.name()).set_key(Some(key)).send().await.unwrap();
    counter.item.unwrap()
}

#[tokio::test]
async fn no_request_adds_an_attribute_to_the_counter() {
    let (table, service) = demo().await;
    let mut before: Vec<_> = counter(&table).await.into_keys().collect();
    before.sort();
    service.card_number().await;
    for route in ROUTES {
        assert_eq!(send(&service, route, &format!("key-of-{route}"), &body(route)).await.status, 200);
    }
    let mut after: Vec<_> = counter(&table).await.into_keys().collect();
    after.sort();
    assert_eq!(after, before);
    assert_eq!(after, ["PK", "SK", "first", "next", "plan", "shape"]);
}

/// Earlier versions reserved numbers on the counter for repeated requests.
#[tokio::test]
async fn reservations_of_earlier_versions_on_a_counter_are_ignored() {
    let (table, service) = demo().await;
    let request = format!("store.server#{}", "ab".repeat(32));
    let key = keys::card_number_counter(OrgId(966)).attributes();
    let left = table
        .client()
        .update_item()
        .table_name(table.name())
        .set_key(Some(key))
        .update_expression("SET #reserved = #next, #since = :since ADD #next :one")
        .expression_attribute_names("#reserved", format!("reserved#{request}"))
        .expression_attribute_names("#since", format!("reserved_since#{request}"))
        .expression_attribute_names("#next", "next")
        .expression_attribute_values(":since", AttributeValue::N("1790000000".into()))
        .expression_attribute_values(":one", AttributeValue::N("1".into()));
    left.send().await.unwrap();
    assert_eq!(service.card_number().await, "1000000011");
    let keyed = send(&service, "/v2/cardNumber", "key-1", &json!({})).await;
    assert_eq!(keyed.json["entity"], "1000000012");
    assert_eq!(send(&service, "/v2/customers", "key-2", &body("/v2/customers")).await.status, 200);
    service.apply(&demo_org_with("CONF_CARD_NUMBER_OFFSET = 2000000000")).await.unwrap();
    assert!(
        !counter(&table).await.keys().any(|name| name.starts_with("reserved")),
        "the new plan must start without reservations"
    );
    assert_eq!(service.card_number().await, "2000000000");
}

/// Requests may come after the last number is taken and before its response is stored. They are
/// answered that the range is exhausted.
#[tokio::test(flavor = "multi_thread")]
async fn all_requests_with_the_key_of_the_last_number_get_it_once_its_response_is_stored() {
    for _ in 0..4 {
        let (table, service) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99").await;
        let work = |service: TestService, _| async move {
            send(&service, "/v2/cardNumber", "key-1", &json!({})).await
        };
        let answers = all_at_once(&processes(&table), 16, work).await;
        assert!(answers.iter().any(|answer| answer.status == 200), "{answers:?}");
        for answer in answers {
            let given = answer.status == 200 && answer.json["entity"] == "99";
            assert!(given || answer.refusal() == (409, vec![702]), "{answer:?}");
        }
        assert_eq!(send(&service, "/v2/cardNumber", "key-1", &json!({})).await.json["entity"], "99");
    }
}

#[tokio::test]
async fn a_request_with_a_key_follows_a_concurrent_change_of_the_plan() {
    for route in ["/v2/cardNumber", "/v2/customers"] {
        let (_table, service) = demo().await;
        service.fetch().await;
        service
            .apply(&demo_org_with("CONF_CARD_NUMBER_PREFIX = \"A\"\nCONF_CARD_NUMBER_LENGTH = 12"))
            .await
            .unwrap();
        // This process still has the old plan in its cache.
        assert_eq!(send(&service, route, "key-1", &body(route)).await.status, 200, "{route}");
        assert_eq!(service.card_number().await, "A01000000011", "{route}");
    }
}

#[tokio::test]
async fn a_key_that_is_reused_for_another_request_is_422() {
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
    assert_eq!(
        send(&service, "/v2/otp/generate", "key-1", &otp).await.status,
        200,
        "the key is free on the next day"
    );

    let mut taken = body("/v2/customers");
    taken["profiles"][0]["identifiers"][0]["value"] = MOBILE.into();
    assert_eq!(send(&service, "/v2/customers", "key-2", &taken).await.refusal(), (409, vec![8006]));
    assert_eq!(send(&service, "/v2/customers", "key-2", &body("/v2/customers")).await.status, 200);
}

#[tokio::test]
async fn a_request_with_a_key_skips_an_already_registered_number() {
    let (_table, service) = demo().await;
    let mut by_hand = body("/v2/customers");
    by_hand["profiles"][0]["identifiers"] = json!([{"type": "externalId", "value": "1000000010"}]);
    assert_eq!(service.post("/v2/customers", &by_hand).await.status, 200);
    assert_eq!(send(&service, "/v2/customers", "key-1", &body("/v2/customers")).await.status, 200);
    assert_eq!(service.card_number().await, "1000000012");
}

#[tokio::test]
async fn invalid_keys_are_refused() {
    let (_table, service) = demo().await;
    for key in ["", "with space", &"x".repeat(256), "tab\tkey", "\"open"] {
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

/// Writes `text` as a query may contain it. `style` decides for each byte whether it is plain or
/// percent-encoded, in either case. A space may be `+`.
fn encode(text: &str, style: &[u8]) -> String {
    let bytes = text.bytes().zip(style.iter().cycle()).map(|(byte, style)| match (byte, style % 3) {
        (b' ', 0) => "+".to_owned(),
        (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', 0) => {
            char::from(byte).to_string()
        }
        (byte, 1) => format!("%{byte:02x}"),
        (byte, _) => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// A POST for a card number with a key, as an HTTP API passes it on.
fn keyed_event(key: &str, query: &str, body: &str) -> Value {
    let mut event: Value = serde_json::from_str(&events::read("card-number-post", "v2")).unwrap();
    event["headers"]["idempotency-key"] = key.into();
    event["rawQueryString"] = query.into();
    event["body"] = body.into();
    event["isBase64Encoded"] = false.into();
    event
}

/// The same request as a REST API passes it on: decoded, in the order of the map.
fn keyed_rest_event(key: &str, parameters: &[(String, String)], body: &str) -> Value {
    let mut event: Value = serde_json::from_str(&events::read("card-number-post", "v1")).unwrap();
    event["headers"]["Idempotency-Key"] = key.into();
    event["multiValueHeaders"]["Idempotency-Key"] = json!([key]);
    let mut values = Map::<String, Value>::new();
    for (name, value) in parameters {
        values.entry(name).or_insert(json!([])).as_array_mut().unwrap().push(value.as_str().into());
    }
    event["queryStringParameters"] = Value::Null;
    event["multiValueQueryStringParameters"] = values.into();
    event["body"] = STANDARD.encode(body).into();
    event["isBase64Encoded"] = true.into();
    event
}

async fn invoke(service: &TestService, event: &Value) -> (u16, String) {
    let response = service.app.handle(events::request(&event.to_string()).unwrap().unwrap()).await;
    (response.status().as_u16(), response.into_body())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_stays_the_same_if_a_gateway_reorders_or_reencodes_it(
        others in vec(("x[a-z]{0,2}", any::<String>()), 0..5),
        order in vec(any::<prop::sample::Index>(), 8),
        (first_style, second_style) in (vec(any::<u8>(), 1..20), vec(any::<u8>(), 1..20)),
        body in any::<String>(),
        key in "[!#-+.-~]{1,40}",
    ) {
        static SERVICE: LazyLock<(Runtime, TestTable, TestService)> = LazyLock::new(|| {
            let runtime = Runtime::new().unwrap();
            let (table, service) = runtime.block_on(demo());
            (runtime, table, service)
        });
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let (runtime, _table, service) = &*SERVICE;
        let key = format!("{}{key}", KEYS.fetch_add(1, Ordering::Relaxed));

        let mut parameters = vec![("source".to_owned(), "WECHAT".to_owned()), ("accountId".to_owned(), "WECHAT-API1".to_owned())];
        parameters.extend(others);
        let mut reordered = parameters.clone();
        for (i, index) in order.iter().enumerate() {
            let (i, j) = (i % reordered.len(), index.index(reordered.len()));
            reordered.swap(i, j);
        }
        let query = |parameters: &[(String, String)], style: &[u8]| {
            let pair = |(name, value): &(String, String)| format!("{}={}", encode(name, style), encode(value, style));
            parameters.iter().map(pair).collect::<Vec<_>>().join("&")
        };
        let mut another = parameters.clone();
        another[2 % parameters.len()].1.push('x');

        runtime.block_on(async {
            let first = invoke(service, &keyed_event(&key, &query(&parameters, &first_style), &body)).await;
            prop_assert_eq!(first.0, 200, "{}", first.1);
            let quoted = format!("\"{}\"", key.replace('\\', r"\\"));
            for again in [
                keyed_event(&key, &query(&reordered, &second_style), &body),
                keyed_event(&quoted, &query(&reordered, &first_style), &body),
                keyed_rest_event(&key, &reordered, &body),
            ] {
                prop_assert_eq!(&invoke(service, &again).await, &first);
            }
            if parameters.len() > 2 {
                let (status, text) = invoke(service, &keyed_rest_event(&key, &another, &body)).await;
                prop_assert_eq!(status, 422, "{}", text);
            }
            let (status, text) = invoke(service, &keyed_rest_event(&key, &parameters, &format!("{body} "))).await;
            prop_assert_eq!(status, 422, "{}", text);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn several_keys_are_400_in_one_header_or_two() {
    let (_table, service) = demo().await;
    for keys in
        [&["a,b"][..], &["a, a"], &["\"a\",\"b\""], &["a", "b"], &["a", "a"], &["\"a\"", "a"], &["", "a"]]
    {
        let mut event: Value = serde_json::from_str(&events::read("card-number-post", "v1")).unwrap();
        event["multiValueHeaders"]["Idempotency-Key"] = json!(keys);
        let (status, text) = invoke(&service, &event).await;
        assert_eq!(status, 400, "{keys:?}: {text}");
        let (status, text) = invoke(&service, &keyed_event(&keys.join(","), "", "")).await;
        assert_eq!(status, 400, "{keys:?}: {text}");
    }
    assert_eq!(service.card_number().await, "1000000010", "the refused request must take no number");
}
