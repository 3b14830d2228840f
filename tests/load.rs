//! Load on the built function: eight processes of it, as Lambda runs them, on one table, and the
//! oracle of the soak over every answer. `make test-load` says where the function is: in
//! `FUNCTION`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "what fails in a test should fail loudly; it prints its figures"
)]
#![allow(dead_code, reason = "the soak uses all of its modules")]

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
use oracle::{Oracle, Shopper};
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
/// Before which all of them must be answered.
const AT_MOST: Duration = Duration::from_mins(8);
/// More than there are functions, so that none waits for work.
const SHOPPERS: usize = 16;
/// What a function may hold, in MiB, after thousands of requests; it is 6 after the first one.
const MAX_MEMORY: f64 = 24.0;

type Queue = Arc<Mutex<mpsc::UnboundedReceiver<(String, oneshot::Sender<Value>)>>>;

/// A function that takes the next event whenever it is free, as a Lambda environment does.
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

    /// Serves until there are no more events. Returns how many there were, and its memory in MiB.
    async fn serve(mut self, queue: Queue) -> (u64, f64) {
        let mut served = 0;
        loop {
            let next = queue.lock().await.recv().await;
            let Some((event, answers)) = next else { break };
            let answer = self.runtime.play(event).await;
            answers.send(answer).unwrap();
            served += 1;
        }
        (served, memory(self.process.id().unwrap(), "VmRSS"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_functions_answer_100_000_requests_right() {
    let (table, service) = common::demo().await;
    let (invocations, events) = mpsc::unbounded_channel();
    let queue = Queue::new(Mutex::new(events));
    let mut functions = JoinSet::new();
    for _ in 0..FUNCTIONS {
        functions.spawn(Function::start(&table).await.serve(Arc::clone(&queue)));
    }
    let caller = Caller::of_functions(invocations, &format!("store.server:{PASSWORD}"));
    let oracle = Arc::new(Oracle::new(caller));
    let pace = Arc::new(Pace::of_requests(REQUESTS, AT_MOST));
    let started = Instant::now();
    let mut shoppers = JoinSet::new();
    for _ in 0..SHOPPERS {
        let rng = SmallRng::seed_from_u64(os_rng().random());
        shoppers.spawn(Shopper::new(Arc::clone(&oracle), Arc::clone(&pace), rng).shop());
    }
    shoppers.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let issued = service.store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    oracle.holds(issued.next - issued.first);
    let wrong = oracle.wrong();
    assert!(wrong.is_empty(), "{} wrong, such as\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));

    // With the last caller, the queue ends.
    drop(oracle);
    let served = functions.join_all().await;
    let total: u64 = served.iter().map(|(requests, _)| requests).sum();
    println!("{total} requests in {seconds:.0} s, {:.0} a second", total as f64 / seconds);
    for (requests, memory) in &served {
        println!("a function answered {requests} and holds {memory:.1} MiB");
        assert!(*memory <= MAX_MEMORY, "{memory} MiB");
    }
    assert_eq!(total, REQUESTS, "all of them within {AT_MOST:?}");
}
