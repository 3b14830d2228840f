//! A proxy before DynamoDB that goes wrong when it is told to.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
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
use tokio::{net::TcpListener, sync::SetOnce, task::AbortHandle};

use super::{TestService, TestTable, client};

/// What happens to one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The engine does not see it; the caller gets this status and body.
    Answer(u16, String),
    /// The engine does not see it, and the caller hears nothing.
    Silence,
    /// The engine sees it late.
    Delay(Duration),
    /// The caller hears nothing; the engine sees it when [`Faults::let_late_through`] says so, after whatever came since.
    Late,
    /// The engine does not see it; the connection is reset.
    Reset,
    /// The engine does it, and the caller hears nothing.
    Unheard,
    /// The engine does it; the connection is reset before the answer.
    LostAnswer,
    /// The engine does it; the connection is reset in the middle of the answer.
    CutAnswer,
    /// The engine does it; then this task, whose call it is, is ended.
    Killed(AbortHandle),
    /// The call waits until it is decided what happens to it; `None` is nothing out of the ordinary.
    Held(Arc<SetOnce<Option<Fault>>>),
}

impl Fault {
    /// An error of the service, as DynamoDB words it.
    pub fn error(code: &str) -> Self {
        let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected"}}"#);
        Self::Answer(if code == "InternalServerError" { 500 } else { 400 }, body)
    }

    /// A transaction cancelled for these reasons, one for each of its writes.
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

/// Decides by the operation (`GetItem`, …) and how many calls came before it.
type Plan = Box<dyn FnMut(&str, usize) -> Option<Fault> + Send>;

struct Proxy {
    /// Of the engine.
    endpoint: String,
    /// Its own.
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
    late: Mutex<Vec<Request<Body>>>,
    plan: Mutex<(Plan, usize)>,
}

/// The switch of a proxy.
#[derive(Clone)]
pub struct Faults(Arc<Proxy>);

impl Faults {
    /// From now on, calls go wrong as `plan` says.
    pub fn inject(&self, plan: impl FnMut(&str, usize) -> Option<Fault> + Send + 'static) {
        *self.0.plan.lock().unwrap() = (Box::new(plan), 0);
    }

    /// From now on, nothing goes wrong.
    pub fn end(&self) {
        self.inject(|_, _| None);
    }

    /// Lets the engine see what was late until now.
    pub async fn let_late_through(&self) {
        let late = std::mem::take(&mut *self.0.late.lock().unwrap());
        for request in late {
            self.0.client.request(request).await.unwrap();
        }
    }

    /// Where the proxy listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// How many calls came since the last change.
    pub fn calls(&self) -> usize {
        self.0.plan.lock().unwrap().1
    }
}

/// A process whose way to the table leads through a proxy.
pub async fn behind_faults(table: &TestTable, till: &str) -> (TestService, Faults) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Arc::new(Proxy {
        endpoint: table.endpoint(),
        address,
        client: Client::builder(TokioExecutor::new()).build_http(),
        late: Mutex::default(),
        plan: Mutex::new((Box::new(|_, _| None), 0)),
    });
    let served = Arc::clone(&proxy);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whatever is closed is reset.
            stream.set_zero_linger().unwrap();
            let proxy = Arc::clone(&served);
            let service = service_fn(move |request| forward(Arc::clone(&proxy), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let faults = Faults(proxy);
    (table.service_with(client(table.name(), &faults.endpoint()), till), faults)
}

/// The beginning of a body that does not say how long it is itself.
struct Half(Option<Bytes>);

impl hyper::body::Body for Half {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Ready(self.0.take().map(|half| Ok(Frame::data(half))))
    }
}

/// Makes the proxy close the connection.
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
        None => Ok(proxy.pass_on(request).await),
        Some(Fault::Answer(status, body)) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(proxy.pass_on(request).await)
        }
        Some(Fault::Late) => {
            let request = proxy.address(request).await;
            proxy.late.lock().unwrap().push(request);
            std::future::pending().await
        }
        Some(Fault::Unheard) => {
            proxy.pass_on(request).await;
            std::future::pending().await
        }
        Some(Fault::Reset) => Err(Closed),
        Some(Fault::LostAnswer) => {
            proxy.pass_on(request).await;
            Err(Closed)
        }
        Some(Fault::CutAnswer) => {
            // Its length is that of the whole.
            let (parts, body) = proxy.pass_on(request).await.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            Ok(Response::from_parts(parts, Body::new(Half(Some(body.slice(..body.len() / 2))))))
        }
        Some(Fault::Killed(caller)) => {
            proxy.pass_on(request).await;
            caller.abort();
            std::future::pending().await
        }
        Some(Fault::Held(_)) => panic!("a call is held once"),
    }
}

impl Proxy {
    /// The whole request, for the engine.
    async fn address(&self, request: Request<Incoming>) -> Request<Body> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.endpoint.parse::<Uri>().unwrap();
        let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        Request::from_parts(parts, Body::from(body))
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Response<Body> {
        let request = self.address(request).await;
        self.client.request(request).await.unwrap().map(Body::new)
    }
}
