//! The metrics of requests, as CloudWatch reads them from the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use loyalty_codes::api::{App, metrics::Event};
use serde_json::{Value, json};

use crate::common::{
    DEMO_ORG, Log, MOBILE, TestService, TestTable, demo_with, faults::Fault, faults::with_fault_proxy,
    template,
};

/// The same service in a process that has served no request yet.
fn started(service: &TestService) -> TestService {
    let app = App::new(service.store.clone(), service.clock.clock());
    TestService { app: Arc::new(app), ..service.clone() }
}

/// The dimension sets of each metric of a line. Every metric must be a number in the line, and
/// every dimension a string.
fn metrics(line: &Value) -> BTreeMap<String, BTreeSet<Vec<String>>> {
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
        let dimensions: BTreeSet<Vec<String>> =
            serde_json::from_value(directive["Dimensions"].clone()).unwrap();
        assert!(dimensions.iter().flatten().all(|dimension| line[dimension].is_string()), "{line}");
        for metric in directive["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            assert!(line[name].is_number(), "{name} in {line}");
            assert!(found.insert(name.to_owned(), dimensions.clone()).is_none(), "{name} twice in {line}");
        }
    }
    found
}

fn values(line: &Value) -> BTreeMap<String, f64> {
    metrics(line).into_keys().map(|name| (name.clone(), line[&name].as_f64().unwrap())).collect()
}

#[tokio::test]
async fn the_log_line_of_a_request_contains_its_metrics() {
    let (table, service) = demo_with("CONF_CARD_NUMBER_LENGTH = 3\nCONF_CARD_NUMBER_OFFSET = 500").await;
    let service = started(&service);
    let (log, _recording) = Log::record();
    service.card_number().await;
    service.issue().await;
    let code = service.code().await;
    assert!(!service.is_right("WRONG").await);
    assert!(service.is_right(&code).await);
    service.get("/v2/otp?scope=X").await;
    service.without_credentials().get("/v2/cardNumber").await;
    service.get("/nowhere").await;
    issue_with_message(&table).await;

    let refusal = |codes: &[u16]| codes.iter().map(|code| (format!("Outcome.{code}"), 1.0)).collect();
    let events = |events: &[(&str, f64)]| events.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    let expected: [(_, _, BTreeMap<String, f64>); 9] = [
        (
            "966",
            "GET /v2/cardNumber",
            events(&[("CardNumbersGenerated", 1.0), ("CardNumberRangeUsed", 0.2), ("ColdStarts", 1.0)]),
        ),
        ("966", "POST /v2/otp/generate", events(&[("OtpsIssued", 1.0)])),
        ("966", "GET /v2/otp", events(&[("OtpsFetched", 1.0)])),
        ("966", "POST /v2/otp/validate", events(&[("OtpsRefused", 1.0)])),
        ("966", "POST /v2/otp/validate", events(&[("OtpsValidated", 1.0)])),
        ("966", "GET /v2/otp", refusal(&[600, 8016, 8092, 8093])),
        ("none", "GET /v2/cardNumber", refusal(&[401])),
        ("none", "none", refusal(&[404])),
        (
            "966",
            "POST /v2/otp/generate",
            events(&[("OtpsIssued", 1.0), ("OtpsToDeliver", 1.0), ("ColdStarts", 1.0)]),
        ),
    ];
    let lines = log.requests();
    assert_eq!(lines.len(), expected.len());
    let mut happened = BTreeSet::new();
    for (line, (org, route, mut own)) in lines.iter().zip(expected) {
        assert_eq!((&line["org"], &line["route"]), (&json!(org), &json!(route)));
        own.extend([("Requests".to_owned(), 1.0), ("Latency".to_owned(), line["ms"].as_f64().unwrap())]);
        let values = values(line);
        assert_eq!(values, own, "{line}");
        happened.extend(values.into_keys());
        assert!(line["_aws"]["Timestamp"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000));
        for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
            assert_eq!(directive["Namespace"], "loyalty-codes");
        }
    }
    for event in Event::ALL {
        assert!(happened.contains(event.as_str()), "{event} is in no line");
    }
    let text = log.text();
    for secret in [MOBILE, &code, "WRONG"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn an_event_that_occurs_twice_in_a_request_is_one_metric() {
    let (_table, service) = demo_with("").await;
    let (log, _recording) = Log::record();
    let register = async |identifiers: Value| {
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        service.post("/v2/customers", &body).await.status
    };
    assert_eq!(register(json!([{"type": "externalId", "value": "1000000010"}])).await, 200);
    assert_eq!(register(json!([{"type": "mobile", "value": "9010000022"}])).await, 200);
    assert_eq!(
        register(json!([{"type": "mobile", "value": "1"}, {"type": "mobile", "value": "2"}])).await,
        400
    );
    let lines = log.requests();
    assert_eq!(
        lines[1]["CardNumbersGenerated"].as_f64(),
        Some(2.0),
        "one number was already registered explicitly"
    );
    assert_eq!(lines[2]["outcome"], "8056,8056");
    assert_eq!(lines[2]["Outcome.8056"].as_f64(), Some(1.0));
}

/// Issues an OTP with a message, after the org was given a `[delivery]` table.
async fn issue_with_message(table: &TestTable) {
    let service = table.service("store.server");
    let mut document: toml::Table = DEMO_ORG.parse().unwrap();
    let delivery = "SMS = \"webhook\"\nwebhook = {url = \"https://gateway.example/otp\"}";
    document.insert("delivery".to_owned(), delivery.parse::<toml::Table>().unwrap().into());
    service.apply(&document.try_into().unwrap()).await.unwrap();
    let body = json!({
        "entityType": "MOBILE", "entityValue": MOBILE, "action": "GENERIC",
        "channels": [{"type": "SMS", "value": MOBILE}],
    });
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
}

/// Takes a card number with one retry.
async fn retried(log: &Log, service: &TestService, faults: &crate::common::faults::Faults) -> Value {
    service.card_number().await;
    faults.inject(|_, call| (call == 0).then(|| Fault::error("ThrottlingException")));
    service.card_number().await;
    log.requests().pop().unwrap()
}

#[tokio::test]
async fn retries_are_counted() {
    let (table, _service) = demo_with("").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let (log, _recording) = Log::record();
    let line = retried(&log, &service, &faults).await;
    assert_eq!((&line["round_trips"], values(&line)["DynamoDbRetries"]), (&json!(2), 1.0));
}

#[tokio::test]
async fn alarms_and_dashboard_use_metrics_that_are_written() {
    let (table, _service) = demo_with("").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let service = started(&service);
    let (log, _recording) = Log::record();
    service.issue().await;
    let code = service.code().await;
    assert!(!service.is_right("WRONG").await);
    assert!(service.is_right(&code).await);
    issue_with_message(&table).await;
    retried(&log, &service, &faults).await;
    let written: BTreeSet<template::Metric> = log.requests().iter().flat_map(template::metrics_in).collect();

    // tests/delivery has the delivery function's.
    let mut asked = template::metrics();
    asked.retain(|metric| !template::is_of_delivery(metric));
    let missing: Vec<_> = asked.difference(&written).collect();
    assert!(missing.is_empty(), "the template uses metrics that are never written: {missing:?}");
    let names: BTreeSet<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    for event in Event::ALL {
        assert!(names.contains(event.as_str()), "{event} is on no dashboard");
    }
}
