//! A plain HTTP client.

use std::{collections::HashMap, time::Duration};

use axum::body::{Body, to_bytes};
use http::Method;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

/// How long the most impatient client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct HttpClient(Client<HttpConnector, Body>);

/// An answer, as a client sees it.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// By name in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl HttpClient {
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends a request. Fails the test if the answer takes longer than [`PATIENCE`].
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: String) -> Reply {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = timeout(PATIENCE, self.0.request(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
        Reply {
            status: parts.status.as_u16(),
            headers: headers.collect(),
            body: String::from_utf8(bytes.into()).unwrap(),
        }
    }
}
