//! Cold starts: time from the start of the process to its first byte to DynamoDB, to its first
//! request for an event, and to its first answer.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use loyalty_codes::secret::os_rng;
use rand::seq::SliceRandom;

use crate::{
    DynamoDb, Function,
    common::{
        events::read,
        runtime_api::{Runtime, RuntimeCall},
    },
    dynamodb::TlsEndpoint,
    measure::{Values, memory},
    report,
};

const STARTS: usize = 20;

/// Measurements of one start of a function.
struct Start {
    first_byte: Option<Duration>,
    init: Duration,
    answer: Duration,
    peak_mib: f64,
}

/// Medians over a function's starts. Times are in milliseconds.
pub struct Cold {
    pub name: String,
    pub first_byte: f64,
    pub init: f64,
    pub answer: f64,
    pub peak_mib: f64,
    /// Bytes in a MiB, as AWS measures packages.
    pub zip_mib: f64,
}

/// Starts every function once in each of several rounds, so that other load on the machine affects
/// all of them. Their order is random, because a start is faster after that of a similar function.
pub async fn run(functions: &[Function]) -> Vec<Cold> {
    let mut dynamodb = DynamoDb::start().await;
    let mut starts: Vec<Vec<Start>> = functions.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..functions.len()).collect();
    for round in 0..=STARTS {
        order.shuffle(&mut os_rng());
        for &index in &order {
            let start = start(&functions[index], &mut dynamodb.tls).await;
            // The first round fills the file system cache and does not count.
            if round > 0 {
                starts[index].push(start);
            }
        }
    }
    println!(
        "\nCold start, {STARTS} each: median (p99) in milliseconds, and as a multiple of the first line's\n"
    );
    let columns = ["first byte", "init", "first answer", "peak MiB", "zip MiB"];
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    for (function, starts) in functions.iter().zip(&starts) {
        let milliseconds = |of: fn(&Start) -> Duration| {
            Values::new(starts.iter().map(|start| of(start).as_secs_f64() * 1e3).collect())
        };
        // The hello function does not call DynamoDB, so it has no first byte.
        let first_byte = milliseconds(|start| start.first_byte.unwrap_or_default());
        assert!(first_byte.median() > 0.0 || function.name.starts_with("hello"), "{}", function.name);
        let (init, answer) = (milliseconds(|start| start.init), milliseconds(|start| start.answer));
        let peak = Values::new(starts.iter().map(|start| start.peak_mib).collect());
        let zip = Values::new(vec![function.zip_size() as f64 / f64::from(1 << 20)]);
        medians.push(Cold {
            name: function.name.clone(),
            first_byte: first_byte.median(),
            init: init.median(),
            answer: answer.median(),
            peak_mib: peak.median(),
            zip_mib: zip.median(),
        });
        rows.push((function.name.as_str(), vec![first_byte, init, answer, peak, zip]));
    }
    report::table(&columns, &rows);
    medians
}

async fn start(function: &Function, dynamodb: &mut TlsEndpoint) -> Start {
    let mut runtime = Runtime::start().await;
    dynamodb.first_byte();
    let mut command = function.command(&runtime, dynamodb, &[]);
    let started = Instant::now();
    let process = command.stdout(Stdio::null()).spawn().unwrap();
    let (ready, call) = runtime.next_call_at().await;
    assert_eq!(call, RuntimeCall::Next, "{}", function.name);
    let (answered, answer) = runtime.invoke_timed(read("otp-fetch", "v2")).await;
    assert_eq!(answer["statusCode"], 200, "{}: {answer}", function.name);
    Start {
        first_byte: dynamodb.first_byte().map(|at| at - started),
        init: ready - started,
        answer: answered - started,
        peak_mib: memory(process.id().unwrap(), "VmHWM"),
    }
}
