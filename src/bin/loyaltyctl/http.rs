//! The service over plain HTTP, for developers: what API Gateway and Lambda do in production.

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::Response as HttpResponse,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use loyalty_codes::{
    api::{App, MAX_BODY, Path, Request, TIME_LIMIT},
    secret::os_rng,
};
use rand::Rng;
use tokio::net::TcpListener;

use crate::reference;

/// Answers requests until `shutdown` resolves.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new().fallback(answer).with_state(app).merge(reference::routes());
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> HttpResponse<Body> {
    let (parts, body) = request.into_parts();
    let request = Request {
        method: parts.method,
        path: Path::Encoded(parts.uri.path().to_owned()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: read(body).await,
        time_limit: TIME_LIMIT,
        request_id: request_id(),
    };
    app.handle(request).await.map(Body::from)
}

/// As much of the body as it takes to see that it is too large. A caller who breaks off gets no answer
/// anyway.
async fn read(mut body: Body) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() <= MAX_BODY
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes.freeze()
}

fn request_id() -> String {
    format!("{:032x}", u128::from(os_rng().next_u64()) << 64 | u128::from(os_rng().next_u64()))
}
