//! Calls the API as a till, over HTTP or through API Gateway events.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, HeaderValue, Method, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, basic, events, served::Served};

/// The connection failed. Whether the request was carried out is unknown.
#[derive(Debug)]
pub struct ConnectionLost(#[expect(dead_code, reason = "it is part of the failure message")] String);

/// Queue of events for functions. Each event has the channel for its answer.
pub type Invocations = mpsc::UnboundedSender<(String, oneshot::Sender<Value>)>;

#[derive(Debug, Clone)]
enum Transport {
    /// HTTP to the API at this address.
    Http(Box<Client<HttpConnector, Body>>, String),
    Invocations(Invocations),
}

/// A client of the API. A customer with the mobile `m` also has the e-mail address `m@example.com`.
#[derive(Debug, Clone)]
pub struct Caller {
    transport: Transport,
    authorization: HeaderValue,
}

impl Caller {
    /// Calls as the demo's till.
    pub fn new(served: &Served) -> Self {
        Self::with_till(served, &served.till())
    }

    /// Calls as the till with the credentials `name:password`.
    pub fn with_till(served: &Served, till: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            transport: Transport::Http(Box::new(client), served.base().to_owned()),
            authorization: basic(till),
        }
    }

    /// Calls functions through a queue of events, as the till with these credentials.
    pub fn for_functions(invocations: Invocations, credentials: &str) -> Self {
        Self { transport: Transport::Invocations(invocations), authorization: basic(credentials) }
    }

    pub async fn register(&self, mobile: &str, key: Option<&str>) -> Result<Answer, ConnectionLost> {
        let identifiers = json!([
            {"type": "mobile", "value": mobile},
            {"type": "email", "value": format!("{mobile}@example.com")},
        ]);
        let body = json!({"profiles": [{"source": "INSTORE", "accountId": "", "identifiers": identifiers}]});
        self.send(Method::POST, "/v2/customers", key, Some(&body)).await
    }

    pub async fn generate(&self, mobile: &str, key: Option<&str>) -> Result<Answer, ConnectionLost> {
        let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
        self.send(Method::POST, "/v2/otp/generate", key, Some(&body)).await
    }

    /// Fetches by an identifier such as `mobile=…`.
    pub async fn fetch(&self, identifier: &str) -> Result<Answer, ConnectionLost> {
        let url = format!("/v2/otp?source=INSTORE&{identifier}&scope=POINTS");
        self.send(Method::GET, &url, None, None).await
    }

    pub async fn validate(
        &self,
        mobile: &str,
        code: &str,
        key: Option<&str>,
    ) -> Result<Answer, ConnectionLost> {
        let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS", "code": code});
        self.send(Method::POST, "/v2/otp/validate", key, Some(&body)).await
    }

    /// Takes a card number: by POST with an idempotency key, by GET without.
    pub async fn card_number(&self, key: Option<&str>) -> Result<Answer, ConnectionLost> {
        let method = if key.is_some() { Method::POST } else { Method::GET };
        self.send(method, "/v2/cardNumber", key, None).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, ConnectionLost> {
        match &self.transport {
            Transport::Http(client, base) => {
                self.request(client, method, base.clone() + url, key, body).await
            }
            Transport::Invocations(invocations) => self.invoke(invocations, &method, url, key, body).await,
        }
    }

    async fn request(
        &self,
        client: &Client<HttpConnector, Body>,
        method: Method,
        url: String,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, ConnectionLost> {
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
        let lost = |error: &dyn std::error::Error| ConnectionLost(format!("{error:?}"));
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
    ) -> Result<Answer, ConnectionLost> {
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
        let unavailable = || ConnectionLost("the functions are unavailable".to_owned());
        invocations.send((event.to_string(), answers)).map_err(|_| unavailable())?;
        let answer = answer.await.map_err(|_| unavailable())?;
        let text = answer["body"].as_str().unwrap_or_default().to_owned();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let status = answer["statusCode"].as_u64().and_then(|status| status.try_into().ok()).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), text, json })
    }
}
