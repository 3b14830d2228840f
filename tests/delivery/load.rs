//! How long messages wait for failing ones, as the event source mapping calls the function.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant, SystemTime},
};

use loyalty_codes::{delivery::Limits, entrypoints::stream, store::keys::Key};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    common::{events::stream_event, template},
    providers::Reply,
    world::{BY_WEBHOOK, SHORT, World, deliverer},
};

const MESSAGES: u64 = 1000;
/// As many as a machine with two processors can serve, with the providers and the table.
const LANES: usize = 2;
/// The limit of the code, and what a busy machine may add to it. The second is the smaller one, so
/// that a message which waits for a failing one cannot be taken for one that does not.
const LIMITS: Limits = Limits { total: Duration::from_secs(5), ..SHORT };
const SLACK: Duration = Duration::from_millis(4500);

/// A number in the event source mapping.
fn mapping(name: &str) -> usize {
    let lines = template::block("DeliveryFunction:");
    lines.iter().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": ")).unwrap().parse().unwrap()
}

/// The address of a customer's message. One in ten fails.
fn address(user: u64) -> String {
    format!("91{:010}", 9_000_000_000_u64 + user)
}

fn fails(address: &str) -> bool {
    address.ends_with('7')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_messages_each_waits_for_the_batches_before_it_in_its_lane_at_most() {
    let world = World::new(BY_WEBHOOK).await;
    world.providers.reply(|received, _| {
        let fails = fails(received.json["data"]["to"].as_str().unwrap());
        if fails { Reply::Refused(503, "", json!({})) } else { Reply::Taken }
    });
    let mut keys = Vec::new();
    for user in 0..MESSAGES {
        keys.push(world.put_for(user, &json!([{"type": "SMS", "value": address(user)}])).await);
    }

    // Lambda assigns partitions to lanes by their hash, so some lanes have more messages than
    // others.
    let batch_size = mapping("BatchSize");
    assert!(mapping("ParallelizationFactor") >= LANES);
    let mut queues: Vec<_> = (0..LANES).map(|_| mpsc::unbounded_channel()).collect();
    let mut enqueued = HashMap::new();
    for (user, key) in (0..).zip(&keys) {
        let mut hasher = DefaultHasher::new();
        key.pk.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % 1024).unwrap() % LANES;
        enqueued.insert(address(user), Instant::now());
        queues[lane].0.send((address(user), key.clone())).unwrap();
    }
    let mut running = JoinSet::new();
    for (sender, mut queue) in queues.drain(..) {
        drop(sender);
        // Each lane has a process of its own.
        let deliverer = deliverer(world.service.store.clone(), world.clock().clock(), &world.providers);
        let deliverer = deliverer.with_limits(LIMITS);
        running.spawn(async move {
            let mut batches_before = Vec::new();
            for before in 0.. {
                let mut batch = Vec::new();
                if queue.recv_many(&mut batch, batch_size).await == 0 {
                    break;
                }
                let (addresses, keys): (Vec<String>, Vec<Key>) = batch.into_iter().unzip();
                let deadline = SystemTime::now() + Duration::from_mins(1);
                let response = stream::handle(&deliverer, &stream_event(&keys), deadline).await;
                assert_eq!(serde_json::to_value(&response).unwrap(), json!({"batchItemFailures": []}));
                batches_before.extend(addresses.into_iter().map(|address| (address, before)));
            }
            batches_before
        });
    }
    let batches_before: HashMap<String, u32> = running.join_all().await.into_iter().flatten().collect();
    assert!(batches_before.values().any(|before| *before >= 2), "the lanes have several batches");

    for (user, key) in (0..).zip(&keys) {
        let states = world.states(key).await;
        if fails(&address(user)) {
            assert_eq!(states, ["failed: gateway_503"], "{user}");
        } else {
            assert!(states[0].starts_with("sent: "), "{user}: {states:?}");
        }
    }
    let mut attempts = HashMap::<String, Vec<Instant>>::new();
    for received in world.providers.received() {
        let address = received.json["data"]["to"].as_str().unwrap().to_owned();
        attempts.entry(address).or_default().push(received.at);
    }
    let mut waits = Vec::new();
    for (address, before) in &batches_before {
        let times = &attempts[address];
        let wait = times[0] - enqueued[address];
        let bound = (LIMITS.total + SLACK) * *before + SLACK;
        assert!(wait < bound, "{address} waited for {wait:?} behind {before} batches");
        if fails(address) {
            assert!(times.len() > 1, "failing messages are tried again");
            assert!(times[times.len() - 1] - times[0] < LIMITS.total + SLACK, "until the limit");
        } else {
            assert_eq!(times.len(), 1, "each healthy message is sent once");
        }
        waits.push(wait);
    }
    waits.sort_unstable();
    println!(
        "from the stream to the provider: median {:?}, 99 % {:?}, longest {:?}; up to {} batches in a lane",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
        1 + batches_before.values().max().unwrap(),
    );
}
