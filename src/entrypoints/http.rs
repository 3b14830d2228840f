//! A plain HTTP/1.1 server for developers. In production, API Gateway and Lambda do this work.

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
    http::{HeaderValue, Response as HttpResponse, header},
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
    api::{self, App, MAX_BODY, Path, Request, TIME_LIMIT, error::Problem},
    secret::os_rng,
};

/// Time limits for callers, and the number of connections that are served at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for the head of a request, counted from when the connection starts to wait for it. A
    /// connection that takes longer, or is idle for as long, is closed.
    pub head: Duration,
    /// Time for the body of a request, counted from the end of its head. The response to a slower
    /// request is 408.
    pub body: Duration,
    /// Time for running requests to finish after shutdown has begun.
    pub drain: Duration,
    /// The number of connections that are served at once. Further connections wait to be accepted.
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
    /// Connections that were still in a request at the end of [`Limits::drain`], and were closed.
    pub aborted: usize,
    /// What is left of [`Limits::drain`].
    pub time_left: Duration,
}

/// Serves requests until `shutdown` resolves, and then lets running requests finish. `pages` are
/// served at their own paths; `app` handles every other request.
pub async fn serve(
    app: Arc<App>,
    pages: Router,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let service = Service { app, body_limit: limits.body };
    // Axum adds the header `Allow`.
    let method_not_allowed = async || refuse(Problem::MethodNotAllowed);
    let router = pages.with_state(()).fallback(handle).method_not_allowed_fallback(method_not_allowed);
    serve_pages(router.with_state(service), listener, limits, shutdown).await
}

/// Serves pages until `shutdown` resolves, and then lets running requests finish. The pages
/// themselves limit the time for a body.
pub async fn serve_pages(
    pages: Router,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let service = TowerToHyperService::new(pages);
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
            // Logged at debug level only: the caller has disconnected or does not speak HTTP, so
            // there is no response to send.
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
        aborted: if drained.is_ok() { 0 } else { connections.len() },
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
                // Either the connection broke before it was accepted, or the process has too many
                // open files. The latter passes when other connections are closed.
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

async fn handle(State(service): State<Service>, request: HttpRequest) -> HttpResponse<Body> {
    let (parts, body) = request.into_parts();
    let body = match timeout(service.body_limit, read(body)).await {
        Ok(Some(body)) => body,
        Ok(None) => return refuse(Problem::BodyIncomplete),
        Err(_) => return refuse(Problem::BodyTooSlow),
    };
    let request = Request {
        method: parts.method,
        path: Path::Encoded(parts.uri.path().to_owned()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        query_was_decoded: false,
        headers: parts.headers,
        body,
        time_limit: TIME_LIMIT,
        request_id: request_id(),
    };
    Box::pin(service.app.handle(request)).await.map(Body::from)
}

/// Reads the body, and stops as soon as it exceeds [`MAX_BODY`]. `None` if the connection breaks
/// first.
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

/// The response to a request that is not carried out. The connection is closed, because the rest of
/// the body is not read.
fn refuse(problem: Problem) -> HttpResponse<Body> {
    let mut response = api::refuse(problem, &request_id()).map(Body::from);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn request_id() -> String {
    format!("{:032x}", u128::from(os_rng().next_u64()) << 64 | u128::from(os_rng().next_u64()))
}
