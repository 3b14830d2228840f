//! The real Lambda binary, driven over the Runtime API as Lambda drives it.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
#![allow(clippy::unwrap_used, reason = "what fails in a test should fail loudly")]

mod common;

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use common::{
    MOBILE, PASSWORD, TestTable,
    events::{EVENTS, VERSIONS, codes, function_environment, read},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::{Mutex, mpsc},
    time::timeout,
};

/// Far longer than anything here takes, so that a hang is an error and not a wait.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the function said to the Runtime API.
#[derive(Debug, PartialEq)]
enum Said {
    Next,
    Response(String),
    Error(String),
}

/// A Runtime API with one function.
struct Runtime {
    address: SocketAddr,
    events: mpsc::UnboundedSender<String>,
    said: mpsc::UnboundedReceiver<Said>,
}

#[derive(Clone)]
struct Shared {
    events: Arc<Mutex<mpsc::UnboundedReceiver<String>>>,
    said: mpsc::UnboundedSender<Said>,
}

impl Runtime {
    async fn start() -> Self {
        let (events, queue) = mpsc::unbounded_channel();
        let (say, said) = mpsc::unbounded_channel();
        let shared = Shared { events: Arc::new(Mutex::new(queue)), said: say };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(outcome))
            .with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, events, said }
    }

    /// The function, as Lambda starts it.
    fn function(&self, dynamodb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loyalty-codes"));
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", self.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "loyalty-codes")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .envs(function_environment(dynamodb))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn heard(&mut self) -> Said {
        timeout(PATIENCE, self.said.recv()).await.unwrap().unwrap()
    }

    /// Plays an event and returns the answer.
    async fn play(&mut self, event: String) -> Value {
        self.events.send(event).unwrap();
        loop {
            match self.heard().await {
                Said::Next => {}
                Said::Response(body) => return serde_json::from_str(&body).unwrap(),
                Said::Error(body) => panic!("{body}"),
            }
        }
    }
}

async fn next(State(shared): State<Shared>) -> Response {
    shared.said.send(Said::Next).unwrap();
    let event = shared.events.lock().await.recv().await;
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-deadline-ms", "4102444800000"),
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
    _headers: HeaderMap,
    body: String,
) -> StatusCode {
    let said = if outcome == "response" { Said::Response(body) } else { Said::Error(body) };
    shared.said.send(said).unwrap();
    StatusCode::ACCEPTED
}

/// Ends the function and returns what it wrote.
async fn end(mut function: Child) -> Output {
    function.start_kill().unwrap();
    function.wait_with_output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_answered_as_listed() {
    for version in VERSIONS {
        let (table, _service) = common::demo().await;
        let mut runtime = Runtime::start().await;
        let function = runtime.function(&table.endpoint()).spawn().unwrap();
        for (name, status, expected) in EVENTS {
            let answer = runtime.play(read(name, version)).await;
            let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!(answer["statusCode"], *status, "{name}.{version}: {answer}");
            assert_eq!(codes(&body), *expected, "{name}.{version}");
            assert_eq!(answer["isBase64Encoded"], false);
            let headers = if version == "v1" { "multiValueHeaders" } else { "headers" };
            assert!(answer[headers].to_string().contains("no-store"), "{answer}");
        }
        let log = String::from_utf8(end(function).await.stdout).unwrap();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().filter(|line| line["message"] == "request").count(), EVENTS.len(), "{log}");
        for secret in [MOBILE, "9010000022", PASSWORD, "538AD87", "c3RvcmUuc2VydmVyOnNlcnZlcjEyMw"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_warmed_before_the_first_event_is_asked_for() {
    let dynamodb = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut runtime = Runtime::start().await;
    let endpoint = format!("http://{}", dynamodb.local_addr().unwrap());
    let _function = runtime.function(&endpoint).spawn().unwrap();
    let connection = timeout(PATIENCE, dynamodb.accept()).await.unwrap().unwrap();
    assert!(runtime.said.try_recv().is_err(), "connected during init");
    drop(connection);
    drop(dynamodb);
    assert_eq!(runtime.heard().await, Said::Next, "and an error there is not fatal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_dynamodb_is_a_503_and_the_function_goes_on() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut runtime = Runtime::start().await;
    let mut function = runtime.function(&format!("http://{free}")).spawn().unwrap();
    for _ in 0..2 {
        let answer = runtime.play(read("card-number-get", "v2")).await;
        assert_eq!(answer["statusCode"], 503);
        assert_eq!(answer["headers"]["retry-after"], "1");
        assert!(answer["body"].as_str().unwrap().contains("\"code\":503"));
    }
    assert!(function.try_wait().unwrap().is_none(), "it is running still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_fails_init_by_its_name() {
    let table = TestTable::new().await;
    let runtime = Runtime::start().await;
    for (variable, value) in [
        ("TABLE_NAME", "no table name"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("RUST_LOG", "loyalty_codes=loud"),
    ] {
        let output = runtime.function(&table.endpoint()).env(variable, value).output();
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(variable), "{said}");
    }
}
