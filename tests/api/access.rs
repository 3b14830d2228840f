//! Authentication, permissions and the separation of orgs.

use chrono::TimeDelta;
use http::Method;
use loyalty_codes::{
    api::ROUTES,
    model::{
        org::OrgId,
        till::{Credential, Permission, TillName},
    },
};
use serde_json::json;

use crate::common::{MOBILE, PASSWORD, TOKEN_ROUTE, TestService, USER, demo, demo_org, demo_with};

#[tokio::test]
async fn only_the_password_and_its_md5hex_are_accepted() {
    let (_table, service) = demo().await;
    for secret in [PASSWORD, "8a16a6b70505eb1f1ff7cdc0cd5559a7"] {
        assert_eq!(service.as_till("store.server", secret).get("/v2/cardNumber").await.status, 200);
    }
    for (name, secret) in
        [("store.server", "wrong"), ("store.server", ""), ("nobody", PASSWORD), ("a b", PASSWORD)]
    {
        let refused = service.as_till(name, secret).get("/v2/cardNumber").await;
        assert_eq!(refused.refusal(), (401, vec![401]), "{name}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"loyalty\""));
    }
}

#[tokio::test]
async fn every_route_refuses_callers_without_credentials() {
    let (_table, service) = demo().await;
    for route in ROUTES {
        let anonymous = service.without_credentials();
        let answer = anonymous.send(route.method.clone(), route.path, &[], "{}".into()).await;
        assert_eq!(answer.refusal(), (401, vec![401]), "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn unknown_tills_and_wrong_secrets_get_the_same_answer() {
    let (_table, service) = demo().await;
    let unknown = service.as_till("nobody", PASSWORD).get("/v2/cardNumber").await;
    let wrong = service.as_till("store.server", "wrong").get("/v2/cardNumber").await;
    assert_eq!((unknown.status, unknown.headers, unknown.text), (wrong.status, wrong.headers, wrong.text));
}

#[tokio::test]
async fn each_route_needs_its_permission() {
    let (_table, service) = demo().await;
    let expected = [
        (Method::GET, "/v2/otp", Permission::OtpFetch),
        (Method::POST, "/v2/otp/generate", Permission::OtpIssue),
        (Method::POST, "/v2/otp/validate", Permission::OtpValidate),
        (Method::GET, "/v2/cardNumber", Permission::CardNumberGenerate),
        (Method::POST, "/v2/cardNumber", Permission::CardNumberGenerate),
        (Method::POST, "/v2/customers", Permission::CustomerRegister),
        (Method::GET, "/v2/customers/lookup", Permission::CustomerRead),
        (Method::GET, "/v2/customers/lookup/customerDetails", Permission::CustomerRead),
        (Method::GET, "/v2/customers/5", Permission::CustomerRead),
        (Method::POST, "/v2/customers/5/changeIdentifier", Permission::CustomerUpdate),
    ];
    let without_permission: Vec<&str> =
        ROUTES.iter().filter(|route| route.permission.is_none()).map(|route| route.path).collect();
    assert_eq!(without_permission, [TOKEN_ROUTE]);
    assert_eq!(ROUTES.len(), expected.len() + without_permission.len(), "add the new route here");
    for permission in Permission::ALL {
        let only = permission.as_str().replace(':', ".");
        service.create_till(&only, 966, &[*permission]).await;
        let all_others: Vec<Permission> =
            Permission::ALL.iter().copied().filter(|p| p != permission).collect();
        let others = format!("not.{only}");
        service.create_till(&others, 966, &all_others).await;
    }
    for (method, path, permission) in expected {
        let name = permission.as_str().replace(':', ".");
        let allowed = service.as_till(&name, PASSWORD).send(method.clone(), path, &[], "{}".into()).await;
        assert_ne!(allowed.status, 403, "{method} {path}");
        let refused = service.as_till(&format!("not.{name}"), PASSWORD);
        let refused = refused.send(method.clone(), path, &[], "{}".into()).await;
        assert_eq!(refused.refusal(), (403, vec![4000]), "{method} {path}");
    }
}

#[tokio::test]
async fn an_org_without_v2_is_refused_with_the_reason() {
    let (_table, service) = demo().await;
    let mut off = demo_org();
    off.config.v2_enabled = false;
    service.apply(&off).await.unwrap();
    service.clock.advance(TimeDelta::seconds(60));
    let answer = service.get("/v2/cardNumber").await;
    assert_eq!(answer.refusal(), (403, vec![403]));
    assert_eq!(answer.json["errors"][0]["message"], "V2 API is not enabled for the org");
}

/// Another org with the same configuration and no customers, called by a till with all permissions.
async fn till_of_other_org(service: &TestService) -> TestService {
    let mut other = demo_org();
    other.id = OrgId(967);
    service.apply(&other).await.unwrap();
    service.create_till("other.server", 967, Permission::ALL).await;
    service.as_till("other.server", PASSWORD)
}

#[tokio::test]
async fn a_till_cannot_access_data_of_another_org() {
    let (_table, service) = demo().await;
    let other_org = till_of_other_org(&service).await;

    service.issue().await;
    let code = service.code().await;
    let org_parameters = "&orgId=966&org=966&org_id=966";
    for parameter in [
        format!("mobile={MOBILE}"),
        "email=tom@example.com".into(),
        "wechat=openid-1".into(),
        "external_id=CARD-1".into(),
        "wechat=openid-1%23..%23ORG%23966".into(),
        format!("mobile={MOBILE}{org_parameters}"),
    ] {
        let url = format!("/v2/otp?source=INSTORE&{parameter}&scope=POINTS");
        assert_eq!(other_org.get(&url).await.refusal(), (404, vec![8015]), "{url}");
    }
    let validate = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": code, "orgId": 966});
    assert_eq!(other_org.post("/v2/otp/validate", &validate).await.refusal(), (404, vec![8015]));
    let headers = [("x-cap-api-org-id", "966"), ("content-type", "application/json")];
    let issue = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "orgId": 966});
    let answer = other_org.send(Method::POST, "/v2/otp/generate", &headers, issue.to_string().into()).await;
    assert_eq!(answer.refusal(), (404, vec![8015]));

    // A contact of one org is not a contact of another.
    let contact = json!({"entityType": "MOBILE", "entityValue": "9000000001", "action": "REGISTRATION"});
    assert_eq!(service.post("/v2/otp/generate", &contact).await.status, 200);
    let url = "/v2/otp?source=INSTORE&mobile=9000000001&scope=REGISTRATION";
    let fetched = service.get(url).await;
    assert_eq!(other_org.get(url).await.refusal(), (404, vec![9001]));
    let mut validate = contact.clone();
    validate["code"] = fetched.json["code"].clone();
    assert_eq!(other_org.post("/v2/otp/validate", &validate).await.json["entity"], false);
    assert_eq!(service.post("/v2/otp/validate", &validate).await.json["entity"], true);

    // The other org has its own sequence and its own customers with the same numbers.
    assert_eq!(other_org.card_number().await, "1000000010");
    assert_eq!(service.card_number().await, "1000000010");
    other_org.register_demo_customer().await;
    assert_eq!(other_org.fetch().await.refusal(), (404, vec![9001]));
    for _ in 0..5 {
        assert!(!other_org.is_right(&code).await);
    }
    assert_eq!(other_org.validate(&code).await.status, 429);
    assert!(service.is_right(&code).await, "failed attempts in another org do not count here");
}

#[tokio::test]
async fn otps_of_one_org_do_not_count_in_another() {
    let (_table, service) = demo_with("CONF_OTP_DAILY_LIMIT = 1").await;
    let other_org = till_of_other_org(&service).await;
    other_org.register_demo_customer().await;
    // Both customers have the same user id.
    for _ in 0..2 {
        other_org.issue().await;
    }
    service.issue().await;
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
    assert_eq!(service.post("/v2/otp/generate", &body).await.refusal(), (429, vec![429]));
    let (own, other) = (service.fetch().await.json, other_org.fetch().await.json);
    assert_eq!((&own["orgId"], &own["userId"]), (&966.into(), &USER.into()), "{own}");
    assert_eq!((&other["orgId"], &other["userId"]), (&967.into(), &USER.into()), "{other}");
    assert_ne!(own["code"], other["code"]);
}

#[tokio::test]
async fn a_customer_of_another_org_is_answered_like_a_missing_customer() {
    let (_table, service) = demo().await;
    let other_org = till_of_other_org(&service).await;
    let in_other_org = other_org.fetch().await;
    let unregistered = other_org.get("/v2/otp?source=INSTORE&mobile=9999999999&scope=POINTS").await;
    assert_eq!(in_other_org, unregistered);
    for route in ["/v2/otp/generate", "/v2/otp/validate"] {
        let about =
            |mobile| json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS", "code": "X"});
        let in_other_org = other_org.post(route, &about(MOBILE)).await;
        assert_eq!(in_other_org.refusal(), (404, vec![8015]), "{route}");
        assert_eq!(in_other_org, other_org.post(route, &about("9999999999")).await, "{route}");
    }
}

#[tokio::test]
async fn rotated_secrets_overlap_and_revoked_ones_stop_within_a_minute() {
    let (_table, service) = demo_with("").await;
    let name = TillName::parse("store.server").unwrap();
    let status =
        async |secret: &str| service.as_till("store.server", secret).get("/v2/cardNumber").await.status;
    assert_eq!(status(PASSWORD).await, 200);

    let till = service.store.till(&name).await.unwrap().unwrap();
    let mut both = till.credentials.clone();
    both.push(Credential::new("new-secret", service.clock.now()));
    assert!(service.store.replace_credentials(&till, &both).await.unwrap());
    assert!(
        !service.store.replace_credentials(&till, &[]).await.unwrap(),
        "an outdated till must replace nothing"
    );
    assert_eq!(status("new-secret").await, 200, "the new secret works at once");
    assert_eq!(status(PASSWORD).await, 200);

    let till = service.store.till(&name).await.unwrap().unwrap();
    assert!(service.store.replace_credentials(&till, &both[1..]).await.unwrap());
    assert_eq!(status("new-secret").await, 200);
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(status(PASSWORD).await, 401);
    assert_eq!(status("new-secret").await, 200);

    let till = service.store.till(&name).await.unwrap().unwrap();
    assert!(service.store.replace_credentials(&till, &[]).await.unwrap());
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(status("new-secret").await, 401);
}
