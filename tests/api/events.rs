//! The files of `events/`, as `lambda_http` reads them.

use loyalty_codes::entrypoints::api_gateway;
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
            let request = api_gateway::request(parse(&read(name, version)));
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
        service.app.handle(api_gateway::request(parse(&read(name, version)))).await.into_body()
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

/// Reads an event as the function does.
fn parse(event: &str) -> lambda_http::Request {
    let mut event = serde_json::from_str(event).unwrap();
    api_gateway::sanitize_event(&mut event);
    event.into()
}

/// One event with another path, as a named stage or an encoded path makes it.
fn with(version: &str, change: impl FnOnce(&mut Value)) -> lambda_http::Request {
    let mut event: Value = serde_json::from_str(&read("otp-fetch", version)).unwrap();
    change(&mut event);
    parse(&event.to_string())
}

#[tokio::test]
async fn a_named_stage_is_no_part_of_the_path() {
    let request = api_gateway::request(with("v2", |event| {
        event["rawPath"] = "/prod/v2/otp".into();
        event["requestContext"]["stage"] = "prod".into();
    }));
    assert_eq!(request.path, "/v2/otp");
    let rest = api_gateway::request(with("v1", |event| event["requestContext"]["stage"] = "v2".into()));
    assert_eq!(rest.path, "/v2/otp", "a REST API leaves its stage out, whatever its name");
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
        let response = service.app.handle(api_gateway::request(event)).await;
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
        assert_eq!(service.app.handle(api_gateway::request(event)).await.status(), 400);
    }
}

#[tokio::test]
async fn what_no_uri_can_hold_is_bad_input_and_no_panic() {
    let (_table, service) = demo().await;
    for odd in ["\"", "<x>", " ", "#", "\u{1}", "\u{7f}", "{}|\\^`", "100%", "ü", "%zz", "\u{10ffff}"] {
        let query = format!("source=INSTORE&scope=POINTS&wechat=a{odd}b");
        let v2_query = with("v2", |event| event["rawQueryString"] = query.clone().into());
        let v2_path = with("v2", |event| {
            event["rawQueryString"] = "".into();
            event["rawPath"] = format!("/v2/otp/{query}").into();
        });
        let v1_query = with("v1", |event| {
            event["multiValueQueryStringParameters"] = serde_json::json!({
                "source": ["INSTORE"], "scope": ["POINTS"], "wechat": [format!("a{odd}b")],
            });
        });
        let v1_path = with("v1", |event| {
            event["multiValueQueryStringParameters"] = Value::Null;
            event["queryStringParameters"] = Value::Null;
            event["path"] = format!("/v2/otp/{query}").into();
        });
        for (place, event) in
            [("v2 query", v2_query), ("v2 path", v2_path), ("v1 query", v1_query), ("v1 path", v1_path)]
        {
            let status = service.app.handle(api_gateway::request(event)).await.status();
            assert!(status == 404 || status == 400, "{odd:?} in {place}: {status}");
        }
    }
    for host in ["not a host", "[", "a b:99999"] {
        for version in VERSIONS {
            let event = with(version, |event| {
                event["headers"]["host"] = host.into();
                event["headers"]["x-forwarded-proto"] = "::".into();
                event["requestContext"]["domainName"] = host.into();
            });
            assert_ne!(service.app.handle(api_gateway::request(event)).await.status(), 500);
        }
    }
    for path in ["", "v2/otp", "*", "//", "http://x/v2"] {
        let event = with("v2", |event| event["rawPath"] = path.into());
        let status = service.app.handle(api_gateway::request(event)).await.status();
        assert!(status.is_client_error(), "{path}: {status}");
    }
}
