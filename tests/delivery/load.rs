//! How long messages wait for failing ones, as the event source mapping calls the function.

use std::time::{Duration, Instant};

use loyalty_codes::{entrypoints::stream, store::keys::Key};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    common::events::stream_event,
    providers::Reply,
    world::{BY_WEBHOOK, SHORT, World},
};

/// As in `template.yaml`.
const LANES: usize = 10;
const BATCH: usize = 10;
const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_messages_the_failing_tenth_delays_no_batch_by_more_than_the_limit() {
    let world = World::new(BY_WEBHOOK).await;
    let to_fail = |to: &str| to.ends_with('7');
    world.providers.reply(move |received, _| {
        if to_fail(received.json["data"]["to"].as_str().unwrap()) { Reply::status(503) } else { Reply::Taken }
    });
    let mut keys = Vec::new();
    for user in 0..MESSAGES {
        let to = format!("91{:010}", 9_000_000_000_u64 + u64::try_from(user).unwrap());
        keys.push(world.put_for(u64::try_from(user).unwrap(), &json!([{"type": "SMS", "value": to}])).await);
    }
    let mut lanes = JoinSet::new();
    for lane in keys.chunks(MESSAGES / LANES).map(<[Key]>::to_vec) {
        let deliverer = world.deliverer.clone();
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
        SHORT.total,
    );
    let overhead = Duration::from_secs(1);
    assert!(longest < SHORT.total + overhead, "a failing message held its batch for {longest:?}");
    for key in keys.iter().skip(7).step_by(10) {
        assert_eq!(world.states(key).await, ["failed: gateway_503"]);
    }
}
