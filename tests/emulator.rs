//! Tests the built functions under the AWS Lambda Runtime Interface Emulator. `make test-emulator`
//! runs these tests. It sets `AWS_LAMBDA_RIE` to the emulator, and `FUNCTION` and
//! `DELIVERY_FUNCTION` to the functions.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;
#[allow(dead_code, reason = "only a part of it is used")]
#[path = "delivery/providers.rs"]
mod providers;
#[allow(dead_code, reason = "only a part of it is used")]
#[path = "delivery/world.rs"]
mod world;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use chrono::Utc;
use common::{
    TestTable,
    events::{
        EVENTS, STREAM_EVENTS, VERSIONS, assert_as_listed, function_environment, read, read_stream_event,
    },
    free_port,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use world::{BY_WEBHOOK, MOBILE, World};

const HANG_TIMEOUT: Duration = Duration::from_secs(30);

/// The emulator and its function. Dropping it kills them.
struct Emulator {
    process: Child,
    invocations: String,
    client: Client<HttpConnector, Body>,
}

impl Emulator {
    /// Starts the function at the path that the variable `function` has.
    fn start(function: &str, table: &TestTable) -> Self {
        let rie = std::env::var("AWS_LAMBDA_RIE").unwrap();
        let function = std::env::var(function).unwrap();
        let (emulator, runtime) = (free_port(), free_port());
        let process = Command::new(rie)
            .args(["--runtime-interface-emulator-address", &format!("127.0.0.1:{emulator}")])
            .args(["--runtime-api-address", &format!("127.0.0.1:{runtime}"), &function])
            .envs(function_environment(&table.endpoint(), table.name()))
            .env("WEBHOOK_ALLOW_PRIVATE", "1")
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
        let emulator = Emulator::start("FUNCTION", &table);
        for (name, status, expected) in EVENTS {
            let answer = emulator.invoke(read(name, version)).await;
            assert_as_listed(name, version, *status, expected, &answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_the_stream_is_posted_to_the_gateway_once() {
    let world = World::new(BY_WEBHOOK).await;
    // The function has the system's clock.
    world.clock().advance(Utc::now() - world.clock().now());
    let message = world.put(&json!([{"type": "SMS", "value": MOBILE}])).await;
    let emulator = Emulator::start("DELIVERY_FUNCTION", &world.table);
    let [new, others] = STREAM_EVENTS.map(|name| read_stream_event(name, &message));
    let nothing_failed = json!({"batchItemFailures": []});

    assert_eq!(emulator.invoke(others).await, nothing_failed);
    assert_eq!(world.states(&message).await, ["-"]);
    for _ in 0..2 {
        assert_eq!(emulator.invoke(new.clone()).await, nothing_failed);
        let taken = world.providers.taken();
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(taken[0].json["data"]["to"], MOBILE);
        let id = taken[0].header("webhook-id");
        assert_eq!(world.states(&message).await, [format!("sent: {id}")]);
    }
}
