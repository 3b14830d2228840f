//! Checks that a panic ends the built function. `make test-panics` runs this test and sets
//! `FUNCTION` to the function. The panic is one of production:
//! [`os_rng`](loyalty_codes::secret::os_rng) on a system without randomness. The function is not
//! built specially for this test.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use common::{
    MOBILE, TestTable,
    events::{function_environment, read},
    runtime_api::{HANG_TIMEOUT, Runtime, RuntimeCall},
};
use serde_json::Value;
use tokio::{process, time::timeout};

const SIGABRT: i32 = 6;

fn function(runtime: &Runtime, table: &TestTable) -> process::Command {
    let mut command = runtime.function(std::env::var("FUNCTION").unwrap());
    command.envs(function_environment(&table.endpoint(), table.name()));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn entity(answer: &Value) -> u64 {
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    body["entity"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_the_function_without_an_answer_and_the_next_process_serves() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("no_randomness.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/no_randomness.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", source, "-o"]).arg(&library).status().unwrap();
    assert!(built.success());

    let (table, service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let panicking = function(&runtime, &table).env("LD_PRELOAD", &library).spawn().unwrap();
    let number = entity(&runtime.invoke(read("card-number-get", "v2")).await);
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);
    runtime.send(read("otp-generate", "v2"));
    let output = timeout(HANG_TIMEOUT, panicking.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.signal(), Some(SIGABRT));
    assert!(runtime.made_no_call(), "the ended function sends neither an answer nor an error");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("panicked") && !stderr.contains(MOBILE), "{stderr}");
    assert_eq!(service.issued_otps().await, 0, "the interrupted request must leave nothing behind");

    let _next = function(&runtime, &table).spawn().unwrap();
    let answer = runtime.invoke(read("otp-generate", "v2")).await;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert_eq!(service.issued_otps().await, 1);
    assert_eq!(entity(&runtime.invoke(read("card-number-get", "v2")).await), number + 1);
}
