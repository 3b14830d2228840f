//! Plain HTTP/1.1 requests, for developers: what API Gateway and Lambda do in production.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{HeaderValue, Response as HttpResponse, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rand::Rng;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    api::{App, MAX_BODY, Path, Request, TIME_LIMIT},
    secret::os_rng,
};

/// How long callers may take, and how many of them are served at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the head of a request, from the moment at which the connection waits for one. A
    /// connection that takes longer, or is idle for as long, is closed.
    pub head: Duration,
    /// For a request's body, from the end of its head. A slower one is answered with 408.
    pub body: Duration,
    /// For the requests that are running when the server is told to end.
    pub drain: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            // Below the 1,024 open files that most systems allow a process.
            connections: 512,
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still in a request at the end of [`Limits::drain`], and were cut.
    pub cut: usize,
    /// What is left of [`Limits::drain`].
    pub time_left: Duration,
}

/// Answers requests until `shutdown` resolves, and then lets running ones finish. `pages` are served
/// at their paths; every other request is `app`'s.
pub async fn serve(
    app: Arc<App>,
    pages: Router,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let service = Service { app, body_limit: limits.body };
    let router = pages.with_state(()).fallback(answer).method_not_allowed_fallback(answer);
    let service = TowerToHyperService::new(router.with_state::<()>(service));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head);

    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            Some(accepted) = accept(&listener, &slots) => accepted,
        };
        let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service.clone()));
        connections.spawn(async move {
            // A caller that breaks off or sends no HTTP is no fault of ours, and there is nobody to answer.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    let draining = Instant::now();
    let drained = timeout(limits.drain, graceful.shutdown()).await;
    while connections.try_join_next().is_some() {}
    Drained {
        cut: if drained.is_ok() { 0 } else { connections.len() },
        time_left: limits.drain.saturating_sub(draining.elapsed()),
    }
}

/// The next connection, once there is a slot for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, slot)),
            Err(error) => {
                // One connection broke before it was accepted, or the process has too many open files,
                // which passes when others are closed.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[derive(Clone)]
struct Service {
    app: Arc<App>,
    body_limit: Duration,
}

async fn answer(State(service): State<Service>, request: HttpRequest) -> HttpResponse<Body> {
    let (parts, body) = request.into_parts();
    let body = match timeout(service.body_limit, read(body)).await {
        Ok(Some(body)) => body,
        Ok(None) => return refuse(StatusCode::BAD_REQUEST, "The request body is incomplete"),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "The request body did not arrive in time"),
    };
    let request = Request {
        method: parts.method,
        path: Path::Encoded(parts.uri.path().to_owned()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        time_limit: TIME_LIMIT,
        request_id: request_id(),
    };
    Box::pin(service.app.handle(request)).await.map(Body::from)
}

/// As much of the body as it takes to see that it is too large; `None` if it breaks off.
async fn read(mut body: Body) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while bytes.len() <= MAX_BODY
        && let Some(frame) = body.frame().await
    {
        if let Some(data) = frame.ok()?.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    Some(bytes.freeze())
}

/// An answer to what is no whole request, in the form of every error. The rest of the body is not
/// read, so the connection cannot be used again.
fn refuse(status: StatusCode, message: &str) -> HttpResponse<Body> {
    let error = serde_json::json!({"status": false, "code": status.as_u16(), "message": message});
    let body = serde_json::json!({"errors": [error], "warnings": []});
    let mut response = HttpResponse::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.insert("x-request-id", id);
    }
    response
}

fn request_id() -> String {
    format!("{:032x}", u128::from(os_rng().next_u64()) << 64 | u128::from(os_rng().next_u64()))
}
