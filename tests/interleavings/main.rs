//! Every order in which the DynamoDB calls of two requests can come, without a mishap and with one
//! at each call; and of three of the same. Whatever comes out must be what the requests would have
//! done one after another, in some order. `make test-interleavings` runs it, for some minutes.
//!
//! Each request runs in a process of its own, behind a proxy that holds its calls. When all wait,
//! one call is let through, and the next is chosen when its request waits again or has ended:
//! [`search`] chooses, [`state`] lets through, and [`model`] is the oracle. What races is the table
//! in [`requests`].
//!
//! `RACES='validate, right'` runs those alone whose names have this in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "what fails in a test should fail loudly; it prints how many orders there were"
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

use requests::{Call, Kind, Request, requests};
use search::Search;
use state::{Run, State};

/// Of one set of requests, so many orders are run at most.
const MOST_ORDERS: u32 = 2000;

/// Requests that race.
struct Scenario {
    requests: Vec<Request>,
    with_mishap: bool,
}

impl Scenario {
    fn name(&self) -> String {
        let names: Vec<&str> = self.requests.iter().map(|request| request.name).collect();
        format!("{}{}", names.join(" | "), if self.with_mishap { ", a mishap" } else { "" })
    }
}

/// What came of a scenario.
struct Explored {
    name: String,
    orders: usize,
    all: bool,
    violation: Option<String>,
}

/// Every pair without a mishap and with one, and three of each.
fn scenarios() -> Vec<Scenario> {
    let all = requests();
    let mut scenarios = Vec::new();
    for (at, first) in all.iter().enumerate() {
        let last_number = |request: &Request| request.kind == Kind::LastNumber;
        for second in all[at..].iter().filter(|second| last_number(first) == last_number(second)) {
            for with_mishap in [false, true] {
                scenarios.push(Scenario { requests: vec![*first, *second], with_mishap });
            }
        }
        scenarios.push(Scenario { requests: vec![*first; 3], with_mishap: false });
    }
    scenarios
}

/// Runs the orders of a scenario, until one is not explained.
async fn explore(state: &mut State, scenario: &Scenario) -> Explored {
    let requests = &scenario.requests;
    let explored = |orders, all, violation| Explored { name: scenario.name(), orders, all, violation };
    let mut calls = Vec::new();
    for request in requests {
        match state.run(std::slice::from_ref(request), |_| search::Choice { request: 0, mishap: None }).await
        {
            Ok(alone) => calls.extend(alone),
            Err(violation) => return explored(0, false, Some(violation)),
        }
    }
    let expected = Search::new(calls.clone(), scenario.with_mishap, None).expected();
    let mut samples = (expected > f64::from(MOST_ORDERS)).then_some(MOST_ORDERS);
    loop {
        let mut search = Search::new(calls.clone(), scenario.with_mishap, samples);
        let mut orders = 0;
        let too_many = loop {
            let Some(mut order) = search.next() else { break false };
            // Requests that lose a race make more calls than they do alone.
            if orders == MOST_ORDERS as usize {
                break true;
            }
            orders += 1;
            if let Err(violation) = state.run(requests, |waits| order.next(waits)).await {
                return explored(orders, false, Some(violation));
            }
        };
        if !too_many {
            return explored(orders, samples.is_none(), None);
        }
        samples = Some(MOST_ORDERS);
    }
}

#[test]
fn every_interleaving_is_explained_by_an_order_of_whole_requests() {
    let filter = std::env::var("RACES").unwrap_or_default();
    let scenarios: Vec<Scenario> =
        scenarios().into_iter().filter(|scenario| scenario.name().contains(&filter)).collect();
    assert!(!scenarios.is_empty(), "no race is called {filter}");
    let (started, next, explored) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut state = State::new().await;
                    while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let started = Instant::now();
                        let done = explore(&mut state, scenario).await;
                        let Explored { name, orders, all, .. } = &done;
                        let which = if *all { "all" } else { "of more" };
                        println!("{orders:>6} {which:<7} {:>6.1} s  {name}", started.elapsed().as_secs_f64());
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
        "{} races ended as no order explains:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

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
    let routes = ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned()));
    assert_eq!(racing, routes.collect(), "a new route needs a line in requests.rs");
    for route in ROUTES.iter().filter(|route| route.idempotent) {
        let path = route.path;
        let with_key = requests().into_iter().filter(|request| request.has_key);
        let mut calls = with_key.map(|request| (request.call)(&run));
        let races = calls.any(|call| matches!(call, Call::Http(_, url, _) if url.starts_with(path)));
        assert!(races, "{path} takes an Idempotency-Key, and needs a line with one in requests.rs");
    }
}
