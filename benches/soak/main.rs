//! Soak test: ten minutes of mixed traffic at 80 % of capacity against a built `loyaltyctl serve`.
//! Each answer is checked. `make soak` builds the program and runs this test. `benches/README.md`
//! has the results.
//!
//! ```text
//! soak PROGRAM [SECONDS [RATE]]     default: 600 s at 80 % of capacity; draws target/soak.svg
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure must stop the bench, which prints rounded figures"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../measure/mod.rs"]
mod measure;

mod oracle;
mod pace;
mod picture;
mod report;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;

use common::{caller::Caller, served::Served};
use loyalty_codes::secret::os_rng;
use oracle::{Oracle, SimulatedTill};
use pace::Pace;
use report::Report;

const SECONDS: u64 = 600;
/// Time for the measurement of the capacity. The callers send each request when the last one is
/// answered.
const MEASURING: Duration = Duration::from_secs(10);
const SHARE: f64 = 0.8;
/// Maximum number of concurrent requests. A due request that must wait counts its wait as latency.
/// The same number of callers measures the capacity, so that they can catch up after a delay.
const CALLERS: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (program, seconds, rate) = match &arguments[..] {
        [program] => (program, SECONDS, None),
        [program, seconds] => (program, seconds.parse().unwrap(), None),
        [program, seconds, rate] => (program, seconds.parse().unwrap(), Some(rate.parse().unwrap())),
        _ => panic!("the arguments are in benches/soak/main.rs"),
    };
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("dynamodb.db");
    let serve = ["serve", "--demo", "--listen", "127.0.0.1:0", "--db", db.to_str().unwrap()];
    let served = Served::run(Command::new(program).args(serve).env("RUST_LOG", "error"));
    let oracle = Arc::new(Oracle::new(Caller::new(&served)));

    let measured = Arc::new(Pace::as_fast_as_possible(MEASURING));
    load(&oracle, &measured, CALLERS).await;
    let capacity = measured.answered() as f64 / MEASURING.as_secs_f64();
    let rate: f64 = rate.unwrap_or(capacity * SHARE);
    println!("capacity {capacity:.0} requests/s, by {CALLERS} callers; now {rate:.0}/s for {seconds} s");

    let pace = Arc::new(Pace::of(rate, Duration::from_secs(seconds)));
    let memory = tokio::spawn(report::watch_memory(served.process.id(), Arc::clone(&pace)));
    load(&oracle, &pace, CALLERS).await;
    memory.abort();

    oracle.check_issued_numbers(numbers_issued(program, &served));
    let errors = served.kill().into_iter().filter(|line| line.contains(" ERROR "));
    errors.for_each(|line| oracle.note(line));
    let report = Report::new(&pace);
    report.print();
    println!("the table's file: {:.0} MB", file_size(&db) as f64 / 1e6);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak.svg"), picture::draw(&report)).unwrap();
    if report.check_requirements(&pace, &oracle) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sends requests from this many callers until the pace has ended.
async fn load(oracle: &Arc<Oracle>, pace: &Arc<Pace>, callers: usize) {
    let mut tills = JoinSet::new();
    for _ in 0..callers {
        let rng = SmallRng::seed_from_u64(os_rng().random());
        tills.spawn(SimulatedTill::new(Arc::clone(oracle), Arc::clone(pace), rng).run());
    }
    tills.join_all().await;
}

/// Number of card numbers that the org's counter has issued.
fn numbers_issued(program: &str, served: &Served) -> u64 {
    let show = ["--endpoint", served.dynamodb(), "--json", "org", "show", "966"];
    let output = Command::new(program).args(show).env_remove("AWS_ACCESS_KEY_ID").output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    shown["card_numbers"]["issued"].as_u64().unwrap()
}

fn file_size(db: &Path) -> u64 {
    fs::metadata(db).unwrap().len()
}
