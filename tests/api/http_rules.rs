//! What HTTP asks of every route.

use bytes::Bytes;
use http::Method;
use loyalty_codes::api::ROUTES;
use serde_json::json;

use crate::common::{MOBILE, demo};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn every_answer_has_its_headers() {
    let (_table, service) = demo().await;
    for url in ["/v2/cardNumber", "/v2/otp", "/nowhere"] {
        let answer = service.get(url).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{url}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{url}");
        assert_eq!(answer.header("x-request-id"), Some("test-request"), "{url}");
    }
}

#[tokio::test]
async fn errors_have_the_one_envelope() {
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
    for path in
        ["/", "/v2", "/v1/otp", "/v2/otp/unknown", "/v2/cardNumber/1", "/v2/%00", "/v2/ötp", "/../v2/otp"]
    {
        assert_eq!(service.get(path).await.refusal(), (404, vec![404]), "{path}");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_and_say_which_are_right() {
    let (_table, service) = demo().await;
    for path in ["/v2/otp", "/v2/otp/generate", "/v2/otp/validate", "/v2/cardNumber", "/v2/customers"] {
        let right: Vec<&str> =
            ROUTES.iter().filter(|route| route.path == path).map(|route| route.method.as_str()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"] {
            if right.contains(&method) {
                continue;
            }
            let answer =
                service.send(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], Bytes::new()).await;
            assert_eq!(answer.refusal(), (405, vec![405]), "{method} {path}");
            assert_eq!(answer.header("allow"), Some(right.join(", ").as_str()), "{method} {path}");
        }
    }
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
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
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
    for path in ["/v2/otp/generate", "/v2/otp/validate", "/v2/customers"] {
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
async fn unicode_is_kept_in_every_place() {
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
async fn nothing_that_a_caller_sends_is_a_5xx() {
    let (_table, service) = demo().await;
    let long = "9".repeat(5000);
    let values = [
        "",
        "%",
        "%00",
        "%0a",
        "%ff",
        "%F0%9F%92%B3",
        "null",
        "-1",
        "1e999",
        "a=b",
        "#",
        "%2523",
        "'\"\\",
        &long,
    ];
    for value in values {
        for name in [
            "source",
            "accountId",
            "identifierName",
            "identifierValue",
            "mobile",
            "email",
            "wechat",
            "external_id",
            "scope",
            "threshold",
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
