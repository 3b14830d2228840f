//! A caller of the served API, over HTTP as a till.

use axum::body::{Body, to_bytes};
use http::{HeaderValue, Method, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::{Answer, basic, served::Served};

/// The connection broke: whether the request happened is unknown.
#[derive(Debug)]
pub struct Lost(#[expect(dead_code, reason = "for who reads a failure")] String);

/// Calls for a customer with the mobile `m` have the e-mail address `m@example.com`, too.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Client<HttpConnector, Body>,
    base: String,
    authorization: HeaderValue,
}

impl Caller {
    /// As the demo's till.
    pub fn new(served: &Served) -> Self {
        Self::with_till(served, &served.till())
    }

    /// As the till of those credentials, `name:password`.
    pub fn with_till(served: &Served, till: &str) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: served.base().to_owned(),
            authorization: basic(till),
        }
    }

    pub async fn register(&self, mobile: &str, key: Option<&str>) -> Result<Answer, Lost> {
        let identifiers = json!([
            {"type": "mobile", "value": mobile},
            {"type": "email", "value": format!("{mobile}@example.com")},
        ]);
        let body = json!({"profiles": [{"source": "INSTORE", "accountId": "", "identifiers": identifiers}]});
        self.send(Method::POST, "/v2/customers", key, Some(&body)).await
    }

    pub async fn generate(&self, mobile: &str, key: Option<&str>) -> Result<Answer, Lost> {
        let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
        self.send(Method::POST, "/v2/otp/generate", key, Some(&body)).await
    }

    /// By an identifier such as `mobile=…`.
    pub async fn fetch(&self, identifier: &str) -> Result<Answer, Lost> {
        let url = format!("/v2/otp?source=INSTORE&{identifier}&scope=POINTS");
        self.send(Method::GET, &url, None, None).await
    }

    pub async fn validate(&self, mobile: &str, code: &str, key: Option<&str>) -> Result<Answer, Lost> {
        let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS", "code": code});
        self.send(Method::POST, "/v2/otp/validate", key, Some(&body)).await
    }

    /// By GET, or by POST under a key.
    pub async fn card_number(&self, key: Option<&str>) -> Result<Answer, Lost> {
        let method = if key.is_some() { Method::POST } else { Method::GET };
        self.send(method, "/v2/cardNumber", key, None).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(self.base.clone() + url)
            .header(header::AUTHORIZATION, &self.authorization);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = match body {
            Some(json) => {
                request.header(header::CONTENT_TYPE, "application/json").body(json.to_string().into())
            }
            None => request.body(Body::empty()),
        };
        let lost = |error: &dyn std::error::Error| Lost(format!("{error:?}"));
        let response = self.client.request(request.unwrap()).await.map_err(|error| lost(&error))?;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), usize::MAX).await.map_err(|error| lost(&error))?;
        let text = String::from_utf8(bytes.into()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, text, json })
    }
}
