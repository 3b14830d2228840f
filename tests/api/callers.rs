//! Habits of clients in the field, on every route. `tests/integrations/` plays whole clients.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use loyalty_codes::api::ROUTES;
use serde_json::{Value, json};

use crate::common::{
    MOBILE, PASSWORD, TOKEN_ROUTE, TestService, basic, demo,
    events::{EVENTS, VERSIONS, read, request},
};

const CHALLENGE: &str = "Basic realm=\"loyalty\"";

#[tokio::test]
async fn a_caller_may_wait_for_the_challenge_on_every_route() {
    let (_table, service) = demo().await;
    let credentials = basic(&format!("store.server:{PASSWORD}"));
    let credentials = [("authorization", credentials.to_str().unwrap())];
    for route in ROUTES {
        let send = async |service: &TestService, headers: &[(&str, &str)]| {
            service.send(route.method.clone(), route.path, headers, "{}".into()).await
        };
        let anonymous = service.without_credentials();
        let challenged = send(&anonymous, &[]).await;
        assert_eq!(challenged.refusal(), (401, vec![401]), "{}", route.path);
        assert_eq!(challenged.header("www-authenticate"), Some(CHALLENGE), "{}", route.path);
        let answered = send(&anonymous, &credentials).await;
        // The credentials of a token request are in its body.
        assert_eq!(answered.status == 401, route.path == TOKEN_ROUTE, "{}", route.path);
    }
}

#[tokio::test]
async fn a_get_may_have_the_content_type_of_xml_on_every_route() {
    let (_table, service) = demo().await;
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        let send = async |headers: &[(&str, &str)]| {
            service.send(Method::GET, route.path, headers, Bytes::new()).await.status
        };
        let xml = send(&[("content-type", "text/xml"), ("accept", "text/xml")]).await;
        assert_eq!(xml, send(&[]).await, "{}", route.path);
        assert_ne!(xml, 415, "{}", route.path);
    }
}

#[tokio::test]
async fn no_success_but_a_tokens_has_the_key_errors() {
    let mut succeeded = BTreeSet::new();
    for version in VERSIONS {
        let (_table, service) = demo().await;
        for (name, status, _) in EVENTS.iter().filter(|(name, ..)| !name.contains("head")) {
            let event = request(&read(name, version)).unwrap().unwrap();
            let response = service.app.handle(event).await;
            let body: Value = serde_json::from_str(response.body()).unwrap();
            let (has_errors, is_token) = (body.get("errors").is_some(), name.starts_with("token"));
            assert_eq!(has_errors, *status != 200 || is_token, "{name}.{version}: {body}");
            assert_eq!(body.get("warnings").is_none(), is_token, "{name}.{version}: {body}");
            if is_token {
                assert_eq!(body["errors"], Value::Null, "{name}.{version}");
            }
            if *status == 200 {
                succeeded.insert(name.split(['-']).next().unwrap());
            }
        }
    }
    let tags: BTreeSet<&str> = ["card", "customer", "otp", "token"].into();
    assert_eq!(succeeded, tags);
}

#[tokio::test]
async fn attribution_headers_change_nothing() {
    let (_table, service) = demo().await;
    service.create_till("kiosk", 966, &[]).await;
    let attribution = [
        ("content-type", "application/json"),
        ("x-cap-api-attribution-entity-type", "TILL"),
        ("x-cap-api-attribution-entity-code", "kiosk"),
        ("x-cap-api-org-id", "967"),
    ];
    let issue = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}).to_string();
    let issued = service.send(Method::POST, "/v2/otp/generate", &attribution, issue.clone().into()).await;
    assert_eq!(issued.status, 200, "the till that authenticates counts, not the one that is named");
    let kiosk = service.as_till("kiosk", PASSWORD);
    let naming_another = [attribution[0], attribution[1], (attribution[2].0, "store.server")];
    let refused = kiosk.send(Method::POST, "/v2/otp/generate", &naming_another, issue.into()).await;
    assert_eq!(refused.refusal(), (403, vec![4000]));
    let url = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS");
    let fetched = service.send(Method::GET, &url, &attribution, Bytes::new()).await;
    assert_eq!(fetched, service.get(&url).await);
}
