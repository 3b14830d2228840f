//! Runs requests in every order of their DynamoDB calls: two requests without a fault, two with one
//! fault at each call, and three equal requests without a fault. The outcome must equal that of
//! whole requests one after another, in some order. `make test-interleavings` runs these tests,
//! which takes some minutes.
//!
//! Each request runs in its own process, behind a proxy that holds its calls. When all requests
//! wait, one call is released. The next call is chosen when that request waits again or has ended.
//! [`search`] chooses calls, [`state`] releases them, and [`model`] is the oracle. [`requests`] is
//! the table of requests.
//!
//! `RACES='validate, right'` runs only the races whose names contain this text. `ORDERS=300` runs
//! at most 300 orders of each race instead of 1,000.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a failure must fail the test, which prints the number of orders"
)]

#[path = "../common/mod.rs"]
mod common;

mod model;
mod requests;
mod search;
mod state;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use loyalty_codes::api::ROUTES;

use requests::{Call, Request, requests};
use search::Search;
use state::{Run, State};

/// Maximum number of orders that are run of one scenario, unless `ORDERS` names another.
const MAX_ORDERS: u32 = 1000;

fn max_orders() -> u32 {
    std::env::var("ORDERS").map_or(MAX_ORDERS, |orders| orders.parse().expect("ORDERS is a number"))
}

/// Requests that run concurrently.
struct Scenario {
    requests: Vec<Request>,
    with_fault: bool,
}

impl Scenario {
    fn name(&self) -> String {
        let names: Vec<&str> = self.requests.iter().map(|request| request.name).collect();
        let prefix = self.requests[0].numbering.prefix();
        format!("{prefix}{}{}", names.join(" | "), if self.with_fault { ", one fault" } else { "" })
    }
}

/// Result of a scenario.
struct Explored {
    name: String,
    orders: usize,
    all: bool,
    violation: Option<String>,
}

/// Every pair of related requests without and with one fault, and every request three times.
fn scenarios() -> Vec<Scenario> {
    let all = requests();
    let mut scenarios = Vec::new();
    for (at, first) in all.iter().enumerate() {
        for second in all[at..].iter().filter(|second| first.races_with(second)) {
            for with_fault in [false, true] {
                scenarios.push(Scenario { requests: vec![*first, *second], with_fault });
            }
        }
        scenarios.push(Scenario { requests: vec![*first; 3], with_fault: false });
    }
    scenarios
}

/// Runs the orders of a scenario. Stops at the first order whose outcome the model does not
/// explain.
async fn explore(state: &mut State, scenario: &Scenario, max_orders: u32) -> Explored {
    let requests = &scenario.requests;
    let explored = |orders, all, violation| Explored { name: scenario.name(), orders, all, violation };
    let mut calls = Vec::new();
    for request in requests {
        match state
            .run(std::slice::from_ref(request), |_| search::Choice { request: 0, injected: None })
            .await
        {
            Ok(alone) => calls.extend(alone),
            Err(violation) => return explored(0, false, Some(violation)),
        }
    }
    let expected = Search::new(calls.clone(), scenario.with_fault, None).expected();
    let mut samples = (expected > f64::from(max_orders)).then_some(max_orders);
    loop {
        let mut search = Search::new(calls.clone(), scenario.with_fault, samples);
        let mut orders = 0;
        let too_many = loop {
            let Some(mut order) = search.next() else { break false };
            // A request that loses a race makes more calls than it does alone.
            if orders == max_orders as usize {
                break true;
            }
            orders += 1;
            if let Err(violation) = state.run(requests, |waiting| order.next(waiting)).await {
                return explored(orders, false, Some(violation));
            }
        };
        if !too_many {
            return explored(orders, samples.is_none(), None);
        }
        samples = Some(max_orders);
    }
}

#[test]
fn every_interleaving_is_explained_by_an_order_of_whole_requests() {
    let filter = std::env::var("RACES").unwrap_or_default();
    let scenarios: Vec<Scenario> =
        scenarios().into_iter().filter(|scenario| scenario.name().contains(&filter)).collect();
    assert!(!scenarios.is_empty(), "no race has {filter} in its name");
    let max_orders = max_orders();
    let (started, next, explored) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut state = State::new().await;
                    while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let started = Instant::now();
                        let done = explore(&mut state, scenario, max_orders).await;
                        let Explored { name, orders, all, violation } = &done;
                        let which = if *all { "all" } else { "sample" };
                        println!("{orders:>6} {which:<7} {:>6.1} s  {name}", started.elapsed().as_secs_f64());
                        if let Some(violation) = violation {
                            println!("{violation}");
                        }
                        explored.lock().unwrap().push(done);
                    }
                });
            });
        }
    });
    let explored = explored.into_inner().unwrap();
    let orders: usize = explored.iter().map(|scenario| scenario.orders).sum();
    let all = explored.iter().filter(|scenario| scenario.all).count();
    println!(
        "{orders} orders of {} races, {all} of them with every order, in {:.0} s",
        explored.len(),
        started.elapsed().as_secs_f64()
    );
    let violations: Vec<String> = explored
        .into_iter()
        .filter_map(|Explored { name, violation, .. }| Some(format!("{name}: {}", violation?)))
        .collect();
    assert!(
        violations.is_empty(),
        "{} races have an outcome that no order explains:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

/// Routes that are not in [`requests`]. Those that read customers change nothing that another
/// request decides by. The others race in tests of their own: `change_identifier.rs`, `upgrade.rs`
/// and `oauth.rs` in `tests/api/`.
const RACED_ELSEWHERE: [(&str, &str); 5] = [
    ("GET", "/v2/customers/lookup"),
    ("GET", "/v2/customers/lookup/customerDetails"),
    ("GET", "/v2/customers/{id}"),
    ("POST", "/v2/customers/{id}/changeIdentifier"),
    ("POST", "/v3/oauth/token/generate"),
];

#[test]
fn every_route_races() {
    let run = Run::example();
    let racing: BTreeSet<(String, String)> = requests()
        .iter()
        .filter_map(|request| match (request.call)(&run) {
            Call::Http(method, url, _) => {
                Some((method.to_string(), url.split('?').next().unwrap_or_default().to_owned()))
            }
            Call::Apply(_) => None,
        })
        .collect();
    let here =
        || ROUTES.iter().filter(|route| !RACED_ELSEWHERE.contains(&(route.method.as_str(), route.path)));
    let routes = here().map(|route| (route.method.to_string(), route.path.to_owned()));
    assert_eq!(racing, routes.collect(), "add the new route to requests.rs");
    for route in here().filter(|route| route.idempotent) {
        let path = route.path;
        let with_key = requests().into_iter().filter(|request| request.has_key);
        let mut calls = with_key.map(|request| (request.call)(&run));
        let races = calls.any(|call| matches!(call, Call::Http(_, url, _) if url.starts_with(path)));
        assert!(races, "{path} takes an Idempotency-Key: add it with a key to requests.rs");
    }
}
