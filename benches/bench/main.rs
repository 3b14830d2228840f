//! Compares cold starts and warm requests with functions in other languages. `make bench` builds
//! all functions and runs this program. `benches/README.md` has the results.
//!
//! ```text
//! bench                      cold, warm, delivery and instructions
//! bench cold | warm | delivery  one of them
//! bench instructions         instruction counts against benches/instructions.json; fails at +3 %
//! bench instructions record  writes that file
//! bench compare NAME=PATH…   cold starts of builds of the function, side by side
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure must stop the bench, which prints rounded figures"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../measure/mod.rs"]
mod measure;
#[allow(dead_code, reason = "only a part of it is used")]
#[path = "../../tests/delivery/providers.rs"]
mod providers;
#[allow(dead_code, reason = "only a part of it is used")]
#[path = "../../tests/delivery/world.rs"]
mod world;

mod cold;
mod delivery;
mod dynamodb;
mod functions;
mod instructions;
mod report;
mod stream;
mod warm;

use dynamodb::DynamoDb;
use functions::Function;

/// Org settings. The service in this process has a stopped clock, and the other functions use the
/// system's clock. A long validity makes the OTPs valid by both clocks.
const CONFIG: &str = "
    CONF_OTP_VALIDITY_SECONDS = 86400
    CONF_OTP_DAILY_LIMIT = 1000
    CONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 100
";

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            let cold = cold::run(&Function::all()).await;
            let warm = warm::run().await;
            report::goals(&cold, &warm);
            delivery::run().await;
            instructions::check().await;
        }
        ["cold"] => drop(cold::run(&Function::all()).await),
        ["warm"] => drop(warm::run().await),
        ["delivery"] => delivery::run().await,
        ["instructions"] => instructions::check().await,
        ["instructions", "record"] => instructions::record().await,
        ["compare", ref builds @ ..] if !builds.is_empty() => {
            let builds: Vec<Function> = builds.iter().map(|build| Function::build(build)).collect();
            cold::run(&builds).await;
        }
        _ => panic!("unknown arguments: see benches/bench/main.rs"),
    }
}
