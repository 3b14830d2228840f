//! Checks that the memory of a long-running Lambda environment does not grow. `make test-memory`
//! runs this test.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]
#![allow(clippy::print_stdout, reason = "the figures are for the reader of the log")]

mod common;

use std::{fs, process::Stdio};

use common::{
    PASSWORD, basic, demo, demo_org_with,
    events::{function_environment, read},
    runtime_api::Runtime,
};
use loyalty_codes::model::{org::OrgId, till::Permission};
use serde_json::Value;

const ORGS: u32 = 100;
const TILLS: u32 = 1000;

/// Maximum growth over the second half of the requests, in KiB: five bytes for each request. The
/// allocator takes and frees whole pages.
const MAX_GROWTH: u64 = 256;

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The event of a file, sent by one of the tills.
fn event(name: &str, till: u32) -> String {
    let mut event: Value = serde_json::from_str(&read(name, "v2")).unwrap();
    event["headers"]["authorization"] =
        basic(&format!("till-{till}:{PASSWORD}")).to_str().unwrap().to_owned().into();
    event.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_over_100_000_requests_of_1_000_tills() {
    let requests: u32 = std::env::var("REQUESTS").map_or(100_000, |requests| requests.parse().unwrap());
    let (table, service) = demo().await;
    for org in 1..=ORGS {
        let mut definition = demo_org_with("CONF_CARD_NUMBER_BLOCK_SIZE = 10");
        definition.id = OrgId(org);
        service.apply(&definition).await.unwrap();
    }
    for till in 0..TILLS {
        service.create_till(&format!("till-{till}"), till % ORGS + 1, Permission::ALL).await;
    }
    let mut runtime = Runtime::start().await;
    let mut command = runtime.function(std::env::var("FUNCTION").unwrap());
    command.envs(function_environment(&table.endpoint(), table.name())).stdout(Stdio::null());
    let function = command.spawn().unwrap();
    let process = function.id().unwrap();

    let mut resident_kib = Vec::new();
    for request in 0..requests {
        if request % (requests / 10) == 0 {
            resident_kib.push(resident(process));
        }
        let till = request % TILLS;
        // Each till takes a card number now and then. Other requests are fetches, which read most
        // and write nothing.
        let (name, status) =
            if (request / TILLS).is_multiple_of(20) { ("card-number-get", 200) } else { ("otp-fetch", 404) };
        let answer = runtime.invoke(event(name, till)).await;
        assert_eq!(answer["statusCode"], status, "{answer}");
    }
    resident_kib.push(resident(process));
    let growth = resident_kib[10].saturating_sub(resident_kib[5]);
    println!("KiB of memory after each tenth of {requests} requests: {resident_kib:?}");
    assert!(growth <= MAX_GROWTH, "{growth} KiB more in the second half: {resident_kib:?}");
}
