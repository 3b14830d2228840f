//! How many times a warm process goes to DynamoDB for each request. These numbers do not grow.

use serde_json::json;

use crate::{
    common::{Log, MOBILE, Recording, TestService, TestTable, demo},
    idempotency,
};

/// The round trips of the last request.
fn last(log: &Log) -> u64 {
    log.requests().last().unwrap()["round_trips"].as_u64().unwrap()
}

async fn warm() -> (TestTable, TestService, Log, Recording) {
    let (table, service) = demo().await;
    let (log, guard) = Log::record();
    (table, service, log, guard)
}

#[tokio::test]
async fn a_warm_process_keeps_to_the_budget() {
    let (_table, service, log, _guard) = warm().await;
    service.issue().await;
    assert_eq!(last(&log), 2, "generate");
    let code = service.code().await;
    assert_eq!(last(&log), 2, "fetch");
    assert!(!service.is_right("WRONG").await);
    assert_eq!(last(&log), 3, "validate, wrong");
    assert!(service.is_right(&code).await);
    assert_eq!(last(&log), 3, "validate, right");
    service.card_number().await;
    assert_eq!(last(&log), 1, "card number");
}

#[tokio::test]
async fn a_key_costs_one_read_and_a_number_with_a_key_one_write_too() {
    let (_table, service, log, _guard) = warm().await;
    let send = async |route| {
        assert_eq!(idempotency::send(&service, route, route, &idempotency::body(route)).await.status, 200);
        last(&log)
    };
    for (route, round_trips) in
        [("/v2/cardNumber", 3), ("/v2/otp/generate", 3), ("/v2/otp/validate", 4), ("/v2/customers", 5)]
    {
        assert_eq!(send(route).await, round_trips, "{route}");
        assert_eq!(send(route).await, 1, "{route}, the same again");
    }
}

#[tokio::test]
async fn a_contact_needs_no_look_up() {
    let (_table, service, log, _guard) = warm().await;
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "REGISTRATION"});
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    assert_eq!(last(&log), 1, "generate");
    let url = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=REGISTRATION");
    assert_eq!(service.get(&url).await.status, 200);
    assert_eq!(last(&log), 1, "fetch");
}

#[tokio::test]
async fn a_message_costs_no_round_trip() {
    let (_table, service, log, _guard) = warm().await;
    let body = json!({
        "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
        "channels": [{"type": "SMS", "value": MOBILE}],
    });
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    assert_eq!(last(&log), 2);
}

#[tokio::test]
async fn a_registration_costs_three_round_trips_and_one_more_for_a_number() {
    let (_table, service, log, _guard) = warm().await;
    let register = async |identifier| {
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [identifier]}]});
        assert_eq!(service.post("/v2/customers", &body).await.status, 200);
        last(&log)
    };
    assert_eq!(register(json!({"type": "externalId", "value": "A"})).await, 3);
    assert_eq!(register(json!({"type": "mobile", "value": "9010000022"})).await, 4);
}

#[tokio::test]
async fn a_refused_credential_costs_one_round_trip_known_till_or_not() {
    let (_table, service, log, _guard) = warm().await;
    for name in ["store.server", "unknown.till"] {
        let refused = service.as_till(name, "wrong").get("/v2/cardNumber").await;
        assert_eq!(refused.status, 401);
        assert_eq!(last(&log), 1, "{name}");
    }
    service.without_credentials().get("/v2/cardNumber").await;
    assert_eq!(last(&log), 0);
}

#[tokio::test]
async fn bad_input_costs_nothing() {
    let (_table, service, log, _guard) = warm().await;
    for url in ["/v2/otp?scope=X", "/v2/cardNumber?source=TELEX", "/v2/unknown"] {
        service.get(url).await;
        assert_eq!(last(&log), 0, "{url}");
    }
}

#[tokio::test]
async fn a_cold_process_reads_its_till_and_org_first() {
    let (table, _service) = demo().await;
    let cold = table.service("store.server");
    let (log, _guard) = Log::record();
    cold.card_number().await;
    assert_eq!(last(&log), 3);
    cold.card_number().await;
    assert_eq!(last(&log), 1);
}
