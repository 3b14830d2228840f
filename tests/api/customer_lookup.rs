//! Looking up customers.

use serde_json::json;

use crate::{
    common::{MOBILE, TestService, USER, demo},
    joining::{INSTORE, WECHAT, new_customer, register},
};

async fn lookup(service: &TestService, query: &str) -> Result<u64, (u16, Vec<u64>)> {
    let (id, details) = (
        service.get(&format!("/v2/customers/lookup?{query}")).await,
        service
            .get(&format!(
                "/v2/customers/lookup/customerDetails?{query}&embed=points,CUSTOMERSTATUS&user_id=true"
            ))
            .await,
    );
    if id.status == 200 {
        assert_eq!(id.json["entity"], details.json["id"], "{query}");
        return Ok(id.json["entity"].as_u64().unwrap());
    }
    assert_eq!(id.refusal(), details.refusal(), "{query}");
    Err(id.refusal())
}

fn not_found<T>(code: u64) -> Result<T, (u16, Vec<u64>)> {
    Err((404, vec![code]))
}

#[tokio::test]
async fn a_customer_is_found_in_an_account_or_in_all() {
    let (_table, service) = demo().await;
    let mobile = format!("identifierName=mobile&identifierValue={MOBILE}");
    for (query, expected) in [
        (format!("source=INSTORE&{mobile}"), Ok(USER)),
        (
            "source=instore&accountId=&identifierName=MOBILE&identifierValue=+91 87993-61139"
                .replace(' ', "%20"),
            Ok(USER),
        ),
        (format!("source=WECHAT&accountId=WECHAT-API1&{mobile}"), Ok(USER)),
        (format!("source=all&accountId=anything&{mobile}"), Ok(USER)),
        (format!("source=WECHAT&accountId=WECHAT-API2&{mobile}"), not_found(8065)),
        ("source=INSTORE&identifierName=externalId&identifierValue=CARD-1".into(), Ok(USER)),
        (
            "source=WECHAT&accountId=WECHAT-API2&identifierName=external_id&identifierValue=CARD-1".into(),
            Ok(USER),
        ),
        ("source=ALL&identifierName=cardnumber&identifierValue=CARD-1".into(), Ok(USER)),
        ("source=ALL&identifierName=wechat&identifierValue=openid-1".into(), Ok(USER)),
        (
            "source=WECHAT&accountId=WECHAT-API2&identifierName=wechat&identifierValue=openid-1".into(),
            not_found(8065),
        ),
        ("source=INSTORE&identifierName=mobile&identifierValue=9010000022".into(), not_found(8015)),
        ("source=ALL&identifierName=cuid&identifierValue=openid-1".into(), not_found(8015)),
        ("source=INSTORE&identifierName=externalId&identifierValue=CARD-2".into(), not_found(8015)),
    ] {
        assert_eq!(lookup(&service, &query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn an_id_of_two_customers_in_two_accounts_is_ambiguous_in_all() {
    let (_table, service) = demo().await;
    let instore = new_customer(&service, INSTORE, &[("cuid", "C1")]).await;
    let wechat = new_customer(&service, WECHAT, &[("cuid", "C1")]).await;
    let cuid = "identifierName=cuid&identifierValue=C1";
    assert_eq!(lookup(&service, &format!("source=INSTORE&{cuid}")).await, Ok(instore));
    assert_eq!(lookup(&service, &format!("source=WECHAT&accountId=WECHAT-API1&{cuid}")).await, Ok(wechat));
    assert_eq!(lookup(&service, &format!("source=ALL&{cuid}")).await, Err((409, vec![8053])));
    assert_eq!(lookup(&service, &format!("source=MARTJACK&{cuid}")).await, not_found(8065));
}

#[tokio::test]
async fn each_invalid_parameter_of_a_lookup_has_its_code() {
    let (_table, service) = demo().await;
    for (query, codes) in [
        ("", vec![8016, 8092, 8093]),
        ("source=TELEX&identifierName=passport&identifierValue=1", vec![8012, 8013]),
        ("source=WECHAT&identifierName=mobile&identifierValue=1", vec![8091, 8056]),
        ("source=WECHAT&accountId=X&identifierName=email&identifierValue=1", vec![8127, 8057]),
        ("source=ALL&identifierName=cuid", vec![8093]),
        ("source=ALL&identifierValue=1", vec![8092]),
        ("source=ALL&source=INSTORE&identifierName=cuid&identifierValue=1", vec![400]),
        // The short form belongs to the OTP routes.
        ("source=ALL&mobile=8799361139", vec![8092, 8093]),
    ] {
        assert_eq!(lookup(&service, query).await, Err((400, codes)), "{query}");
    }
    let defaulted = service
        .get("/v2/customers/lookup?source=MARTJACK&identifierName=mobile&identifierValue=8799361139")
        .await;
    assert_eq!(
        (&defaulted.json["entity"], &defaulted.json["warnings"][0]["code"]),
        (&json!(USER), &json!(8054))
    );
}

#[tokio::test]
async fn details_have_all_profiles_of_the_customer() {
    let (_table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("externalId", "X1")]).await;
    assert_eq!(register(&service, WECHAT, &[("mobile", "9010000022"), ("wechat", "o-1")]).await.status, 200);
    let one = |name: &str, value: &str| json!({"type": name, "value": value});
    let (mobile, id, wechat) = (one("mobile", "919010000022"), one("externalId", "X1"), one("wechat", "o-1"));
    let profile = |source: &str, account: &str, identifiers: serde_json::Value| {
        json!({
            "firstName": "", "lastName": "", "fields": {}, "commChannels": [], "source": source, "accountId": account,
            "userId": user, "identifiers": identifiers, "identifiersAll": [mobile, id, wechat],
            "attribution": {
                "createDate": "2026-11-21T10:00:00+05:30",
                "createdBy": {"code": "store.server", "name": "store.server", "type": "TILL"},
            },
        })
    };
    let expected = json!({
        "id": user,
        "profiles": [
            profile("INSTORE", "", json!([mobile, id])),
            profile("WECHAT", "WECHAT-API1", json!([id, mobile, wechat])),
        ],
        "loyaltyInfo": {"loyaltyType": "loyalty"},
        "extendedFields": {},
        "warnings": [],
    });
    for url in [
        format!("/v2/customers/{user}"),
        format!("/v2/customers/{user}/?source=INSTORE&accountId="),
        format!("/v2/customers/{user}?source=WECHAT&accountId=WECHAT-API2&embed=mlp"),
        "/v2/customers/lookup/customerDetails?source=ALL&identifierName=wechat&identifierValue=o-1"
            .to_owned(),
    ] {
        let answer = service.get(&url).await;
        assert_eq!((answer.status, &answer.json), (200, &expected), "{url}");
    }
}

#[tokio::test]
async fn an_unknown_id_is_a_404() {
    let (_table, service) = demo().await;
    for id in ["5", "0", "-5", "+5", "5.0", "Tom", "99999999999999999999999999", "%20", "{id}"] {
        let answer = service.get(&format!("/v2/customers/{id}?source=INSTORE")).await;
        assert_eq!(answer.refusal(), (404, vec![8009]), "{id}");
    }
    assert_eq!(service.get(&format!("/v2/customers/{USER}?source=X")).await.refusal(), (400, vec![8012]));
}

#[tokio::test]
async fn otp_routes_take_no_other_kinds_of_identifiers() {
    let (_table, service) = demo().await;
    new_customer(&service, INSTORE, &[("cuid", "C1"), ("cardnumber", "K1")]).await;
    for name in ["cuid", "cardnumber", "unionId", "fbId"] {
        let url = format!("/v2/otp?source=INSTORE&scope=POINTS&identifierName={name}&identifierValue=C1");
        assert_eq!(service.get(&url).await.refusal(), (400, vec![8013]), "{name}");
        let body = json!({"entityType": name, "entityValue": "C1", "action": "POINTS", "code": "X"});
        for route in ["/v2/otp/generate", "/v2/otp/validate"] {
            assert_eq!(service.post(route, &body).await.refusal(), (400, vec![601]), "{name}");
        }
    }
}
