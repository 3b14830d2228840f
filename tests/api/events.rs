//! API Gateway events: the files of `events/`, and variants that callers and gateways can produce.

use bytes::Bytes;
use loyalty_codes::api::{Path, Request};
use serde_json::{Value, json};

use crate::common::{
    MOBILE, TestService, demo, events,
    events::{EVENTS, VERSIONS, assert_all_files_are_listed, codes, codes_in, read},
};

/// Parses the request in an event of API Gateway.
fn parse(event: &str) -> Request {
    events::request(event).unwrap().unwrap_or_else(|| panic!("{event}"))
}

/// Parses a file's event after changes.
fn with(name: &str, version: &str, change: impl FnOnce(&mut Value)) -> Request {
    let mut event: Value = serde_json::from_str(&read(name, version)).unwrap();
    change(&mut event);
    parse(&event.to_string())
}

/// Returns the status and the error codes of the answer to a request.
async fn refusal(service: &TestService, request: Request) -> (u16, Vec<u64>) {
    let response = service.app.handle(request).await;
    (response.status().as_u16(), codes(&serde_json::from_str(response.body()).unwrap()))
}

#[tokio::test]
async fn every_event_is_answered_as_listed() {
    assert_all_files_are_listed();
    for version in VERSIONS {
        let (_table, service) = demo().await;
        for (name, status, expected) in EVENTS {
            let request = parse(&read(name, version));
            let gateway_id = request.request_id.clone();
            let response = service.app.handle(request).await;
            assert_eq!(
                (response.status().as_u16(), codes_in(name, response.body())),
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
    let invoke =
        async |name: &str, version: &str| service.app.handle(parse(&read(name, version))).await.into_body();
    invoke("otp-generate", "v2").await;
    let expected = invoke("otp-fetch", "v2").await;
    assert!(expected.contains("\"userId\":313302314"), "{expected}");
    for name in ["otp-fetch", "otp-fetch-in-path", "otp-fetch-by-shorthand"] {
        for version in VERSIONS {
            assert_eq!(invoke(name, version).await, expected, "{name}.{version}");
        }
    }
}

#[test]
fn a_named_stage_is_not_part_of_the_path() {
    for (path, expected) in
        [("/prod/v2/otp", "/v2/otp"), ("/v2/otp", "/v2/otp"), ("/production/v2", "/production/v2")]
    {
        let http = with("otp-fetch", "v2", |event| {
            event["rawPath"] = path.into();
            event["requestContext"]["stage"] = "prod".into();
        });
        assert_eq!(http.path, Path::Decoded(expected.to_owned()));
    }
    let rest = with("otp-fetch", "v1", |event| event["requestContext"]["stage"] = "v2".into());
    let expected = Path::Encoded("/v2/otp".to_owned());
    assert_eq!(rest.path, expected, "a REST API removes its stage from the path, whatever its name");
}

#[test]
fn a_path_is_encoded_unless_an_http_api_sends_it() {
    let path = |version, change: fn(&mut Value)| match with("otp-fetch-in-path", version, change).path {
        Path::Encoded(_) => "encoded",
        Path::Decoded(_) => "decoded",
    };
    assert_eq!(path("v1", |_| {}), "encoded", "a REST API");
    assert_eq!(path("v1", |event| event["version"] = "1.0".into()), "decoded", "an HTTP API, payload 1.0");
    assert_eq!(path("v2", |_| {}), "decoded", "an HTTP API, payload 2.0");
    let function_url = |event: &mut Value| {
        event["requestContext"]["domainName"] = "abc.lambda-url.eu-west-1.on.aws".into();
    };
    assert_eq!(path("v2", function_url), "encoded", "a function URL");
}

/// A service with customers who have these external IDs. Each customer has an OTP.
async fn customers(ids: &[&str]) -> (crate::common::TestTable, TestService) {
    let (table, service) = demo().await;
    for id in ids {
        let identifiers = json!([{"type": "externalId", "value": id}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        assert_eq!(service.post("/v2/customers", &body).await.status, 200, "{id}");
        let body = json!({"entityType": "EXTERNAL_ID", "entityValue": id, "action": "POINTS"});
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200, "{id}");
    }
    (table, service)
}

/// A fetch by a path, as an HTTP API or a REST API passes it on.
fn fetch_by_path(version: &str, path: &str) -> Request {
    with("otp-fetch-in-path", version, |event| {
        event[if version == "v2" { "rawPath" } else { "path" }] = path.into();
    })
}

#[tokio::test]
async fn no_spelling_of_a_path_finds_another_customers_otp() {
    let ids = ["A B", "A%20B", "C", "C&D", "E", "E/", "F", "F?G", "+ü#"];
    let (_table, service) = customers(&ids).await;
    let by_query = async |id: &str| {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("source", "INSTORE"), ("scope", "POINTS"), ("external_id", id)])
            .finish();
        let answer = service.get(&format!("/v2/otp?{query}")).await;
        assert_eq!(answer.status, 200, "{id}");
        answer.text
    };
    for id in ids {
        let expected = by_query(id).await;
        let parts = ["source=INSTORE", "scope=POINTS"];
        let encoded =
            percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
        // The path as it was sent, with the parameters at its end and before the end; then as an
        // HTTP API decodes it.
        for (version, id_sent) in [("v1", encoded.as_str()), ("v2", id)] {
            for pieces in [
                [parts[0], parts[1], &format!("external_id={id_sent}")],
                [&format!("external_id={id_sent}"), parts[0], parts[1]],
            ] {
                let path = format!("/v2/otp/{}", pieces.join("&"));
                let response = service.app.handle(fetch_by_path(version, &path)).await;
                if version == "v1" || response.status() == 200 {
                    assert_eq!(response.body(), &expected, "{version} {path}");
                } else {
                    let body: Value = serde_json::from_str(response.body()).unwrap();
                    assert_eq!((response.status().as_u16(), codes(&body)), (400, vec![400]), "{path}");
                    assert!(id.contains(['%', '&', '?', '/']), "{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn parameters_arrive_decoded_once_in_both_versions() {
    let (_table, service) = demo().await;
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [
        {"type": "externalId", "value": "50%25 + &=कार्ड"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    let encoded = "external_id=50%2525+%2B+%26%3D%E0%A4%95%E0%A4%BE%E0%A4%B0%E0%A5%8D%E0%A4%A1";
    let decoded = json!({"source": "INSTORE", "scope": "POINTS", "external_id": "50%25 + &=कार्ड"});
    let v2 = with("otp-fetch", "v2", |event| {
        event["rawQueryString"] = format!("source=INSTORE&scope=POINTS&{encoded}").into();
    });
    let without_raw = with("otp-fetch", "v2", |event| {
        event.as_object_mut().unwrap().remove("rawQueryString");
        event["queryStringParameters"] = decoded.clone();
    });
    let v1 = with("otp-fetch", "v1", |event| {
        event["queryStringParameters"] = Value::Null;
        event["multiValueQueryStringParameters"] = json!({
            "source": ["INSTORE"], "scope": ["POINTS"], "external_id": ["50%25 + &=कार्ड"],
        });
    });
    let v1_single = with("otp-fetch", "v1", |event| {
        event["queryStringParameters"] = decoded.clone();
        event["multiValueQueryStringParameters"] = Value::Null;
    });
    for request in [v2, without_raw, v1, v1_single] {
        assert_eq!(refusal(&service, request).await, (404, vec![9001]), "the customer is found");
    }
}

#[tokio::test]
async fn a_space_that_may_have_been_a_plus_finds_no_other_customer() {
    let (_table, service) = demo().await;
    for mobile in ["+6591234567", "6591234567"] {
        let identifiers = json!([{"type": "mobile", "value": mobile}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        assert_eq!(service.post("/v2/customers", &body).await.status, 200, "{mobile}");
        let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200, "{mobile}");
    }
    for (typed, status) in [
        (" 6591234567", 400),
        ("( 6591234567", 400),
        ("+6591234567", 200),
        ("6591234567", 200),
        // The same number in both readings.
        (" 916591234567", 200),
    ] {
        let request = with("otp-fetch", "v1", |event| {
            let query = json!({"source": "INSTORE", "scope": "POINTS", "mobile": typed});
            event["queryStringParameters"] = query;
            event["multiValueQueryStringParameters"] = Value::Null;
        });
        let response = service.app.handle(request).await;
        assert_eq!(response.status(), status, "{typed:?}: {}", response.body());
    }
    // A query as it was sent says which one it was.
    let found = service.get("/v2/otp?source=INSTORE&scope=POINTS&mobile=+6591234567").await;
    let other = service.get("/v2/otp?source=INSTORE&scope=POINTS&mobile=%206591234567").await;
    assert_eq!((found.status, other.status), (200, 200));
    assert_ne!(found.json["userId"], other.json["userId"]);
}

#[tokio::test]
async fn a_repeated_parameter_is_seen_in_both_versions() {
    let (_table, service) = demo().await;
    let v2 = with("otp-fetch", "v2", |event| {
        event["rawQueryString"] = "source=INSTORE&mobile=8799361139&scope=POINTS&scope=COUPON".into();
    });
    let v1 = with("otp-fetch", "v1", |event| {
        event["queryStringParameters"] = Value::Null;
        event["multiValueQueryStringParameters"] = json!({
            "source": ["INSTORE"], "mobile": ["8799361139"], "scope": ["POINTS", "COUPON"],
        });
    });
    for request in [v2, v1] {
        assert_eq!(refusal(&service, request).await, (400, vec![400]));
    }
    // Without the raw query, repeated values arrive joined. The joined value is not a valid scope.
    let joined = with("otp-fetch", "v2", |event| {
        event["rawQueryString"] = Value::Null;
        event["queryStringParameters"] =
            json!({"source": "INSTORE", "mobile": "8799361139", "scope": "POINTS,COUPON"});
    });
    assert_eq!(refusal(&service, joined).await, (400, vec![600]));
}

#[tokio::test]
async fn a_parameter_without_a_value_in_an_event_is_ignored() {
    let (_table, service) = demo().await;
    for threshold in [json!([]), Value::Null] {
        let request = with("otp-fetch", "v1", |event| {
            event["multiValueQueryStringParameters"]["threshold"] = threshold;
            event["queryStringParameters"]["threshold"] = Value::Null;
        });
        assert_eq!(refusal(&service, request).await, (404, vec![9001]));
    }
}

#[tokio::test]
async fn a_body_with_invalid_base64_is_a_400() {
    let (_table, service) = demo().await;
    let json = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}).to_string();
    for version in VERSIONS {
        for body in ["!", "e30", "", &json] {
            let request = with("otp-generate-base64", version, |event| event["body"] = body.into());
            assert_eq!(request.body, Bytes::new(), "{body}");
            assert_eq!(refusal(&service, request).await, (400, vec![400]), "{body}");
        }
    }
}

#[tokio::test]
async fn an_unreadable_header_is_not_treated_as_absent() {
    let (_table, service) = demo().await;
    for (header, name, status, code) in [
        ("idempotency-key", "card-number-post", 400, 400),
        ("authorization", "card-number-get", 401, 401),
        ("content-type", "otp-generate", 415, 415),
        // The event has Basic credentials, too.
        ("x-cap-api-oauth-token", "card-number-get", 401, 401),
    ] {
        for version in VERSIONS {
            let request = with(name, version, |event| {
                let headers = event["headers"].as_object_mut().unwrap();
                headers.retain(|name, _| !name.eq_ignore_ascii_case(header));
                headers.insert(header.to_owned(), "key\n1".into());
                if let Some(headers) = event.get_mut("multiValueHeaders").and_then(Value::as_object_mut) {
                    headers.retain(|name, _| !name.eq_ignore_ascii_case(header));
                    headers.insert(header.to_owned(), json!(["key\n1"]));
                }
            });
            assert_eq!(refusal(&service, request).await, (status, vec![code]), "{header} {version}");
        }
    }
}

#[tokio::test]
async fn characters_that_no_uri_can_contain_are_answered_like_other_values() {
    let (_table, service) = demo().await;
    for odd in ["\"", "<x>", " ", "{}|\\^`", "ü", "\u{10ffff}", "#", "100%", "%zz", "?", "&x"] {
        let query = format!("source=INSTORE&scope=POINTS&wechat=a{odd}b");
        let v2_query = with("otp-fetch", "v2", |event| event["rawQueryString"] = query.clone().into());
        let v1_query = with("otp-fetch", "v1", |event| {
            event["queryStringParameters"] = Value::Null;
            event["multiValueQueryStringParameters"] = json!({
                "source": ["INSTORE"], "scope": ["POINTS"], "wechat": [format!("a{odd}b")],
            });
        });
        for (place, request) in [("v2 query", v2_query), ("v1 query", v1_query)] {
            assert_eq!(refusal(&service, request).await, (404, vec![8015]), "{odd:?} in {place}");
        }
        let v1_path = fetch_by_path("v1", &format!("/v2/otp/{query}"));
        let expected = if odd.contains('&') { (400, vec![400]) } else { (404, vec![8015]) };
        assert_eq!(refusal(&service, v1_path).await, expected, "{odd:?} in v1 path");
        let v2_path = fetch_by_path("v2", &format!("/v2/otp/{query}"));
        let expected = if odd.contains(['%', '?', '&']) { (400, vec![400]) } else { (404, vec![8015]) };
        assert_eq!(refusal(&service, v2_path).await, expected, "{odd:?} in v2 path");
    }
}

#[tokio::test]
async fn unusual_hosts_are_ignored_and_unusual_paths_are_404() {
    let (_table, service) = demo().await;
    for host in ["not a host", "[", "a b:99999", "", "\u{1}"] {
        for version in VERSIONS {
            let request = with("otp-fetch", version, |event| {
                event["headers"]["host"] = host.into();
                event["headers"]["x-forwarded-proto"] = "::".into();
                event["requestContext"]["domainName"] = host.into();
            });
            assert_eq!(refusal(&service, request).await, (404, vec![9001]), "{host:?} {version}");
        }
    }
    for path in ["", "v2/otp", "*", "//", "http://x/v2", "/v2/otp//", "/v2/otp/x"] {
        for version in VERSIONS {
            assert_eq!(refusal(&service, fetch_by_path(version, path)).await, (404, vec![404]), "{path:?}");
        }
    }
    for version in VERSIONS {
        let request = with("otp-fetch", version, |event| {
            event[if version == "v2" { "rawPath" } else { "path" }] = Value::Null;
        });
        assert_eq!(refusal(&service, request).await, (404, vec![404]), "{version}");
    }
}

#[tokio::test]
async fn a_base_path_is_removed_in_every_event_and_spelling() {
    let (table, service) = demo().await;
    let app = loyalty_codes::api::App::new(table.store(), service.clock.clock());
    let behind_domain =
        TestService { app: app.with_base_path("/codes/v2".to_owned()).into(), ..service.clone() };
    let parameters = format!("source=INSTORE&mobile={MOBILE}&scope=POINTS");
    for version in VERSIONS {
        for (path, without) in
            [(format!("/codes/v2/v2/otp/{parameters}"), 404), (format!("/v2/otp/{parameters}"), 9001)]
        {
            let request = || fetch_by_path(version, &path);
            assert_eq!(refusal(&behind_domain, request()).await, (404, vec![9001]), "{version} {path}");
            assert_eq!(refusal(&service, request()).await, (404, vec![without]), "{version} {path}");
        }
    }
    let part_of_a_segment = fetch_by_path("v1", &format!("/codes/v2v2/otp/{parameters}"));
    assert_eq!(refusal(&behind_domain, part_of_a_segment).await, (404, vec![404]));
}

#[test]
fn an_event_that_is_not_from_api_gateway_has_no_request() {
    let scheduled = r#"{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event",
        "source":"aws.events","account":"123456789012","time":"2026-11-21T04:30:00Z","region":"ap-south-1",
        "resources":["arn:aws:events:ap-south-1:123456789012:rule/warm"],"detail":{}}"#;
    let load_balancer = r#"{"requestContext":{"elb":{"targetGroupArn":"arn"}},"httpMethod":"GET","path":"/v2/otp",
        "queryStringParameters":{},"headers":{},"body":"","isBase64Encoded":false}"#;
    let web_socket = r#"{"requestContext":{"routeKey":"$connect","eventType":"CONNECT","connectionId":"x","requestId":"y",
        "stage":"prod"},"isBase64Encoded":false}"#;
    for event in [
        scheduled,
        load_balancer,
        web_socket,
        r#"{"source":"serverless-plugin-warmup"}"#,
        r#"{"warmer":true,"concurrency":3}"#,
        r#"{"Records":[{"eventSource":"aws:sqs","body":"x"}]}"#,
        r#"{"requestContext":{}}"#,
        r#"{"requestContext":{"elb":{"targetGroupArn":"arn"}},"httpMethod":5,"headers":[1]}"#,
        r#"{"requestContext":[],"path":"/v2/otp"}"#,
        "{}",
        "[]",
        "null",
        "1",
        "\"warm\"",
        "[{}]",
    ] {
        assert!(events::request(event).unwrap().is_none(), "{event}");
    }
}

#[test]
fn an_event_of_api_gateway_with_a_wrong_type_is_an_error_without_its_values() {
    let others = [
        r#"{"requestContext":{"http":{"method":"GET"}},"version":"2.0","headers":[1]}"#,
        r#"{"requestContext":{"http":{"method":""}},"rawPath":"/v2/otp","version":"2.0"}"#,
        r#"{"requestContext":"secret","httpMethod":"GET","path":"/v2/otp"}"#,
        r#"{"requestContext":{"stage":["secret"]},"httpMethod":"GET","path":"/v2/otp"}"#,
        r#"{"requestContext":{},"httpMethod":"GET","path":"/v2/otp","multiValueHeaders":{"a":"secret"}}"#,
    ];
    let changed = events::WRONG_TYPES.iter().map(|change| events::with_wrong_type(*change));
    for event in changed.chain(others.map(str::to_owned)) {
        let error = events::request(&event).expect_err(&event);
        assert!(!format!("{error:?} {error}").contains("secret"), "{event}");
    }
}
