//! HTTP rules that apply to every route.

use bytes::Bytes;
use http::Method;
use loyalty_codes::api::{ROUTES, Route};
use serde_json::json;

use crate::common::{MOBILE, TOKEN_ROUTE, demo};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn every_answer_has_the_standard_headers() {
    let (_table, service) = demo().await;
    for url in ["/v2/cardNumber", "/v2/otp", "/nowhere"] {
        let answer = service.get(url).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{url}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{url}");
        assert_eq!(answer.header("x-request-id"), Some("test-request"), "{url}");
    }
}

#[tokio::test]
async fn errors_have_the_standard_envelope() {
    let (_table, service) = demo().await;
    let answer = service.get("/v2/otp?source=INSTORE&mobile=9999999999&scope=POINTS").await;
    assert_eq!(
        answer.text,
        r#"{"errors":[{"status":false,"code":8015,"message":"Customer not found for the given identifiers"}],"warnings":[]}"#
    );
}

#[tokio::test]
async fn unknown_paths_are_404() {
    let (_table, service) = demo().await;
    for path in [
        "/", "/v2", "/v1/otp", "/v2/otpx", "/v2/otp/unknown", "/v2/otp//", "/v2/cardnumber",
        "/v2/cardNumber/1", "/v2/customers//changeIdentifier", "/v2/customers/5/6",
        "/v2/customers/5/6/changeIdentifier", "/v2/%00", "/v2/ötp", "/../v2/otp",
    ] {
        assert_eq!(service.get(path).await.refusal(), (404, vec![404]), "{path}");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_with_an_allow_header() {
    let (_table, service) = demo().await;
    for path in ROUTES.iter().map(|route| route.path) {
        let routes = || ROUTES.iter().filter(|route| route.path == path);
        let mut right: Vec<&str> = routes().map(|route| route.method.as_str()).collect();
        if right == ["GET"] {
            right.push("HEAD");
        }
        assert_eq!(routes().any(Route::is_safe), right.contains(&"HEAD"), "{path}");
        let url = path.replace("{id}", "5");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"] {
            if right.contains(&method) {
                continue;
            }
            let answer =
                service.send(Method::from_bytes(method.as_bytes()).unwrap(), &url, &[], Bytes::new()).await;
            if method == "HEAD" {
                assert_eq!((answer.status, answer.text.as_str()), (405, ""), "{path}");
            } else {
                assert_eq!(answer.refusal(), (405, vec![405]), "{method} {path}");
            }
            assert_eq!(answer.header("allow"), Some(right.join(", ").as_str()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn head_is_answered_as_get_is_without_a_body() {
    let (_table, service) = demo().await;
    service.issue().await;
    for (url, service) in [
        (format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS"), service.clone()),
        (format!("/v2/otp/source=INSTORE&mobile={MOBILE}&scope=COUPON"), service.clone()),
        ("/v2/otp".to_owned(), service.clone()),
        ("/v2/otp".to_owned(), service.without_credentials()),
        ("/v2/nowhere".to_owned(), service),
    ] {
        let get = service.get(&url).await;
        let mut head = service.send(Method::HEAD, &url, &[], Bytes::new()).await;
        let length = head.headers.remove("content-length").unwrap();
        assert_eq!(length, get.text.len().to_string().as_str(), "{url}");
        assert_eq!((head.status, head.headers), (get.status, get.headers), "{url}");
    }
}

#[tokio::test]
async fn head_takes_no_card_number() {
    let (_table, service) = demo().await;
    let first = service.card_number().await;
    let head = service.send(Method::HEAD, "/v2/cardNumber", &[], Bytes::new()).await;
    assert_eq!((head.status, head.header("allow")), (405, Some("GET, POST")));
    let next = first.parse::<u64>().unwrap() + 1;
    assert_eq!(service.card_number().await, next.to_string());
}

#[tokio::test]
async fn a_get_may_have_any_content_type() {
    let (_table, service) = demo().await;
    let url = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS");
    for (url, status) in [("/v2/cardNumber", 200), (url.as_str(), 404)] {
        let answer = service.send(Method::GET, url, &[("content-type", "text/xml")], Bytes::new()).await;
        assert_eq!(answer.status, status, "{url}");
    }
}

#[tokio::test]
async fn a_request_without_credentials_is_401_whatever_else_is_wrong() {
    let (_table, service) = demo().await;
    let service = service.without_credentials();
    let xml = [("content-type", "text/xml"), ("idempotency-key", "a,b")];
    for (method, url) in [
        (Method::GET, "/v2/otp/external_id=A&external_id=B"),
        (Method::GET, "/v2/cardNumber"),
        (Method::POST, "/v2/cardNumber"),
        (Method::POST, "/v2/customers"),
    ] {
        let answer = service.send(method, url, &xml, Bytes::from_static(b"<x/>")).await;
        assert_eq!(answer.refusal(), (401, vec![401]), "{url}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"loyalty\""));
    }
}

#[tokio::test]
async fn a_body_may_begin_with_a_byte_order_mark() {
    let (_table, service) = demo().await;
    let json = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}).to_string();
    let send = |body: String| service.send(Method::POST, "/v2/otp/generate", JSON, body.into());
    assert_eq!(send(format!("\u{feff}{json}")).await.status, 200);
    assert_eq!(send(format!("\u{feff}\u{feff}{json}")).await.refusal(), (400, vec![400]));
    assert_eq!(send(format!(" \u{feff}{json}")).await.refusal(), (400, vec![400]));
}

#[tokio::test]
async fn bodies_over_64_kib_are_413() {
    let (_table, service) = demo().await;
    let body = |length: usize| {
        let frame = r#"{"entityType":"MOBILE","entityValue":"8799361139","action":"POINTS","x":""}"#.len();
        let filler = "x".repeat(length - frame);
        Bytes::from(format!(
            r#"{{"entityType":"MOBILE","entityValue":"{MOBILE}","action":"POINTS","x":"{filler}"}}"#
        ))
    };
    let send = |length| service.send(Method::POST, "/v2/otp/generate", JSON, body(length));
    assert_eq!(send(64 * 1024).await.status, 200);
    assert_eq!(send(64 * 1024 + 1).await.refusal(), (413, vec![413]));
}

#[tokio::test]
async fn content_types_other_than_json_are_415() {
    let (_table, service) = demo().await;
    let body = || {
        Bytes::from(json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"}).to_string())
    };
    for content_type in [
        "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "",
        "application/xml; charset=utf-8",
    ] {
        let answer =
            service.send(Method::POST, "/v2/otp/generate", &[("content-type", content_type)], body()).await;
        assert_eq!(answer.refusal(), (415, vec![415]), "{content_type}");
    }
    for headers in [&[("content-type", "Application/JSON ; charset=utf-8")][..], JSON, &[]] {
        let answer = service.send(Method::POST, "/v2/otp/generate", headers, body()).await;
        assert_eq!(answer.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn broken_bodies_are_400() {
    let (_table, service) = demo().await;
    let deep = "[".repeat(5000);
    let bodies: [&[u8]; 9] =
        [b"", b"{", b"null", b"[]", b"\"text\"", b"{} {}", b"{\"a\":\xff}", b"{'a':1}", deep.as_bytes()];
    for path in ["/v2/otp/generate", "/v2/otp/validate", "/v2/customers", TOKEN_ROUTE] {
        for body in bodies {
            let answer = service.send(Method::POST, path, JSON, Bytes::copy_from_slice(body)).await;
            assert_eq!(answer.refusal(), (400, vec![400]), "{path} {}", String::from_utf8_lossy(body));
        }
    }
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let (_table, service) = demo().await;
    assert_eq!(service.get("/v2/cardNumber/").await.status, 200);
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
    assert_eq!(service.post("/v2/otp/generate/", &body).await.status, 200);
    assert_eq!(
        service.get(&format!("/v2/otp/?source=INSTORE&mobile={MOBILE}&scope=POINTS")).await.status,
        200
    );
}

#[tokio::test]
async fn unicode_is_preserved_everywhere() {
    let (_table, service) = demo().await;
    let body = json!({"profiles": [{"firstName": "टॉम", "source": "INSTORE", "identifiers": [
        {"type": "externalId", "value": "कार्ड १"}, {"type": "wechat", "value": "微信#1"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    for (parameter, name, value) in [
        ("external_id=%E0%A4%95%E0%A4%BE%E0%A4%B0%E0%A5%8D%E0%A4%A1%20%E0%A5%A7", "EXTERNAL_ID", "कार्ड १"),
        ("wechat=微信%231", "WECHAT", "微信#1"),
    ] {
        let issue = json!({"entityType": name, "entityValue": value, "action": "GENERIC"});
        assert_eq!(service.post("/v2/otp/generate", &issue).await.status, 200, "{name}");
        for url in [
            format!("/v2/otp?source=INSTORE&{parameter}&scope=GENERIC"),
            format!("/v2/otp/source=INSTORE&{parameter}&scope=GENERIC"),
        ] {
            assert_eq!(service.get(&url).await.status, 200, "{url}");
        }
    }
}

#[tokio::test]
async fn no_input_of_a_caller_causes_a_5xx() {
    let (_table, service) = demo().await;
    let long = "9".repeat(5000);
    let values = [
        "", "%", "%00", "%0a", "%ff", "%F0%9F%92%B3", "null", "-1", "1e999", "a=b", "#", "%2523", "'\"\\",
        &long,
    ];
    for value in values {
        for name in [
            "source", "accountId", "identifierName", "identifierValue", "mobile", "email", "wechat",
            "external_id", "scope", "threshold",
        ] {
            let base = "source=INSTORE&scope=POINTS&wechat=w";
            for url in [
                format!("/v2/otp?{base}&{name}={value}"),
                format!("/v2/otp?{name}={value}"),
                format!("/v2/otp/{name}={value}"),
                format!("/v2/cardNumber?{name}={value}"),
            ] {
                assert!(service.get(&url).await.status < 500, "{url}");
            }
        }
        let text = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        for member in ["entityType", "entityValue", "action", "code", "source", "accountId", "template"] {
            let mut body =
                json!({"entityType": "WECHAT", "entityValue": "openid-1", "action": "POINTS", "code": "x"});
            body[member] = json!(text);
            for path in ["/v2/otp/generate", "/v2/otp/validate"] {
                assert!(service.post(path, &body).await.status < 500, "{path} {body}");
            }
        }
        for (name, value) in [("wechat", &text), ("externalId", &text)] {
            let body = json!({"profiles": [{"source": "INSTORE", "firstName": text, "identifiers": [{"type": name, "value": value}]}]});
            assert!(service.post("/v2/customers", &body).await.status < 500, "{body}");
        }
    }
}
