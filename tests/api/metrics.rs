//! The metrics of requests, as CloudWatch reads them.

use std::sync::Arc;

use loyalty_codes::api::{App, metrics::Metrics};
use serde_json::{Value, json};

use crate::common::{
    Log, MOBILE, TestService, demo_with,
    faults::{Fault, behind_faults},
};

/// The same process, writing its metrics into a log.
fn measured(service: &TestService) -> (TestService, Log) {
    let log = Log::default();
    let app = App::new(service.store.clone(), service.clock.clock()).with_metrics(Metrics::new(log.clone()));
    (TestService { app: Arc::new(app), ..service.clone() }, log)
}

fn lines(log: &Log) -> Vec<Value> {
    log.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_request_is_a_line_with_its_org_and_route() {
    let (_table, service) = demo_with("CONF_CARD_NUMBER_LENGTH = 3\nCONF_CARD_NUMBER_OFFSET = 500").await;
    let (service, log) = measured(&service);
    service.card_number().await;
    service.issue().await;
    let code = service.code().await;
    assert!(!service.is_right("WRONG").await);
    assert!(service.is_right(&code).await);
    service.get("/v2/otp?scope=X").await;
    service.without_credentials().get("/v2/cardNumber").await;
    service.get("/nowhere").await;

    let lines = lines(&log);
    let expected = [
        (
            "966",
            "GET /v2/cardNumber",
            "Outcome.ok",
            json!({"CardNumbersGenerated": 1, "CardNumberRangeUsed": 0.2, "DynamoDbRoundTrips": 3, "ColdStarts": 1}),
        ),
        (
            "966",
            "POST /v2/otp/generate",
            "Outcome.ok",
            json!({"OtpsIssued": 1, "DynamoDbRoundTrips": 2, "ColdStarts": 0}),
        ),
        ("966", "GET /v2/otp", "Outcome.ok", json!({"OtpsFetched": 1})),
        ("966", "POST /v2/otp/validate", "Outcome.ok", json!({"OtpsRefused": 1})),
        ("966", "POST /v2/otp/validate", "Outcome.ok", json!({"OtpsValidated": 1, "DynamoDbRoundTrips": 3})),
        (
            "966",
            "GET /v2/otp",
            "Outcome.8016",
            json!({"Outcome.8092": 1, "Outcome.8093": 1, "Outcome.600": 1}),
        ),
        ("none", "GET /v2/cardNumber", "Outcome.401", json!({"DynamoDbRoundTrips": 0})),
        ("none", "none", "Outcome.404", json!({})),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (org, route, outcome, values)) in lines.iter().zip(expected) {
        assert_eq!((&line["org"], &line["route"]), (&json!(org), &json!(route)));
        assert_eq!(
            (&line["Requests"], &line[outcome], &line["DynamoDbRetries"]),
            (&json!(1), &json!(1), &json!(0)),
            "{line}"
        );
        assert!(line["Latency"].as_f64().unwrap() > 0.0);
        for (name, value) in values.as_object().unwrap() {
            assert_eq!(line[name].as_f64(), value.as_f64(), "{name} in {line}");
        }
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "loyalty-codes");
        assert_eq!(directive["Dimensions"], json!([["org", "route"], []]));
    }
    let text = log.text();
    for secret in [MOBILE, &code, "store.server", "WRONG"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_happens_twice_in_a_request_is_one_metric() {
    let (_table, service) = demo_with("").await;
    let (service, log) = measured(&service);
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
    let lines = lines(&log);
    assert_eq!(lines.len(), 3, "a line with a metric twice would not be written");
    assert_eq!(lines[1]["CardNumbersGenerated"], 2, "one was taken by hand");
    assert_eq!(lines[2]["Outcome.8056"], 1);
}

#[tokio::test]
async fn retries_are_counted() {
    let (table, _service) = demo_with("").await;
    let (service, faults) = behind_faults(&table, "store.server").await;
    let (service, log) = measured(&service);
    service.card_number().await;
    faults.inject(|_, call| (call == 0).then(|| Fault::error("ThrottlingException")));
    service.card_number().await;
    let last = &lines(&log)[1];
    assert_eq!((&last["DynamoDbRoundTrips"], &last["DynamoDbRetries"]), (&json!(2), &json!(1)));
}

#[test]
fn the_template_looks_at_metrics_that_are_written() {
    let template = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/template.yaml")).unwrap();
    assert!(template.contains("Namespace: loyalty-codes\n      MetricName: CardNumberRangeUsed"));
}
