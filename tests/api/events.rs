//! The files of `events/`, as `lambda_http` reads them.

use loyalty_codes::lambda;
use serde_json::Value;

use crate::common::{
    demo,
    events::{EVENTS, VERSIONS, assert_all_files_are_listed, codes, read},
};

#[tokio::test]
async fn every_event_is_answered_as_listed() {
    assert_all_files_are_listed();
    for version in VERSIONS {
        let (_table, service) = demo().await;
        for (name, status, expected) in EVENTS {
            let event = lambda_http::request::from_str(&read(name, version)).unwrap();
            let request = lambda::request(event);
            let gateway_id = request.request_id.clone();
            let response = service.app.handle(request).await;
            let body: Value = serde_json::from_str(response.body()).unwrap();
            assert_eq!(
                (response.status().as_u16(), codes(&body)),
                (*status, expected.to_vec()),
                "{name}.{version}"
            );
            assert_eq!(response.headers()["x-request-id"], gateway_id);
            assert!(!gateway_id.is_empty());
        }
    }
}

#[tokio::test]
async fn both_payload_versions_of_a_fetch_have_the_same_answer() {
    let (_table, service) = demo().await;
    let play = async |name: &str, version: &str| {
        let event = lambda_http::request::from_str(&read(name, version)).unwrap();
        service.app.handle(lambda::request(event)).await.into_body()
    };
    play("otp-generate", "v2").await;
    let expected = play("otp-fetch", "v2").await;
    assert!(expected.contains("\"userId\":313302314"), "{expected}");
    for name in ["otp-fetch", "otp-fetch-in-path", "otp-fetch-by-shorthand"] {
        for version in VERSIONS {
            assert_eq!(play(name, version).await, expected, "{name}.{version}");
        }
    }
}

/// One event with another path, as a named stage or an encoded path makes it.
fn with(version: &str, change: impl FnOnce(&mut Value)) -> lambda_http::Request {
    let mut event: Value = serde_json::from_str(&read("otp-fetch", version)).unwrap();
    change(&mut event);
    lambda_http::request::from_str(&event.to_string()).unwrap()
}

#[tokio::test]
async fn a_named_stage_is_no_part_of_the_path() {
    let request = lambda::request(with("v2", |event| {
        event["rawPath"] = "/prod/v2/otp".into();
        event["requestContext"]["stage"] = "prod".into();
    }));
    assert_eq!(request.path, "/v2/otp");
    assert_eq!(lambda::request(with("v1", |_| ())).path, "/v2/otp");
}

#[tokio::test]
async fn parameters_arrive_decoded_once_in_both_versions() {
    let (_table, service) = demo().await;
    let body = serde_json::json!({"profiles": [{"source": "INSTORE", "identifiers": [
        {"type": "externalId", "value": "50%25 + &=कार्ड"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    let encoded = "external_id=50%2525+%2B+%26%3D%E0%A4%95%E0%A4%BE%E0%A4%B0%E0%A5%8D%E0%A4%A1";
    let v2 =
        with("v2", |event| event["rawQueryString"] = format!("source=INSTORE&scope=POINTS&{encoded}").into());
    let v1 = with("v1", |event| {
        event["multiValueQueryStringParameters"] = serde_json::json!({
            "source": ["INSTORE"], "scope": ["POINTS"], "external_id": ["50%25 + &=कार्ड"],
        });
    });
    for event in [v2, v1] {
        let response = service.app.handle(lambda::request(event)).await;
        assert!(response.body().contains("9001"), "the customer is found: {}", response.body());
    }
}

#[tokio::test]
async fn a_repeated_parameter_is_seen_in_both_versions() {
    let (_table, service) = demo().await;
    let v2 = with("v2", |event| {
        event["rawQueryString"] = "source=INSTORE&mobile=8799361139&scope=POINTS&scope=COUPON".into();
    });
    let v1 = with("v1", |event| {
        event["multiValueQueryStringParameters"] = serde_json::json!({
            "source": ["INSTORE"], "mobile": ["8799361139"], "scope": ["POINTS", "COUPON"],
        });
    });
    for event in [v2, v1] {
        assert_eq!(service.app.handle(lambda::request(event)).await.status(), 400);
    }
}
