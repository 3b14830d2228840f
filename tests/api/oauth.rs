//! Access tokens: who gets one, what it stands for, and when it ends.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use http::Method;
use loyalty_codes::model::{
    access_token::{AccessToken, TokenLifetime},
    org::OrgId,
    till::{Credential, Permission, Till, TillName},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;

use crate::common::{MOBILE, PASSWORD, TOKEN_ROUTE, TestService, TestTable, demo, demo_org, demo_with};

const MD5HEX: &str = "8a16a6b70505eb1f1ff7cdc0cd5559a7";

/// The status of a call with a token. A refusal must be the same as for any other credentials.
async fn status(service: &TestService, token: &str) -> u16 {
    let answer = service.with_token(token).get("/v2/cardNumber").await;
    if answer.status == 401 {
        assert_eq!(answer, service.as_till("nobody", PASSWORD).get("/v2/cardNumber").await);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"loyalty\""));
    }
    answer.status
}

async fn stored_till(service: &TestService) -> Till {
    service.store.till(&TillName::parse("store.server").unwrap()).await.unwrap().unwrap()
}

async fn replace(service: &TestService, credentials: &[Credential]) {
    let till = stored_till(service).await;
    assert!(service.store.replace_credentials(&till, credentials).await.unwrap());
}

#[tokio::test]
async fn a_token_is_answered_as_clients_read_it() {
    let (_table, service) = demo().await;
    for secret in [PASSWORD, MD5HEX] {
        let answer = service.request_token("store.server", secret).await;
        let token = answer.json["data"]["accessToken"].as_str().unwrap();
        let expected = format!(r#"{{"data":{{"accessToken":"{token}","ttlSeconds":3600}},"errors":null}}"#);
        assert_eq!((answer.status, &answer.text), (200, &expected));
        assert!(AccessToken::parse(token).is_some(), "{token}");
        assert_eq!(status(&service, token).await, 200);
    }
    assert_ne!(service.token().await, service.token().await);
}

#[tokio::test]
async fn wrong_credentials_get_no_token() {
    let (_table, service) = demo().await;
    let wrong = service.request_token("store.server", "wrong").await;
    assert_eq!(wrong.refusal(), (401, vec![401]));
    assert_eq!(wrong.header("www-authenticate"), Some("Basic realm=\"loyalty\""));
    let unknown = service.request_token("nobody", PASSWORD).await;
    assert_eq!(unknown, wrong, "the answer must not tell which tills exist");
    for body in [
        json!({}),
        json!({"key": "store.server"}),
        json!({"secret": PASSWORD}),
        json!({"key": "", "secret": ""}),
        json!({"key": "a b", "secret": PASSWORD}),
        json!({"key": "store.server", "secret": 123}),
        json!({"Key": "store.server", "Secret": PASSWORD}),
    ] {
        let refused = service.post(TOKEN_ROUTE, &body).await;
        assert_eq!(refused, wrong, "{body}: credentials in the headers do not count");
    }
    for body in [json!({"key": ["store.server"], "secret": PASSWORD}), json!({"key": "x", "secret": true})] {
        assert_eq!(service.post(TOKEN_ROUTE, &body).await.refusal(), (400, vec![400]), "{body}");
    }
}

#[tokio::test]
async fn a_token_needs_no_permission_and_stands_for_the_permissions_of_its_till() {
    let (_table, service) = demo().await;
    service.create_till("kiosk", 966, &[]).await;
    let answer = service.without_credentials().request_token("kiosk", PASSWORD).await;
    assert_eq!(answer.status, 200);
    let kiosk = service.with_token(answer.json["data"]["accessToken"].as_str().unwrap());
    assert_eq!(kiosk.get("/v2/cardNumber").await.refusal(), (403, vec![4000]));
    assert_eq!(service.with_token(&service.token().await).fetch().await.refusal(), (404, vec![9001]));
}

#[tokio::test]
async fn an_org_without_v2_gets_no_token() {
    let (_table, service) = demo_with("CONF_CLIENT_V2_API_ENABLED = true").await;
    let token = service.token().await;
    let mut off = demo_org();
    off.config.v2_enabled = false;
    service.apply(&off).await.unwrap();
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(service.request_token("store.server", PASSWORD).await.refusal(), (403, vec![403]));
    assert_eq!(service.with_token(&token).get("/v2/cardNumber").await.refusal(), (403, vec![403]));
}

#[tokio::test]
async fn a_token_is_accepted_in_either_header_and_in_every_process() {
    let (table, service) = demo().await;
    let token = service.token().await;
    for process in [service.clone(), service.another_process(), table.service("nobody")] {
        let process = process.without_credentials();
        for (name, value) in [
            ("x-cap-api-oauth-token", token.clone()),
            ("X-CAP-API-OAUTH-TOKEN", format!(" {token} ")),
            ("authorization", format!("Bearer {token}")),
            ("authorization", format!("bearer {token}")),
        ] {
            let answer =
                process.send(Method::GET, "/v2/cardNumber", &[(name, value.as_str())], "".into()).await;
            assert_eq!(answer.status, 200, "{name}");
        }
    }
}

#[tokio::test]
async fn of_two_kinds_of_credentials_the_token_counts() {
    let (_table, service) = demo().await;
    service.create_till("kiosk", 966, &[]).await;
    let answer = service.request_token("kiosk", PASSWORD).await;
    let kiosk = answer.json["data"]["accessToken"].as_str().unwrap().to_owned();
    let with = async |service: &TestService, token: &str| {
        let headers = [("x-cap-api-oauth-token", token)];
        service.send(Method::GET, "/v2/cardNumber", &headers, "".into()).await
    };
    assert_eq!(with(&service, &kiosk).await.refusal(), (403, vec![4000]));
    for unknown in ["", "x", &"A".repeat(43)] {
        assert_eq!(with(&service, unknown).await.status, 401, "{unknown}");
    }
    let token = service.token().await;
    assert_eq!(with(&service.as_till("store.server", "wrong"), &token).await.status, 200);
    let bearer = service.with_token(&token);
    assert_eq!(with(&bearer, &kiosk).await.refusal(), (403, vec![4000]), "the header of its own counts");
}

#[tokio::test]
async fn a_token_is_valid_for_its_lifetime_and_no_longer() {
    let (_table, service) = demo().await;
    let default = stored_till(&service).await;
    for seconds in [3600, 60, 86_400] {
        let name = TillName::parse(&format!("till-{seconds}")).unwrap();
        let token_lifetime = TokenLifetime::new(seconds).unwrap();
        let till = Till { name: name.clone(), token_lifetime, ..default.clone() };
        assert!(service.store.create_till(&till).await.unwrap());
        let answer = service.request_token(name.as_str(), PASSWORD).await;
        assert_eq!(answer.json["data"]["ttlSeconds"], seconds);
        let token = answer.json["data"]["accessToken"].as_str().unwrap();

        service.clock.advance(TimeDelta::seconds(i64::from(seconds) - 1));
        assert_eq!(status(&service, token).await, 200, "{seconds}: a second before");
        assert_eq!(status(&service.another_process(), token).await, 200, "{seconds}: a second before");
        service.clock.advance(TimeDelta::milliseconds(999));
        assert_eq!(status(&service, token).await, 200, "{seconds}: a millisecond before");
        service.clock.advance(TimeDelta::milliseconds(1));
        assert_eq!(status(&service, token).await, 401, "{seconds}: remembered, but expired");
        assert_eq!(status(&service.another_process(), token).await, 401, "{seconds}: expired");
    }
}

#[tokio::test]
async fn a_token_of_a_rotated_password_works_until_that_is_revoked() {
    let (_table, service) = demo().await;
    let of_old = service.token().await;
    let old = stored_till(&service).await.credentials;
    let both = [old.clone(), vec![Credential::new("new-secret", service.clock.now())]].concat();
    replace(&service, &both).await;
    let of_new = service.another_process().request_token("store.server", "new-secret").await;
    let of_new = of_new.json["data"]["accessToken"].as_str().unwrap().to_owned();
    assert_eq!(status(&service, &of_new).await, 200, "also where the till is remembered as it was");
    service.clock.advance(TimeDelta::minutes(30));
    assert_eq!((status(&service, &of_old).await, status(&service, &of_new).await), (200, 200));

    replace(&service, &both[1..]).await;
    assert_eq!(status(&service.another_process(), &of_old).await, 401, "a process that remembers nothing");
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(status(&service, &of_old).await, 401, "within a minute everywhere");
    assert_eq!(status(&service, &of_new).await, 200);
}

#[tokio::test]
async fn no_token_works_a_minute_after_its_till_was_revoked() {
    let (_table, service) = demo().await;
    let token = service.token().await;
    replace(&service, &[]).await;
    assert_eq!(service.another_process().request_token("store.server", PASSWORD).await.status, 401);
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(status(&service, &token).await, 401);
    // A new password does not bring the tokens of the old one back.
    replace(&service, &[Credential::new("new-secret", service.clock.now())]).await;
    assert_eq!(status(&service, &token).await, 401);
}

#[tokio::test]
async fn a_token_is_remembered_for_a_minute() {
    let (table, service) = demo().await;
    let token = service.token().await;
    let item =
        all_items(&table).await.into_iter().find(|item| item["SK"].as_s().unwrap() == "TOKEN").unwrap();
    let key = |name: &str| item[name].clone();
    let deletion = table.client().delete_item().table_name(table.name());
    deletion.key("PK", key("PK")).key("SK", key("SK")).send().await.unwrap();
    service.clock.advance(TimeDelta::milliseconds(59_999));
    assert_eq!(status(&service, &token).await, 200);
    service.clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(status(&service, &token).await, 401);
}

#[tokio::test]
async fn no_random_string_is_accepted() {
    let (_table, service) = demo().await;
    let token = service.token().await;
    let mut rng = SmallRng::seed_from_u64(11);
    let service = service.without_credentials();
    for n in 0..10_000 {
        let guess = match n % 4 {
            0 => AccessToken::generate(&mut rng).expose().to_owned(),
            // A token with one character that differs.
            1 => {
                let at = rng.random_range(0..token.len());
                let other = if token.as_bytes()[at] == b'A' { "E" } else { "A" };
                format!("{}{other}{}", &token[..at], &token[at + 1..])
            }
            2 => (0..43).map(|_| char::from(rng.random_range(b'!'..=b'~'))).collect(),
            _ => (0..rng.random_range(0..100)).map(|_| char::from(rng.random_range(b' '..=b'~'))).collect(),
        };
        let header = [("x-cap-api-oauth-token", guess.as_str())];
        let answer = service.send(Method::GET, "/v2/cardNumber", &header, "".into()).await;
        assert_eq!(answer.status, 401, "{guess}");
    }
    assert_eq!(status(&service, &token).await, 200);
}

#[tokio::test]
async fn a_token_of_another_orgs_till_reaches_that_org_alone() {
    let (_table, service) = demo().await;
    service.issue().await;
    let mut other = demo_org();
    other.id = OrgId(967);
    service.apply(&other).await.unwrap();
    service.create_till("other.server", 967, Permission::ALL).await;
    let answer = service.request_token("other.server", PASSWORD).await;
    let other = service.with_token(answer.json["data"]["accessToken"].as_str().unwrap());
    for parameter in ["", "&orgId=966", "&org=966"] {
        let url = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS{parameter}");
        assert_eq!(other.get(&url).await.refusal(), (404, vec![8015]), "{url}");
    }
    assert_eq!(other.card_number().await, "1000000010", "the other org has its own sequence");
    // The credentials of both orgs in one request: the token counts.
    let headers = [("x-cap-api-oauth-token", answer.json["data"]["accessToken"].as_str().unwrap())];
    let url = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS");
    let both = service.send(Method::GET, &url, &headers, "".into()).await;
    assert_eq!(both.refusal(), (404, vec![8015]));
}

#[tokio::test]
async fn an_idempotency_key_means_nothing_here() {
    let (_table, service) = demo().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "a")];
    let body = json!({"key": "store.server", "secret": PASSWORD}).to_string();
    let send = || service.send(Method::POST, TOKEN_ROUTE, &headers, body.clone().into());
    let (first, second) = (send().await, send().await);
    assert_eq!((first.status, second.status), (200, 200));
    assert_ne!(first.text, second.text);
}

async fn all_items(table: &TestTable) -> Vec<HashMap<String, AttributeValue>> {
    let scan = table.client().scan().table_name(table.name()).send().await.unwrap();
    assert!(scan.last_evaluated_key.is_none());
    scan.items.unwrap()
}

#[tokio::test]
async fn the_table_has_only_the_hash_of_a_token() {
    use loyalty_codes::store::keys;

    let (table, service) = demo().await;
    let token = service.token().await;
    let items = all_items(&table).await;
    assert!(!format!("{items:?}").contains(&token));
    let digest = AccessToken::parse(&token).unwrap().digest();
    let key = keys::access_token(&digest);
    let item = items.iter().find(|item| item["PK"].as_s().unwrap() == &key.pk).unwrap();
    let expires_at: i64 = item["expires_at"].as_n().unwrap().parse().unwrap();
    assert_eq!(expires_at, service.clock.now().timestamp() + 3600 + 1);

    // What the table contains opens nothing.
    let base64 = |bytes: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.encode(bytes)
    };
    for guess in [base64(&digest.0), base64(item["credential"].as_b().unwrap().as_ref()), key.pk] {
        assert_eq!(status(&service, &guess).await, 401, "{guess}");
    }
}
