//! Counts the instructions of a cold start and of a warm request on each route, with callgrind.
//! Unlike times, the counts do not depend on the load of the machine.

use std::{collections::BTreeMap, fs, process::Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};
use loyalty_codes::api::{ROUTES, Route};
use serde_json::{Value, json};
use tokio::process;

use crate::{
    DynamoDb, Function,
    common::{
        MOBILE,
        events::read,
        runtime_api::{Runtime, RuntimeCall},
    },
};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
/// The check fails if a count exceeds the baseline by more than this percentage.
const TOLERANCE: f64 = 3.0;
/// The cost of a request is calculated from two counts that differ by this many requests.
const REQUESTS: usize = 20;

type Counts = BTreeMap<String, u64>;

/// Counts instructions. Fails if a count exceeds the baseline by more than [`TOLERANCE`].
pub async fn check() {
    let counts = count().await;
    let baseline: BTreeMap<String, Counts> =
        serde_json::from_str(&fs::read_to_string(BASELINE).unwrap()).unwrap();
    let baseline = baseline.get(std::env::consts::ARCH).expect("no baseline: make bench-instructions-record");
    println!("\nInstructions, in thousands\n\n{:<28}{:>12}{:>12}{:>10}", "", "baseline", "now", "change");
    let mut worse = Vec::new();
    for (what, count) in &counts {
        let before = baseline[what];
        let change = (*count as f64 / before as f64 - 1.0) * 100.0;
        println!("{what:<28}{:>12}{:>12}{change:>+9.1}%", before / 1000, count / 1000);
        if change > TOLERANCE {
            worse.push(what);
        }
    }
    assert!(worse.is_empty(), "more than {TOLERANCE} % above the baseline: {worse:?}");
}

/// Writes the present counts as the baseline of this architecture.
pub async fn record() {
    let mut baseline: BTreeMap<String, Counts> = fs::read_to_string(BASELINE)
        .map_or_else(|_| BTreeMap::new(), |text| serde_json::from_str(&text).unwrap());
    baseline.insert(std::env::consts::ARCH.to_owned(), count().await);
    fs::write(BASELINE, serde_json::to_string_pretty(&baseline).unwrap() + "\n").unwrap();
    println!("{baseline:#?}");
}

async fn count() -> Counts {
    let mut counts = Counts::new();
    counts.insert("cold start, first answer".to_owned(), run(&[read("otp-fetch", "v2")]).await);
    counts.insert("cold start, init".to_owned(), run(&[]).await);
    for route in ROUTES {
        let event = |request: usize| event(route, request);
        // The first request fills the caches of tills and orgs.
        let once = run(&[event(0)]).await;
        let often = run(&(0..=REQUESTS).map(event).collect::<Vec<_>>()).await;
        let each = (often - once) / u64::try_from(REQUESTS).unwrap();
        counts.insert(format!("{} {}", route.method, route.path), each);
    }
    counts
}

/// Builds a request that succeeds after any number of other requests.
fn event(route: &Route, number: usize) -> String {
    match (route.method.as_str(), route.path) {
        ("GET", "/v2/otp") => read("otp-fetch", "v2"),
        ("POST", "/v2/otp/generate") => read("otp-generate", "v2"),
        ("POST", "/v2/otp/validate") => read("otp-validate", "v2"),
        ("GET", "/v2/cardNumber") => read("card-number-get", "v2"),
        ("POST", "/v2/cardNumber") => read("card-number-post", "v2"),
        ("POST", "/v3/oauth/token/generate") => read("token-generate", "v2"),
        ("POST", "/v2/customers") => {
            let identifiers = json!([{"type": "mobile", "value": format!("91901000{number:04}")}]);
            let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
            with_body("customer-register", &body)
        }
        ("GET", "/v2/customers/lookup") => of_demo_customer("customer-lookup"),
        ("GET", "/v2/customers/lookup/customerDetails") => of_demo_customer("customer-details"),
        ("GET", "/v2/customers/{id}") => read("customer-by-id", "v2"),
        ("POST", "/v2/customers/{id}/changeIdentifier") => {
            let (id, earlier) = (format!("C{number}"), format!("C{}", number.wrapping_sub(1)));
            let change = |id: String| json!([{"type": "cuid", "value": id}]);
            let body = json!({"add": change(id), "remove": change(earlier)});
            with_body("customer-change-identifier", &body)
        }
        other => panic!("no event for {other:?}"),
    }
}

/// An event with another body.
fn with_body(name: &str, body: &Value) -> String {
    let mut event: Value = serde_json::from_str(&read(name, "v2")).unwrap();
    event["isBase64Encoded"] = true.into();
    event["body"] = STANDARD.encode(body.to_string()).into();
    event.to_string()
}

/// An event that looks up the demo's customer instead of the one that the events register.
fn of_demo_customer(name: &str) -> String {
    read(name, "v2").replace("919010000022", MOBILE)
}

/// Counts the instructions of a process that starts, answers the events and is asked to end.
async fn run(events: &[String]) -> u64 {
    let dynamodb = DynamoDb::start().await;
    let mut runtime = Runtime::start().await;
    let callgrind = ["/usr/bin/env", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let mut command = Function::ours().command(&runtime, &dynamodb.tls, &callgrind);
    command.env("PATH", std::env::var("PATH").unwrap());
    let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);
    for event in events {
        let answer = runtime.invoke(event.clone()).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
        assert_eq!(runtime.next_call().await, RuntimeCall::Next);
    }
    let id = process.id().unwrap().to_string();
    process::Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
    let output = process.wait_with_output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : "));
    collected.unwrap_or_else(|| panic!("{stderr}")).1.trim().parse().unwrap()
}
