//! What the log contains, and what it must never contain.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use loyalty_codes::api::ROUTES;
use serde_json::json;

use crate::common::{Log, MOBILE, PASSWORD, demo};

#[tokio::test]
async fn no_otp_password_or_customer_identifier_is_logged_at_any_level() {
    let (table, service) = demo().await;
    let (log, guard) = Log::record();
    let mut secrets: Vec<String> = [
        MOBILE, "9010000022", "tom@example.com", "openid-1", "CARD-1", "MINE-7", "Sawyer", PASSWORD,
        "8a16a6b70505eb1f1ff7cdc0cd5559a7", "SECRET-TEMPLATE", "wrong-password", "WRONG-CODE",
    ]
    .map(str::to_owned)
    .to_vec();
    secrets.push(STANDARD.encode(format!("store.server:{PASSWORD}")));

    // Successful requests on every route.
    let issue = json!({
        "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
        "template": "SECRET-TEMPLATE {{ validation_code }}",
        "channels": [{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": "tom@example.com"}],
    });
    assert_eq!(service.post("/v2/otp/generate", &issue).await.status, 200);
    secrets.push(service.code().await);
    service.get(&format!("/v2/otp/source=INSTORE&mobile={MOBILE}&scope=POINTS")).await;
    assert!(service.is_right(&secrets.last().unwrap().clone()).await);
    secrets.push(service.card_number().await);
    let card = service.send(Method::POST, "/v2/cardNumber", &[], Bytes::new()).await;
    secrets.push(card.json["entity"].as_str().unwrap().to_owned());
    let customer = json!({"profiles": [{"lastName": "Sawyer", "source": "INSTORE", "identifiers": [
        {"type": "mobile", "value": "9010000022"}, {"type": "externalId", "value": "MINE-7"},
    ]}]});
    let registered = service.post("/v2/customers", &customer).await;
    secrets.push(registered.json["createdId"].as_u64().unwrap().to_string());

    let token = service.token().await;
    let by_token = service.with_token(&token);
    by_token.card_number().await;
    secrets.push(token);

    // Refused requests on every route, including early refusals.
    by_token.get("/v2/otp?scope=X").await;
    by_token.as_till("store.server", "wrong-password").request_token("store.server", "wrong-password").await;
    let unknown = "A".repeat(43);
    service.with_token(&unknown).get("/v2/cardNumber").await;
    secrets.push(unknown);
    service.validate("WRONG-CODE").await;
    service.post("/v2/customers", &customer).await;
    for query in
        ["source=INSTORE&wechat=openid-1&scope=X", "source=X&email=tom@example.com", "external_id=CARD-1"]
    {
        service.get(&format!("/v2/otp?{query}")).await;
    }
    for route in ROUTES {
        for body in ["{\"entityValue\":\"8799361139\"", "{}", "[\"8799361139\"]"] {
            service.send(route.method.clone(), route.path, &[], body.into()).await;
        }
    }
    service.get("/v2/customers/8799361139").await;
    service.as_till("store.server", "wrong-password").get("/v2/cardNumber").await;

    // Requests without a table, so that causes are logged.
    table.client().delete_table().table_name(table.name()).send().await.unwrap();
    service.fetch().await;
    service.post("/v2/otp/generate", &issue).await;
    service.post("/v2/customers", &customer).await;
    assert_eq!(service.request_token("store.server", PASSWORD).await.refusal(), (500, vec![500]));
    assert_eq!(by_token.another_process().fetch().await.refusal(), (500, vec![500]));
    assert_eq!(service.get("/v2/cardNumber").await.refusal(), (500, vec![500]));
    drop(guard);

    let text = log.text();
    assert!(text.contains("store.server"), "the till is logged: {text}");
    assert!(text.contains("ResourceNotFoundException"), "causes are logged: {text}");
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()), "{secret} is in the log:\n{text}");
    }
    let routes: HashSet<String> =
        log.requests().iter().map(|r| r["route"].as_str().unwrap().to_owned()).collect();
    let all: HashSet<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert!(routes.is_superset(&all), "not every route was called: {routes:?}");
}

#[tokio::test]
async fn a_request_is_logged_in_one_line_with_all_fields() {
    let (_table, service) = demo().await;
    let (log, _guard) = Log::record();
    service.get("/v2/otp?source=INSTORE&mobile=8799361139&scope=POINTS").await;
    service.as_till("nobody", "x").get("/v2/cardNumber").await;
    service.get("/nowhere").await;
    let lines = log.requests();
    assert_eq!(log.text().lines().count(), 3);

    let fetch = &lines[0];
    for (field, value) in [
        ("level", json!("INFO")),
        ("request_id", json!("test-request")),
        ("route", json!("GET /v2/otp")),
        ("status", json!(404)),
        ("org", json!("966")),
        ("till", json!("store.server")),
        ("outcome", json!("9001")),
        ("round_trips", json!(2)),
    ] {
        assert_eq!(fetch[field], value, "{field}");
    }
    assert!(fetch["ms"].as_f64().unwrap() > 0.0);
    assert_eq!(lines[1]["outcome"], "401");
    assert!(lines[1].get("till").is_none(), "an unauthenticated name must not be logged");
    assert_eq!((&lines[1]["org"], &lines[1]["route"]), (&json!("none"), &json!("GET /v2/cardNumber")));
    assert_eq!((&lines[2]["outcome"], &lines[2]["route"]), (&json!("404"), &json!("none")));
}
