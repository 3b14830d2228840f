//! How long messages wait for failing ones, as the event source mapping calls the function.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use loyalty_codes::{delivery::Limits, entrypoints::stream, store::keys::Key};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    common::events::stream_event,
    providers::Reply,
    world::{BY_WEBHOOK, SHORT, World, deliverer},
};

/// As in `template.yaml`.
const LANES: usize = 10;
const BATCH: usize = 10;
const MESSAGES: usize = 1000;
const PROMISED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_messages_the_failing_tenth_delays_no_batch_by_more_than_the_limit() {
    let world = World::new(BY_WEBHOOK).await;
    let limits = Limits { total: Duration::from_secs(1), ..SHORT };
    let deliverer = deliverer(world.service.store.clone(), world.clock().clock(), &world.providers);
    let deliverer = Arc::new(deliverer.with_limits(limits));
    let to_fail = |to: &str| to.ends_with('7');
    world.providers.reply(move |received, _| {
        let fails = to_fail(received.json["data"]["to"].as_str().unwrap());
        if fails { Reply::Refused(503, "", json!({})) } else { Reply::Taken }
    });
    let mut keys = Vec::new();
    for user in 0..MESSAGES {
        let to = format!("91{:010}", 9_000_000_000_u64 + u64::try_from(user).unwrap());
        keys.push(world.put_for(u64::try_from(user).unwrap(), &json!([{"type": "SMS", "value": to}])).await);
    }
    let mut lanes = JoinSet::new();
    for lane in keys.chunks(MESSAGES / LANES).map(<[Key]>::to_vec) {
        let deliverer = Arc::clone(&deliverer);
        lanes.spawn(async move {
            let mut batches = Vec::new();
            for batch in lane.chunks(BATCH) {
                let started = Instant::now();
                let response = stream::handle(&deliverer, &stream_event(batch)).await;
                assert_eq!(serde_json::to_value(&response).unwrap(), json!({"batchItemFailures": []}));
                batches.push((started, started.elapsed()));
            }
            batches
        });
    }
    let batches: Vec<_> = lanes.join_all().await.into_iter().flatten().collect();
    let longest = batches.iter().map(|(_, took)| *took).max().unwrap();
    let taken = world.providers.taken();
    for (user, key) in keys.iter().enumerate() {
        let states = world.states(key).await;
        if user % 10 == 7 {
            assert_eq!(states, ["failed: gateway_503"], "{user}");
        } else {
            assert!(states[0].starts_with("sent: "), "{user}: {states:?}");
        }
    }
    assert_eq!(taken.len(), MESSAGES - MESSAGES / 10, "each healthy message is sent once");
    // From the start of its batch, which a batch before it delays by the limit at most.
    let mut waits: Vec<Duration> = taken
        .iter()
        .map(|received| {
            let start = batches.iter().map(|(started, _)| *started).filter(|started| *started <= received.at);
            start.map(|started| received.at - started).min().unwrap()
        })
        .collect();
    waits.sort_unstable();
    println!(
        "healthy messages wait in their batch: median {:?}, 99 % {:?}, longest {:?}; longest batch {longest:?} \
         of a limit of {:?}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
        limits.total,
    );
    // The machine does other work, too. What is promised with a limit of 5 seconds holds here in
    // all.
    assert!(longest < PROMISED, "a failing message held its batch for {longest:?}");
    assert!(waits[waits.len() - 1] < PROMISED, "healthy messages do not wait for failing ones");
    let mut attempts = HashMap::<String, Vec<Instant>>::new();
    for received in world.providers.received() {
        attempts.entry(received.header("webhook-id").to_owned()).or_default().push(received.at);
    }
    let failing: Vec<_> = attempts.values().filter(|times| times.len() > 1).collect();
    assert_eq!(failing.len(), MESSAGES / 10, "failing messages are tried again");
    let spans = failing.iter().map(|times| times[times.len() - 1] - times[0]);
    assert!(spans.max().unwrap() < PROMISED, "no attempt begins after the limit");
}
