//! A caller of the API as a till: over HTTP, or by the events that API Gateway makes of it.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, HeaderValue, Method, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, basic, events, served::Served};

/// The connection broke: whether the request happened is unknown.
#[derive(Debug)]
pub struct Lost(#[expect(dead_code, reason = "for who reads a failure")] String);

/// Events on their way to functions, each with where its answer goes.
pub type Invocations = mpsc::UnboundedSender<(String, oneshot::Sender<Value>)>;

#[derive(Debug, Clone)]
enum Way {
    /// To the API at this address.
    Http(Box<Client<HttpConnector, Body>>, String),
    Invocations(Invocations),
}

/// Calls for a customer with the mobile `m` have the e-mail address `m@example.com`, too.
#[derive(Debug, Clone)]
pub struct Caller {
    way: Way,
    authorization: HeaderValue,
}

impl Caller {
    /// As the demo's till.
    pub fn new(served: &Served) -> Self {
        Self::with_till(served, &served.till())
    }

    /// As the till of those credentials, `name:password`.
    pub fn with_till(served: &Served, till: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { way: Way::Http(Box::new(client), served.base().to_owned()), authorization: basic(till) }
    }

    /// As the till with these credentials, of functions that take the events.
    pub fn of_functions(invocations: Invocations, credentials: &str) -> Self {
        Self { way: Way::Invocations(invocations), authorization: basic(credentials) }
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
        match &self.way {
            Way::Http(client, base) => self.request(client, method, base.clone() + url, key, body).await,
            Way::Invocations(invocations) => self.invoke(invocations, &method, url, key, body).await,
        }
    }

    async fn request(
        &self,
        client: &Client<HttpConnector, Body>,
        method: Method,
        url: String,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(url)
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
        let response = client.request(request.unwrap()).await.map_err(|error| lost(&error))?;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), usize::MAX).await.map_err(|error| lost(&error))?;
        let text = String::from_utf8(bytes.into()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, text, json })
    }

    async fn invoke(
        &self,
        invocations: &Invocations,
        method: &Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let mut event: Value = serde_json::from_str(&events::read("card-number-get", "v2")).unwrap();
        event["rawPath"] = path.into();
        event["rawQueryString"] = query.into();
        event["requestContext"]["http"]["method"] = method.as_str().into();
        event["requestContext"]["http"]["path"] = path.into();
        event["headers"]["authorization"] = self.authorization.to_str().unwrap().into();
        if let Some(key) = key {
            event["headers"]["idempotency-key"] = key.into();
        }
        if let Some(json) = body {
            event["headers"]["content-type"] = "application/json".into();
            event["body"] = json.to_string().into();
        }
        let (answers, answer) = oneshot::channel();
        let gone = || Lost("the functions are gone".to_owned());
        invocations.send((event.to_string(), answers)).map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        let text = answer["body"].as_str().unwrap_or_default().to_owned();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let status = answer["statusCode"].as_u64().and_then(|status| status.try_into().ok()).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), text, json })
    }
}
