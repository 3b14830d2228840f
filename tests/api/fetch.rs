use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::common::{MOBILE, TestService, demo, demo_with};

const QUERY: &str = "source=WECHAT&accountId=WECHAT-API1&identifierName=mobile&identifierValue=8799361139&threshold=60&scope=POINTS";

async fn issue(service: &TestService, body: Value) {
    let answer = service.post("/v2/otp/generate", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn issue_on_wechat(service: &TestService) {
    issue(
        service,
        json!({
            "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
            "source": "WECHAT", "accountId": "WECHAT-API1",
        }),
    )
    .await;
}

#[tokio::test]
async fn the_documented_request_is_answered_as_documented() {
    let (_table, service) = demo().await;
    issue_on_wechat(&service).await;
    let answer = service.get(&format!("/v2/otp?{QUERY}")).await;
    let code = answer.json["code"].as_str().unwrap();
    assert_eq!(code.len(), 7);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text,
        format!(
            r#"{{"orgId":966,"userId":313302314,"code":"{code}","validUpto":"2026-11-21T10:05:00+05:30","warnings":[]}}"#
        )
    );
}

#[tokio::test]
async fn all_spellings_of_a_request_have_the_same_answer() {
    let (_table, service) = demo().await;
    issue_on_wechat(&service).await;
    let expected = service.get(&format!("/v2/otp?{QUERY}")).await;
    assert_eq!(expected.status, 200);
    let rest = "source=WECHAT&accountId=WECHAT-API1&scope=POINTS";
    for url in [
        format!("/v2/otp/{QUERY}"),
        format!("/v2/otp/{QUERY}/"),
        format!("/v2/otp/?{QUERY}"),
        format!("/v2/otp/{}", QUERY.replace('=', "%3D").replace('&', "%26")),
        format!("/v2/otp?{rest}&mobile={MOBILE}"),
        format!("/v2/otp/{rest}&mobile={MOBILE}"),
        format!("/v2/otp/source=WECHAT&accountId=WECHAT-API1?mobile={MOBILE}&scope=POINTS"),
        format!("/v2/otp?{rest}&identifierName=MOBILE&identifierValue={MOBILE}"),
        format!("/v2/otp?{}", QUERY.replace("WECHAT&", "wechat&").replace("POINTS", "points")),
        format!("/v2/otp?{rest}&mobile={MOBILE}&mobile={MOBILE}"),
        format!("/v2/otp?{rest}&mobile={MOBILE}&identifierName=mobile&identifierValue=%2B91+87993+61139"),
        format!("/v2/otp?{rest}&mobile={MOBILE}&identifierName=mobile"),
        format!("/v2/otp?{rest}&mobile={MOBILE}&unknown=1&threshold="),
        format!("/v2/otp?{rest}&email=tom@example.com"),
        format!("/v2/otp?{rest}&email=%20TOM%40Example.com"),
        format!("/v2/otp/{rest}&email=TOM%40Example.com"),
        format!("/v2/otp/{rest}&mobile=+918799361139"),
        format!("/v2/otp/{rest}&mobile=%2B91%2087993%2061139"),
        format!("/v2/otp?{rest}&wechat=openid-1"),
        format!("/v2/otp?{rest}&external_id=CARD-1"),
        format!("/v2/otp?{rest}&externalId=CARD-1"),
        format!("/v2/otp?{rest}&identifierName=externalId&identifierValue=CARD-1"),
    ] {
        assert_eq!(service.get(&url).await.json, expected.json, "{url}");
    }
}

#[tokio::test]
async fn a_mobile_is_found_in_every_spelling_plus_sign_encoded_or_not() {
    let (_table, service) = demo().await;
    service.issue().await;
    for mobile in [
        "8799361139", "918799361139", "+918799361139", "%2B918799361139", "+91+87993+61139",
        "%2B91%2087993-61139", "%20%2B918799361139", "+00918799361139",
    ] {
        let answer = service.get(&format!("/v2/otp?source=INSTORE&scope=POINTS&mobile={mobile}")).await;
        assert_eq!(answer.status, 200, "{mobile}");
    }
}

#[tokio::test]
async fn a_plus_is_a_plus_in_a_path_and_encoded_in_a_query() {
    let (_table, service) = demo().await;
    let identifiers = json!([{"type": "email", "value": "tom+shop@example.com"}, {"type": "externalId", "value": "A+B 100%"}]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    for url in [
        "/v2/otp/source=INSTORE&scope=POINTS&email=tom+shop@example.com",
        "/v2/otp/source=INSTORE&scope=POINTS&email=tom%2Bshop@example.com",
        "/v2/otp?source=INSTORE&scope=POINTS&email=tom%2Bshop@example.com",
        "/v2/otp/source=INSTORE&scope=POINTS&external_id=A+B%20100%25",
        "/v2/otp/source=INSTORE&scope=POINTS&external_id=A+B 100%",
        "/v2/otp?source=INSTORE&scope=POINTS&external_id=A%2BB+100%25",
    ] {
        assert_eq!(service.get(url).await.refusal(), (404, vec![9001]), "the customer is found: {url}");
    }
}

#[tokio::test]
async fn the_most_recent_valid_otp_is_fetched_and_older_ones_come_back() {
    let (_table, service) = demo().await;
    service.issue().await;
    let first = service.code().await;
    service.clock.advance(TimeDelta::seconds(10));
    service.issue().await;
    let second = service.code().await;
    assert_ne!(first, second);
    assert!(service.is_right(&second).await);
    assert_eq!(service.code().await, first, "a consumed OTP must not hide an older one");
    service.clock.advance(TimeDelta::seconds(290));
    assert_eq!(service.fetch().await.refusal(), (404, vec![9001]), "both OTPs are consumed");
}

#[tokio::test]
async fn threshold_is_the_minimum_remaining_validity() {
    let (_table, service) = demo().await;
    service.issue().await;
    service.clock.advance(TimeDelta::seconds(200));
    let url = |threshold: &str| {
        format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS&threshold={threshold}")
    };
    assert_eq!(service.get(&url("100")).await.status, 200);
    assert_eq!(service.get(&url("0")).await.status, 200);
    assert_eq!(service.get(&url("101")).await.refusal(), (404, vec![9001]));
    assert_eq!(service.get(&url("9223372036854775807")).await.refusal(), (404, vec![9001]));
    for wrong in ["-1", "+1", "1.5", "abc", "9223372036854775808", "1e3", "%20", "٣"] {
        assert_eq!(service.get(&url(wrong)).await.refusal(), (400, vec![400]), "{wrong}");
    }
}

#[tokio::test]
async fn threshold_is_the_maximum_age_if_the_org_configures_it() {
    let (_table, service) = demo_with(r#"CONF_OTP_THRESHOLD_MODE = "MAX_AGE""#).await;
    service.issue().await;
    service.clock.advance(TimeDelta::seconds(61));
    let url =
        |threshold| format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS&threshold={threshold}");
    assert_eq!(service.get(&url(61)).await.status, 200);
    assert_eq!(service.get(&url(60)).await.refusal(), (404, vec![9001]));
}

#[tokio::test]
async fn utc_is_written_as_an_offset() {
    let (_table, service) = demo().await;
    let mut utc = crate::common::demo_org();
    utc.timezone = "UTC".to_owned();
    service.apply(&utc).await.unwrap();
    service.clock.advance(TimeDelta::seconds(60));
    service.issue().await;
    assert_eq!(service.fetch().await.json["validUpto"], "2026-11-21T04:36:00+00:00");
}

#[tokio::test]
async fn scopes_are_separate() {
    let (_table, service) = demo().await;
    service.issue().await;
    for scope in ["COUPON", "POINTSTRANSFER", "GENERIC", "REGISTRATION"] {
        let answer = service.get(&format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope={scope}")).await;
        assert_eq!(answer.refusal(), (404, vec![9001]), "{scope}");
    }
    issue(&service, json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "COUPONS"})).await;
    for scope in ["COUPON", "coupons"] {
        let answer = service.get(&format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope={scope}")).await;
        assert_eq!(answer.status, 200, "{scope}");
    }
}

#[tokio::test]
async fn a_registration_otp_belongs_to_a_contact_without_a_customer() {
    let (_table, service) = demo().await;
    issue(
        &service,
        json!({"entityType": "EMAIL", "entityValue": "new@example.com", "action": "REGISTRATION"}),
    )
    .await;
    let answer = service.get("/v2/otp?source=INSTORE&email=NEW@example.com&scope=REGISTRATION").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["userId"], Value::Null);
    let elsewhere = service
        .get("/v2/otp?source=WECHAT&accountId=WECHAT-API1&email=new@example.com&scope=REGISTRATION")
        .await;
    assert_eq!(elsewhere.refusal(), (404, vec![9001]), "a contact belongs to a source and account");
}

#[tokio::test]
async fn the_only_account_may_be_omitted_with_a_warning() {
    let (_table, service) = demo().await;
    service.issue().await;
    let answer = service.get(&format!("/v2/otp?source=MARTJACK&mobile={MOBILE}&scope=POINTS")).await;
    assert_eq!(answer.status, 200, "the customer is the same in every source");
    assert_eq!(
        answer.json["warnings"],
        json!([{"status": false, "code": 8054, "message": "Account id not passed"}])
    );
    let named =
        service.get(&format!("/v2/otp?source=MARTJACK&accountId=SHOP&mobile={MOBILE}&scope=POINTS")).await;
    assert_eq!(named.json["warnings"], json!([]));
}

#[tokio::test]
async fn each_invalid_parameter_has_its_error_code() {
    let (_table, service) = demo().await;
    let base = "identifierName=mobile&identifierValue=8799361139&scope=POINTS";
    for (query, status, codes) in [
        (base.to_owned(), 400, vec![8016]),
        (format!("source=&{base}"), 400, vec![8016]),
        (format!("source=WECHAT&{base}"), 400, vec![8091]),
        (format!("source=WECHAT&accountId=&{base}"), 400, vec![8091]),
        ("source=INSTORE&identifierValue=1&scope=POINTS".into(), 400, vec![8092]),
        ("source=INSTORE&identifierName=mobile&scope=POINTS".into(), 400, vec![8093]),
        ("source=INSTORE&identifierName=mobile&identifierValue=&scope=POINTS".into(), 400, vec![8093]),
        ("source=INSTORE&scope=POINTS".into(), 400, vec![8092, 8093]),
        ("source=INSTORE&identifierName=passport&scope=POINTS".into(), 400, vec![8013, 8093]),
        (format!("source=TELEX&{base}"), 400, vec![8012]),
        ("source=INSTORE&identifierName=passport&identifierValue=1&scope=POINTS".into(), 400, vec![8013]),
        (format!("source=WECHAT&accountId=WECHAT-API3&{base}"), 400, vec![8127]),
        (format!("source=FACEBOOK&{base}"), 400, vec![8127]),
        (format!("source=INSTORE&accountId=X&{base}"), 400, vec![8127]),
        ("source=INSTORE&mobile=12345&scope=POINTS".into(), 400, vec![8056]),
        ("source=INSTORE&email=tom&scope=POINTS".into(), 400, vec![8057]),
        ("source=INSTORE&external_id=%FF%FE&scope=POINTS".into(), 400, vec![8093]),
        ("source=INSTORE&mobile=8799361139".into(), 400, vec![600]),
        ("source=INSTORE&mobile=8799361139&scope=LUNCH".into(), 400, vec![600]),
        (String::new(), 400, vec![8016, 8092, 8093, 600]),
        (
            "source=TELEX&identifierName=mobile&identifierValue=1&scope=X&threshold=x".into(),
            400,
            vec![8012, 8056, 600, 400],
        ),
        (format!("source=INSTORE&source=WECHAT&{base}"), 400, vec![400]),
        (format!("source=INSTORE&{base}&mobile=8799361130"), 400, vec![400]),
        (format!("source=INSTORE&{base}&email=tom@example.com"), 400, vec![400]),
        ("source=INSTORE&identifierName=email&mobile=8799361139&scope=POINTS".into(), 400, vec![400]),
        ("source=INSTORE&mobile=9999999999&scope=POINTS".into(), 404, vec![8015]),
        ("source=INSTORE&email=nobody@example.com&scope=POINTS".into(), 404, vec![8015]),
        ("source=INSTORE&wechat=微信&scope=POINTS".into(), 404, vec![8015]),
        (format!("source=WECHAT&accountId=WECHAT-API2&{base}"), 404, vec![8015]),
        (format!("source=INSTORE&{base}"), 404, vec![9001]),
    ] {
        assert_eq!(service.get(&format!("/v2/otp?{query}")).await.refusal(), (status, codes), "{query}");
    }
}

#[tokio::test]
async fn an_otp_issued_by_one_process_is_fetched_by_another_at_once() {
    let (table, service) = demo().await;
    let other = table.service("store.server");
    for _ in 0..10 {
        let created_id = service.issue().await;
        let fetched = other.fetch().await;
        assert_eq!(fetched.status, 200);
        assert_eq!(service.code().await, fetched.json["code"].as_str().unwrap(), "{created_id}");
        service.clock.advance(TimeDelta::milliseconds(1));
    }
}
