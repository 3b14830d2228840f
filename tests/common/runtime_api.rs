//! The Runtime API of one function, as Lambda serves it.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    ffi::OsStr,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    process::Command,
    sync::{Mutex, mpsc},
    time::timeout,
};

/// Timeout that detects a hang. Nothing here takes nearly as long.
pub const HANG_TIMEOUT: Duration = Duration::from_mins(1);

/// A call that a function made to the Runtime API.
#[derive(Debug, PartialEq)]
pub enum RuntimeCall {
    Next,
    Response(String),
    Error(String),
}

/// A Runtime API with one function.
#[derive(Debug)]
pub struct Runtime {
    address: SocketAddr,
    events: mpsc::UnboundedSender<String>,
    calls: mpsc::UnboundedReceiver<(Instant, RuntimeCall)>,
    deadline_ms: Arc<AtomicU64>,
}

/// In the year 2100, in milliseconds.
const NO_DEADLINE: u64 = 4_102_444_800_000;

#[derive(Clone)]
struct Shared {
    deadline_ms: Arc<AtomicU64>,
    events: Arc<Mutex<mpsc::UnboundedReceiver<String>>>,
    calls: mpsc::UnboundedSender<(Instant, RuntimeCall)>,
}

impl Runtime {
    pub async fn start() -> Self {
        let (events, queue) = mpsc::unbounded_channel();
        let (call_sender, calls) = mpsc::unbounded_channel();
        let deadline_ms = Arc::new(AtomicU64::new(NO_DEADLINE));
        let shared = Shared {
            deadline_ms: Arc::clone(&deadline_ms),
            events: Arc::new(Mutex::new(queue)),
            calls: call_sender,
        };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(outcome))
            .with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, events, calls, deadline_ms }
    }

    /// Returns the command that starts a function as Lambda does.
    pub fn function(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", self.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "loyalty-codes")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .kill_on_drop(true);
        command
    }

    /// Sets the deadline of the next events to `time` from now.
    pub fn set_deadline(&self, time: Duration) {
        let deadline = (SystemTime::now() + time).duration_since(UNIX_EPOCH).unwrap();
        self.deadline_ms.store(deadline.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Waits for the next call of the function, and returns it with its time.
    pub async fn next_call_at(&mut self) -> (Instant, RuntimeCall) {
        timeout(HANG_TIMEOUT, self.calls.recv()).await.expect("the function makes no call").unwrap()
    }

    pub async fn next_call(&mut self) -> RuntimeCall {
        self.next_call_at().await.1
    }

    /// Whether the function has made no further call.
    pub fn made_no_call(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }

    /// Queues an event for the next function that asks.
    pub fn send(&self, event: String) {
        self.events.send(event).unwrap();
    }

    /// Sends an event and returns the answer with its time.
    pub async fn invoke_timed(&mut self, event: String) -> (Instant, Value) {
        self.send(event);
        loop {
            match self.next_call_at().await {
                (_, RuntimeCall::Next) => {}
                (at, RuntimeCall::Response(body)) => return (at, serde_json::from_str(&body).unwrap()),
                (_, RuntimeCall::Error(body)) => panic!("{body}"),
            }
        }
    }

    /// Sends an event and returns the answer.
    pub async fn invoke(&mut self, event: String) -> Value {
        self.invoke_timed(event).await.1
    }
}

async fn next(State(shared): State<Shared>) -> Response {
    // The receiver may have been dropped.
    let _ = shared.calls.send((Instant::now(), RuntimeCall::Next));
    let event = shared.events.lock().await.recv().await;
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-deadline-ms", &shared.deadline_ms.load(Ordering::SeqCst).to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:ap-south-1:123456789012:function:loyalty-codes",
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
        ),
    ];
    (headers, event.unwrap_or_default()).into_response()
}

async fn outcome(
    State(shared): State<Shared>,
    Path((_id, outcome)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    let call = if outcome == "response" { RuntimeCall::Response(body) } else { RuntimeCall::Error(body) };
    let _ = shared.calls.send((Instant::now(), call));
    StatusCode::ACCEPTED
}
