//! A proxy in Node between a site's app and the service: it gets an access token for each session,
//! registers customers in the site's own account of INSTORE, and fetches by the same account
//! afterwards. It throws on every status that is not 2xx.

use http::Method;
use serde_json::{Value, json};

use crate::{
    Running,
    common::PASSWORD,
    http_client::{HttpClient, Reply},
};

const SITE: &str = "site-1";

struct Proxy<'a> {
    http: HttpClient,
    service: &'a Running,
    token: String,
}

impl<'a> Proxy<'a> {
    async fn new(service: &'a Running) -> Result<Self, Reply> {
        let mut proxy = Self { http: HttpClient::new(), service, token: String::new() };
        let body = json!({"key": "store.server", "secret": PASSWORD});
        let reply = proxy.call(Method::POST, "/v3/oauth/token/generate", Some(body)).await?;
        reply["data"]["accessToken"].as_str().unwrap().clone_into(&mut proxy.token);
        Ok(proxy)
    }

    /// The body of a success. Everything else is thrown.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Reply> {
        let mut headers = vec![("Accept", "application/json")];
        headers.extend((!self.token.is_empty()).then_some(("X-CAP-API-OAUTH-TOKEN", self.token.as_str())));
        headers.extend(body.is_some().then_some(("Content-Type", "application/json;charset=utf-8")));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let url = format!("{}{path}", self.service.base);
        let reply = self.http.send(method, &url, &headers, body).await;
        if (200..300).contains(&reply.status) { Ok(reply.json()) } else { Err(reply) }
    }

    async fn register(&self, mobile: &str) -> Result<u64, Reply> {
        let profile = json!({
            "firstName": "Ann", "source": "INSTORE", "accountId": SITE,
            "identifiers": [{"type": "mobile", "value": mobile}],
        });
        let body = self.call(Method::POST, "/v2/customers", Some(json!({"profiles": [profile]}))).await?;
        Ok(body["createdId"].as_u64().unwrap())
    }

    async fn send_code(&self, mobile: &str) -> Result<(), Reply> {
        let body = json!({
            "entityType": "MOBILE", "entityValue": mobile, "action": "POINTS", "source": "INSTORE", "accountId": SITE,
            "channels": [{"type": "MOBILE", "value": mobile}],
        });
        self.call(Method::POST, "/v2/otp/generate", Some(body)).await.map(|_| ())
    }

    async fn code(&self, mobile: &str) -> Result<String, Reply> {
        let query = format!(
            "source=INSTORE&accountId={SITE}&identifierName=mobile&identifierValue={mobile}&scope=POINTS"
        );
        let body = self.call(Method::GET, &format!("/v2/otp?{query}"), None).await?;
        Ok(body["code"].as_str().unwrap().to_owned())
    }

    async fn details(&self, mobile: &str) -> Result<Value, Reply> {
        let query = format!("source=INSTORE&accountId={SITE}&identifierName=mobile&identifierValue={mobile}");
        self.call(Method::GET, &format!("/v2/customers/lookup/customerDetails?{query}"), None).await
    }
}

#[tokio::test]
async fn a_proxy_registers_in_the_account_of_its_site_and_fetches_by_it() {
    let service = Running::start().await;
    let proxy = Proxy::new(&service).await.unwrap();
    proxy.register("8799361139").await.unwrap();
    proxy.send_code("8799361139").await.unwrap();
    let code = proxy.code("8799361139").await.unwrap();
    assert!(service.message_to("918799361139").await.contains(&code));
    let refused = proxy.register("8799361139").await.unwrap_err();
    assert_eq!(refused.status, 409, "a second registration is thrown: {refused:?}");
    let other_site = format!("{SITE}-closed");
    let url = format!("/v2/otp?source=INSTORE&accountId={other_site}&mobile=8799361139&scope=POINTS");
    assert_eq!(proxy.call(Method::GET, &url, None).await.unwrap_err().status, 400);
}

#[tokio::test]
async fn a_proxy_reads_the_profile_of_its_site() {
    let service = Running::start().await;
    let proxy = Proxy::new(&service).await.unwrap();
    assert_eq!(proxy.details("8799361139").await.unwrap_err().status, 404);
    let user = proxy.register("8799361139").await.unwrap();
    let found = proxy.details("8799361139").await.unwrap();
    assert_eq!(found["id"], user);
    let profile = &found["profiles"][0];
    assert_eq!((&profile["source"], &profile["accountId"]), (&json!("INSTORE"), &json!(SITE)), "{found}");
    assert_eq!(profile["firstName"], "Ann");
}
