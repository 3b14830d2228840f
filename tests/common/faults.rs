//! A proxy in front of DynamoDB that injects faults.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    sync::{SetOnce, oneshot},
    task::AbortHandle,
};

use super::{TestService, TestTable, client};

/// Fault of one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The proxy answers with this status and body. It does not forward the call.
    Answer(u16, String),
    /// The proxy neither forwards nor answers the call.
    Dropped,
    /// The proxy forwards the call after this time.
    Delay(Duration),
    /// The proxy does not answer. It forwards the call in [`Faults::send_postponed`], after calls
    /// that came later.
    Postponed,
    /// The proxy resets the connection. It does not forward the call.
    Reset,
    /// The proxy forwards the call, but does not answer.
    Unanswered,
    /// The proxy forwards the call, then resets the connection before the answer.
    ResetBeforeAnswer,
    /// The proxy forwards the call, then resets the connection in the middle of the answer.
    ResetWithinAnswer,
    /// The proxy forwards the call, then aborts this task, which made the call.
    Killed(AbortHandle),
    /// The call waits for a decision. `None` means no fault.
    Held(Arc<SetOnce<Option<Fault>>>),
}

impl Fault {
    /// A service error in DynamoDB's format.
    pub fn error(code: &str) -> Self {
        let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected"}}"#);
        Self::Answer(if code == "InternalServerError" { 500 } else { 400 }, body)
    }

    /// A transaction that was cancelled, with one reason for each of its writes.
    pub fn cancelled(reasons: &[&str]) -> Self {
        let reasons: Vec<String> = reasons.iter().map(|code| format!(r#"{{"Code":"{code}"}}"#)).collect();
        let code = "TransactionCanceledException";
        Self::Answer(
            400,
            format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","Message":"cancelled","CancellationReasons":[{}]}}"#,
                reasons.join(",")
            ),
        )
    }
}

/// Chooses the fault of a call by its operation (`GetItem`, …) and the number of calls before it.
type Plan = Box<dyn FnMut(&str, usize) -> Option<Fault> + Send>;

struct Proxy {
    /// URL of the engine.
    endpoint: String,
    /// Address of the proxy.
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
    postponed: Mutex<Vec<Request<Body>>>,
    plan: Mutex<(Plan, usize)>,
}

/// Controls the faults of one proxy.
#[derive(Clone)]
pub struct Faults(Arc<Proxy>);

impl Faults {
    /// Injects faults as `plan` says, from now on.
    pub fn inject(&self, plan: impl FnMut(&str, usize) -> Option<Fault> + Send + 'static) {
        *self.0.plan.lock().unwrap() = (Box::new(plan), 0);
    }

    /// Injects no more faults.
    pub fn clear(&self) {
        self.inject(|_, _| None);
    }

    /// Forwards all postponed calls.
    pub async fn send_postponed(&self) {
        let postponed = std::mem::take(&mut *self.0.postponed.lock().unwrap());
        for request in postponed {
            self.0.client.request(request).await.unwrap();
        }
    }

    /// URL of the proxy.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Number of calls since [`inject`](Self::inject) or [`clear`](Self::clear).
    pub fn calls(&self) -> usize {
        self.0.plan.lock().unwrap().1
    }
}

/// Creates a process that reaches the table through a fault proxy.
pub async fn with_fault_proxy(table: &TestTable, till: &str) -> (TestService, Faults) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Arc::new(Proxy {
        endpoint: table.endpoint(),
        address,
        client: Client::builder(TokioExecutor::new()).build_http(),
        postponed: Mutex::default(),
        plan: Mutex::new((Box::new(|_, _| None), 0)),
    });
    let served = Arc::clone(&proxy);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Closing a connection resets it.
            stream.set_zero_linger().unwrap();
            let proxy = Arc::clone(&served);
            let service = service_fn(move |request| forward(Arc::clone(&proxy), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let faults = Faults(proxy);
    (table.service_with(client(table.name(), &faults.endpoint()), till), faults)
}

/// Runs `act` in another process, which is killed after that many writes and one more. Returns
/// whether it ended before.
pub async fn killed_after_writes<F: Future<Output = ()> + Send + 'static>(
    table: &TestTable,
    writes: usize,
    act: impl FnOnce(TestService) -> F,
) -> bool {
    let (process, faults) = with_fault_proxy(table, "store.server").await;
    let handle = Arc::<OnceLock<AbortHandle>>::default();
    let (killer, mut left) = (Arc::clone(&handle), writes);
    faults.inject(move |operation, _| {
        if !["TransactWriteItems", "DeleteItem", "PutItem", "UpdateItem"].contains(&operation) {
            return None;
        }
        let is_last = left == 0;
        left = left.saturating_sub(1);
        is_last.then(|| Fault::Killed(killer.get().unwrap().clone()))
    });
    let (start, started) = oneshot::channel::<()>();
    let work = act(process);
    let running = tokio::spawn(async move {
        started.await.unwrap();
        work.await;
    });
    handle.set(running.abort_handle()).unwrap();
    start.send(()).unwrap();
    match running.await {
        Ok(()) => true,
        Err(error) => {
            assert!(error.is_cancelled(), "{error}");
            false
        }
    }
}

/// The first half of an answer's body. It reports no length of its own.
struct TruncatedBody(Option<Bytes>);

impl hyper::body::Body for TruncatedBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Ready(self.0.take().map(|half| Ok(Frame::data(half))))
    }
}

/// Error that makes the proxy close the connection.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed")
    }
}

impl std::error::Error for Closed {}

async fn forward(proxy: Arc<Proxy>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.split('.').nth(1)).unwrap_or_default().to_owned();
    let fault = {
        let (plan, calls) = &mut *proxy.plan.lock().unwrap();
        *calls += 1;
        plan(&operation, *calls - 1)
    };
    let fault = match fault {
        Some(Fault::Held(decision)) => decision.wait().await.clone(),
        other => other,
    };
    match fault {
        None => Ok(proxy.forward_to_engine(request).await),
        Some(Fault::Answer(status, body)) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
        Some(Fault::Dropped) => std::future::pending().await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(proxy.forward_to_engine(request).await)
        }
        Some(Fault::Postponed) => {
            let request = proxy.to_engine(request).await;
            proxy.postponed.lock().unwrap().push(request);
            std::future::pending().await
        }
        Some(Fault::Unanswered) => {
            proxy.forward_to_engine(request).await;
            std::future::pending().await
        }
        Some(Fault::Reset) => Err(Closed),
        Some(Fault::ResetBeforeAnswer) => {
            proxy.forward_to_engine(request).await;
            Err(Closed)
        }
        Some(Fault::ResetWithinAnswer) => {
            // The `Content-Length` header is that of the whole body.
            let (parts, body) = proxy.forward_to_engine(request).await.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            Ok(Response::from_parts(parts, Body::new(TruncatedBody(Some(body.slice(..body.len() / 2))))))
        }
        Some(Fault::Killed(caller)) => {
            proxy.forward_to_engine(request).await;
            caller.abort();
            std::future::pending().await
        }
        Some(Fault::Held(_)) => panic!("a held call cannot be held again"),
    }
}

impl Proxy {
    /// Reads the whole request and addresses it to the engine.
    async fn to_engine(&self, request: Request<Incoming>) -> Request<Body> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.endpoint.parse::<Uri>().unwrap();
        let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        Request::from_parts(parts, Body::from(body))
    }

    async fn forward_to_engine(&self, request: Request<Incoming>) -> Response<Body> {
        let request = self.to_engine(request).await;
        self.client.request(request).await.unwrap().map(Body::new)
    }
}
