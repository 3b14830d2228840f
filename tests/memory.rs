//! A Lambda environment that lives for hours: nothing grows in it. `make test-memory` runs it.
#![allow(clippy::unwrap_used, reason = "what fails in a test should fail loudly")]

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

/// What the second half of the requests may add, in KiB: five bytes a request. An allocator's pages come and go.
const MAX_GROWTH: u64 = 256;

/// How much memory a process holds, in KiB.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A file's event as one of the tills sends it.
fn event(name: &str, till: u32) -> String {
    let mut event: Value = serde_json::from_str(&read(name, "v2")).unwrap();
    event["headers"]["authorization"] =
        basic(&format!("till-{till}:{PASSWORD}")).to_str().unwrap().to_owned().into();
    event.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_grows_over_a_hundred_thousand_requests_of_a_thousand_tills() {
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

    let mut held = Vec::new();
    for request in 0..requests {
        if request % (requests / 10) == 0 {
            held.push(resident(process));
        }
        let till = request % TILLS;
        // A number now and then, of each till; else what reads the most and writes nothing.
        let (name, status) =
            if request / TILLS % 20 == 0 { ("card-number-get", 200) } else { ("otp-fetch", 404) };
        let answer = runtime.play(event(name, till)).await;
        assert_eq!(answer["statusCode"], status, "{answer}");
    }
    held.push(resident(process));
    let growth = held[10].saturating_sub(held[5]);
    println!("KiB held after each tenth of {requests} requests: {held:?}");
    assert!(growth <= MAX_GROWTH, "{growth} KiB more in the second half: {held:?}");
}
