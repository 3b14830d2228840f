//! Fake providers on one port: End User Messaging, SES, and an org's gateway.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{Certificate, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_rustls::TlsAcceptor;

/// The operation that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    Text,
    Voice,
    Email,
    Webhook,
}

/// A request that a provider received.
#[derive(Debug, Clone)]
pub struct Received {
    pub called: Called,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
    pub at: Instant,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

/// What a provider does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It takes the message.
    Taken,
    /// It answers with this status, error code and body.
    Refused(u16, &'static str, Value),
    /// It takes the message, and the connection is reset before the answer.
    TakenAndReset,
    /// The connection is reset.
    Reset,
    /// It does not answer.
    Silent,
    /// It takes the message, and its answer has a body that never ends.
    EndlessBody,
    /// It takes the message, and its answer has a body that never comes.
    NoBody,
    /// It takes the message, then aborts this task, which called it.
    TakenAndKilled(AbortHandle),
}

impl Reply {
    /// An error of AWS with a reason, if it has one.
    pub fn error(code: &'static str, reason: &str) -> Self {
        let status = if code == "InternalServerException" { 500 } else { 400 };
        let mut body = json!({"message": "about +918799361139", "Message": "about +918799361139"});
        if !reason.is_empty() {
            body["Reason"] = reason.into();
        }
        Self::Refused(status, code, body)
    }

    /// An answer of a gateway.
    pub fn status(status: u16) -> Self {
        Self::Refused(status, "", json!({"detail": "x".repeat(100_000)}))
    }
}

/// Chooses the reply to a request by the number of requests before it.
type Plan = Box<dyn FnMut(&Received, usize) -> Reply + Send>;

struct State {
    plan: Plan,
    received: Vec<Received>,
    taken: Vec<Received>,
}

/// The providers of one test.
#[derive(Clone)]
pub struct Providers {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    connections: Arc<AtomicUsize>,
}

impl Providers {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { plan: Box::new(|_, _| Reply::Taken), received: Vec::new(), taken: Vec::new() };
        let providers = Self { address, state: Arc::new(Mutex::new(state)), connections: Arc::default() };
        let served = providers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::SeqCst);
                // Closing a connection resets it.
                stream.set_zero_linger().unwrap();
                let providers = served.clone();
                let service = service_fn(move |request| {
                    let providers = providers.clone();
                    async move { providers.answer(request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        providers
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replies as `plan` says, from now on, and forgets what was received.
    pub fn reply(&self, plan: impl FnMut(&Received, usize) -> Reply + Send + 'static) {
        let plan = Box::new(plan);
        *self.state.lock().unwrap() = State { plan, received: Vec::new(), taken: Vec::new() };
    }

    /// The requests that were received.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// The requests whose message a provider has taken.
    pub fn taken(&self) -> Vec<Received> {
        self.state.lock().unwrap().taken.clone()
    }

    /// The number of connections that were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Closed)?;
        let text = String::from_utf8(body.into()).unwrap();
        let target = parts.headers.get("x-amz-target").map(|target| target.to_str().unwrap());
        let called = match (target, parts.uri.path()) {
            (Some(target), _) if target.ends_with(".SendTextMessage") => Called::Text,
            (Some(target), _) if target.ends_with(".SendVoiceMessage") => Called::Voice,
            (None, "/v2/email/outbound-emails") => Called::Email,
            (None, "/otp") => Called::Webhook,
            other => panic!("unknown operation {other:?}"),
        };
        let json = serde_json::from_str(&text).unwrap();
        let received = Received { called, headers: parts.headers, text, json, at: Instant::now() };
        let reply = {
            let mut state = self.state.lock().unwrap();
            let before = state.received.len();
            state.received.push(received.clone());
            (state.plan)(&received, before)
        };
        let take = || {
            let mut state = self.state.lock().unwrap();
            state.taken.push(received.clone());
            state.taken.len()
        };
        match reply {
            Reply::Taken => Ok(taken(take())),
            Reply::TakenAndReset => {
                take();
                Err(Closed)
            }
            Reply::TakenAndKilled(process) => {
                take();
                process.abort();
                std::future::pending().await
            }
            Reply::EndlessBody => {
                take();
                Ok(Response::new(Body::new(EndlessBody)))
            }
            Reply::NoBody => {
                take();
                Ok(Response::new(Body::new(NoBody)))
            }
            Reply::Reset => Err(Closed),
            Reply::Silent => std::future::pending().await,
            Reply::Refused(status, code, body) => {
                let mut body = body;
                if !code.is_empty() && called != Called::Email {
                    body["__type"] = code.into();
                }
                let mut response = Response::new(Body::from(body.to_string()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if called == Called::Webhook {
                    response.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
                } else {
                    response.headers_mut().insert("x-amzn-errortype", code.parse().unwrap());
                }
                Ok(response)
            }
        }
    }
}

/// A body that sends the same bytes again and again.
struct EndlessBody;

impl hyper::body::Body for EndlessBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
    }
}

/// A body of which nothing is sent.
struct NoBody;

impl hyper::body::Body for NoBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Pending
    }
}

/// Serves a gateway over TLS that takes every message.
pub async fn serve_tls(certificate: &Certificate, key: &KeyPair) -> SocketAddr {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let (listener, tls) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(tls)));
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate ends the handshake.
                if let Ok(stream) = tls.accept(stream).await {
                    let service = service_fn(async |_| Ok::<_, Closed>(taken(1)));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    });
    address
}

fn taken(number: usize) -> Response<Body> {
    Response::new(Body::from(json!({"MessageId": format!("id-{number}")}).to_string()))
}

/// Error that makes the server close the connection.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed")
    }
}

impl std::error::Error for Closed {}
