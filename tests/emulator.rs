//! Tests the built function under the AWS Lambda Runtime Interface Emulator. `make test-emulator`
//! runs these tests. It sets `AWS_LAMBDA_RIE` to the emulator and `FUNCTION` to the function.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use common::{
    TestTable,
    events::{EVENTS, VERSIONS, assert_as_listed, function_environment, read},
    free_port,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

const HANG_TIMEOUT: Duration = Duration::from_secs(30);

/// The emulator and its function. Dropping it kills them.
struct Emulator {
    process: Child,
    invocations: String,
    client: Client<HttpConnector, Body>,
}

impl Emulator {
    fn start(table: &TestTable) -> Self {
        let rie = std::env::var("AWS_LAMBDA_RIE").unwrap();
        let function = std::env::var("FUNCTION").unwrap();
        let (emulator, runtime) = (free_port(), free_port());
        let process = Command::new(rie)
            .args(["--runtime-interface-emulator-address", &format!("127.0.0.1:{emulator}")])
            .args(["--runtime-api-address", &format!("127.0.0.1:{runtime}"), &function])
            .envs(function_environment(&table.endpoint(), table.name()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let invocations = format!("http://127.0.0.1:{emulator}/2015-03-31/functions/function/invocations");
        Self { process, invocations, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Sends an event and returns the function's answer. The emulator takes one event at a time.
    async fn invoke(&self, event: String) -> Value {
        let started = Instant::now();
        loop {
            let request =
                axum::http::Request::post(&self.invocations).body(Body::from(event.clone())).unwrap();
            match self.client.request(request).await {
                Ok(response) => {
                    let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
                    return serde_json::from_slice(&body).unwrap();
                }
                // The emulator does not listen yet.
                Err(error) => assert!(started.elapsed() < HANG_TIMEOUT, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_answered_as_listed() {
    for version in VERSIONS {
        let (table, _service) = common::demo().await;
        let emulator = Emulator::start(&table);
        for (name, status, expected) in EVENTS {
            let answer = emulator.invoke(read(name, version)).await;
            assert_as_listed(name, version, *status, expected, &answer);
        }
    }
}
