//! Tests the function with cargo-lambda: `cargo lambda watch` serves it, and `cargo lambda invoke`
//! calls it. `make test-cargo-lambda` runs these tests with cargo-lambda on the path.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    TestTable,
    events::{EVENTS, VERSIONS, assert_as_listed, function_environment},
    free_port,
};

/// Long, because cargo-lambda builds the function first.
const HANG_TIMEOUT: Duration = Duration::from_mins(10);
const FUNCTION: &str = "loyalty-codes";

/// A process of `cargo lambda watch`. Dropping it ends the process.
struct Watch {
    process: Child,
    port: String,
}

impl Watch {
    fn start(table: &TestTable) -> Self {
        let port = free_port();
        let process = Command::new("cargo")
            .args(["lambda", "watch", "--ignore-changes", "--bin", FUNCTION])
            .args(["--invoke-address", "127.0.0.1", "--invoke-port", &port.to_string()])
            .envs(function_environment(&table.endpoint(), table.name()))
            // cargo-lambda compiles C with Zig. In one target folder, its build and that of this
            // test would replace each other's C libraries.
            .env("CARGO_TARGET_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/target/cargo-lambda"))
            // CI sets 1 for many calls of the embedded engine. The function makes few.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut watch = Self { process, port: port.to_string() };
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(watch.process.try_wait().unwrap().is_none(), "cargo lambda watch has ended");
            assert!(started.elapsed() < HANG_TIMEOUT);
            std::thread::yield_now();
        }
        watch
    }

    /// Returns the function's answer to the event in a file.
    fn invoke(&self, file: &str) -> serde_json::Value {
        let invoked = Command::new("cargo")
            .args(["lambda", "invoke", FUNCTION, "--data-file", file])
            .args(["--invoke-address", "127.0.0.1", "--invoke-port", &self.port])
            .output()
            .unwrap();
        assert!(invoked.status.success(), "{}", String::from_utf8_lossy(&invoked.stderr));
        serde_json::from_slice(&invoked.stdout).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SIGINT makes it end the function, too.
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_answered_as_listed() {
    for version in VERSIONS {
        let (table, _service) = common::demo().await;
        let watch = Watch::start(&table);
        for (name, status, expected) in EVENTS {
            let answer = watch.invoke(&format!("events/{name}.{version}.json"));
            assert_as_listed(name, version, *status, expected, &answer);
        }
    }
}
