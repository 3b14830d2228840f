//! Load test of the built function: eight processes on one table, as Lambda runs them. The oracle
//! of the soak test checks every answer. `make test-load` runs this test and sets `FUNCTION` to the
//! function.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a failure must fail the test, which prints its figures"
)]
#![allow(dead_code, reason = "only the soak test uses all of these items")]

mod common;

#[path = "../benches/measure/mod.rs"]
mod measure;
#[path = "../benches/soak/oracle.rs"]
mod oracle;
#[path = "../benches/soak/pace.rs"]
mod pace;

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{PASSWORD, TestTable, caller::Caller, events::function_environment, runtime_api::Runtime};
use loyalty_codes::{model::org::OrgId, secret::os_rng};
use measure::memory;
use oracle::{Oracle, SimulatedTill};
use pace::Pace;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::Value;
use tokio::{
    process::Child,
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};

const FUNCTIONS: usize = 8;
const REQUESTS: u64 = 100_000;
/// Time limit for all requests.
const TIME_LIMIT: Duration = Duration::from_mins(8);
/// More callers than functions, so that no function waits for work.
const TILLS: usize = 16;
/// Maximum memory of a function in MiB after thousands of requests. It is 6 MiB after the first
/// one.
const MAX_MEMORY: f64 = 24.0;

type Queue = Arc<Mutex<mpsc::UnboundedReceiver<(String, oneshot::Sender<Value>)>>>;

/// A function that takes the next event when it is free, as a Lambda environment does.
struct Function {
    runtime: Runtime,
    process: Child,
}

impl Function {
    async fn start(table: &TestTable) -> Self {
        let runtime = Runtime::start().await;
        let mut command = runtime.function(std::env::var("FUNCTION").unwrap());
        command.envs(function_environment(&table.endpoint(), table.name())).env("RUST_LOG", "error");
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        Self { runtime, process }
    }

    /// Processes events until the queue is closed. Returns the number of events, and the memory in
    /// MiB.
    async fn serve(mut self, queue: Queue) -> (u64, f64) {
        let mut served = 0;
        loop {
            let next = queue.lock().await.recv().await;
            let Some((event, answers)) = next else { break };
            let answer = self.runtime.invoke(event).await;
            answers.send(answer).unwrap();
            served += 1;
        }
        (served, memory(self.process.id().unwrap(), "VmRSS"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_functions_answer_100_000_requests_correctly() {
    let (table, service) = common::demo().await;
    let (invocations, events) = mpsc::unbounded_channel();
    let queue = Queue::new(Mutex::new(events));
    let mut functions = JoinSet::new();
    for _ in 0..FUNCTIONS {
        functions.spawn(Function::start(&table).await.serve(Arc::clone(&queue)));
    }
    let caller = Caller::for_functions(invocations, &format!("store.server:{PASSWORD}"));
    let oracle = Arc::new(Oracle::new(caller));
    let pace = Arc::new(Pace::of_requests(REQUESTS, TIME_LIMIT));
    let started = Instant::now();
    let mut tills = JoinSet::new();
    for _ in 0..TILLS {
        let rng = SmallRng::seed_from_u64(os_rng().random());
        tills.spawn(SimulatedTill::new(Arc::clone(&oracle), Arc::clone(&pace), rng).run());
    }
    tills.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let issued = service.store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    oracle.check_issued_numbers(issued.next - issued.first);
    let wrong = oracle.wrong();
    assert!(
        wrong.is_empty(),
        "{} wrong answers, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );

    // Dropping the last caller closes the queue.
    drop(oracle);
    let served = functions.join_all().await;
    let total: u64 = served.iter().map(|(requests, _)| requests).sum();
    println!("{total} requests in {seconds:.0} s, {:.0} a second", total as f64 / seconds);
    for (requests, memory) in &served {
        println!("a function answered {requests} and holds {memory:.1} MiB");
        assert!(*memory <= MAX_MEMORY, "{memory} MiB");
    }
    assert_eq!(total, REQUESTS, "not all requests were answered within {TIME_LIMIT:?}");
}
