//! The embedded DynamoDB of `serve`, and the address at which other programs reach it.
//!
//! The engine itself listens where no web page finds it; see [`Embedded::start_hidden`]. What is
//! printed is the address of a proxy that refuses web pages. Browsers name the page in `Origin`
//! with every request that could read or change a table.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use loyalty_codes::{
    embedded::{Embedded, Storage},
    entrypoints::http::{self, Limits},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use crate::failure::Failure;

/// An embedded DynamoDB with its proxy.
pub struct Engine {
    embedded: Embedded,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<http::Drained>,
}

impl Engine {
    /// Opens the tables. The proxy listens on `address`.
    pub async fn start(storage: &Storage, address: SocketAddr) -> Result<Self, Failure> {
        let cannot_listen = |error| Failure::failed(format!("cannot listen on {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let embedded = Embedded::start_hidden(storage).await?;
        let engine = embedded.endpoint();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let proxy = Router::new().fallback(move |request| pass_on(client.clone(), engine.clone(), request));
        let (stop, stopped) = oneshot::channel();
        // Each of its connections has another one to the engine, beside those of the API.
        let limits = Limits { connections: 128, ..Limits::default() };
        let serving = tokio::spawn(http::serve_pages(proxy, listener, limits, async {
            let _ = stopped.await;
        }));
        Ok(Self { embedded, address, stop, serving })
    }

    /// The endpoint for this process.
    pub fn own_endpoint(&self) -> String {
        self.embedded.endpoint()
    }

    /// The endpoint for other programs.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets running requests finish for as long as `time_left`, and closes the file.
    pub async fn stop(self, time_left: Duration) -> Result<(), Failure> {
        drop(self.stop);
        let stopped = timeout(time_left, async {
            self.serving.await.map_err(|error| Failure::failed(error.to_string()))?;
            self.embedded.stop().await.map_err(Failure::from)
        });
        stopped.await.unwrap_or_else(|_| {
            tracing::warn!("the embedded DynamoDB closed the connections of its callers");
            Ok(())
        })
    }
}

async fn pass_on(client: Client<HttpConnector, Body>, engine: String, mut request: Request) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "AccessDeniedException", "web pages get no answer");
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{engine}{path}").parse::<Uri>() else {
        return refusal(StatusCode::BAD_REQUEST, "ValidationException", "the path is not valid");
    };
    *request.uri_mut() = uri;
    match client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, "InternalServerError", &error.to_string()),
    }
}

/// An error as DynamoDB's clients read it.
fn refusal(status: StatusCode, kind: &str, reason: &str) -> Response {
    let body =
        serde_json::json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": reason});
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body.to_string()).into_response()
}
