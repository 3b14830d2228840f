//! A commerce connector in TypeScript: it gets an access token and keeps it for an hour, whatever
//! `ttlSeconds` says. Every request names a till for attribution. It never looks at the status:
//! `'errors' in body` means that there is no such customer.

use chrono::{DateTime, TimeDelta, Utc};
use http::Method;
use serde_json::{Value, json};

use crate::{Running, common::PASSWORD, http_client::HttpClient};

struct Connector<'a> {
    http: HttpClient,
    service: &'a Running,
    /// The token, and when the connector got it.
    token: Option<(String, DateTime<Utc>)>,
    tokens_got: usize,
}

impl<'a> Connector<'a> {
    fn new(service: &'a Running) -> Self {
        Self { http: HttpClient::new(), service, token: None, tokens_got: 0 }
    }

    async fn token(&mut self) -> String {
        let now = self.service.service.clock.now();
        if let Some((token, got_at)) = &self.token
            && now - *got_at < TimeDelta::hours(1)
        {
            return token.clone();
        }
        let url = format!("{}/v3/oauth/token/generate", self.service.base);
        let body = json!({"key": "store.server", "secret": PASSWORD}).to_string();
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let reply = self.http.send(Method::POST, &url, &headers, body).await.json();
        let token = reply["data"]["accessToken"].as_str().unwrap().to_owned();
        self.tokens_got += 1;
        self.token = Some((token.clone(), now));
        token
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Value {
        let token = self.token().await;
        let headers = [
            ("X-CAP-API-OAUTH-TOKEN", token.as_str()),
            ("X-CAP-API-ATTRIBUTION-ENTITY-TYPE", "TILL"),
            ("X-CAP-API-ATTRIBUTION-ENTITY-CODE", "web.shop.till"),
            ("Content-Type", "application/json"),
            ("Accept-Language", "en"),
        ];
        let url = format!("{}{path}", self.service.base);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.http.send(method, &url, &headers, body).await.json()
    }

    /// The user id of the customer with that mobile, whatever the source.
    async fn find(&mut self, mobile: &str) -> Option<u64> {
        let query = format!("source=ALL&accountId=&identifierName=mobile&identifierValue={mobile}");
        let body = self.call(Method::GET, &format!("/v2/customers/lookup?{query}"), None).await;
        if body.as_object().unwrap().contains_key("errors") { None } else { body["entity"].as_u64() }
    }

    async fn register(&mut self, mobile: &str) -> u64 {
        let profile = json!({
            "firstName": "Ann", "lastName": "Lee", "source": "ECOMMERCE", "accountId": "web-shop",
            "identifiers": [{"type": "mobile", "value": mobile}], "commChannels": [], "fields": {},
        });
        let body =
            json!({"profiles": [profile], "loyaltyInfo": {"loyaltyType": "loyalty"}, "extendedFields": {}});
        let registered = self.call(Method::POST, "/v2/customers", Some(body)).await;
        assert!(!registered.as_object().unwrap().contains_key("errors"), "{registered}");
        registered["createdId"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_connector_finds_customers_of_every_source_and_registers_the_others() {
    let service = Running::start().await;
    let mut connector = Connector::new(&service);
    assert_eq!(connector.find("8799361139").await, None);
    let registered = connector.register("8799361139").await;
    assert_eq!(connector.find("8799361139").await, Some(registered));
    assert_eq!(connector.find("918799361139").await, Some(registered));

    // Somebody who is known from a shop.
    let mobile = json!({"type": "mobile", "value": "9010000022"});
    let in_shop =
        json!({"profiles": [{"source": "INSTORE", "accountId": "site-1", "identifiers": [mobile]}]});
    let in_shop = service.service.post("/v2/customers", &in_shop).await.json["createdId"].as_u64();
    assert_eq!(connector.find("9010000022").await, in_shop);
    assert_eq!(Some(connector.register("9010000022").await), in_shop, "one person, one user id");
}

#[tokio::test]
async fn a_connectors_token_works_for_the_hour_that_it_is_kept() {
    let service = Running::start().await;
    let mut connector = Connector::new(&service);
    for minutes in [0, 30, 29] {
        service.service.clock.advance(TimeDelta::minutes(minutes));
        let number = connector.call(Method::GET, "/v2/cardNumber", None).await;
        assert!(number["entity"].is_string(), "{number}");
    }
    service.service.clock.advance(TimeDelta::milliseconds(59_999));
    assert!(connector.call(Method::GET, "/v2/cardNumber", None).await["entity"].is_string());
    assert_eq!(connector.tokens_got, 1);
    service.service.clock.advance(TimeDelta::milliseconds(1));
    assert!(connector.call(Method::GET, "/v2/cardNumber", None).await["entity"].is_string());
    assert_eq!(connector.tokens_got, 2);
}
