//! The delivery function: cold start, size, and the time to the requests of the providers, from an
//! event of the stream, and from the insert of the item.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use chrono::Utc;
use loyalty_codes::{secret::os_rng, store::keys::Key};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::{
    process::Child,
    time::{sleep, sleep_until},
};

use crate::{
    Function,
    common::{
        events::{STREAM_EVENTS, read_stream_event},
        runtime_api::{Runtime, RuntimeCall},
    },
    dynamodb::TlsEndpoint,
    measure::{Values, memory},
    providers::Called,
    report,
    stream::{POLL_INTERVAL, Stream},
    world::{BY_AWS, MOBILE, World},
};

const STARTS: usize = 20;
/// Messages after the first one of a process.
const WARM: usize = 25;
/// Messages whose time counts from their insert.
const INSERTED: usize = 100;

/// Times from the moment at which an event is sent, or an item was put.
struct Delivered {
    by_aws: Duration,
    by_webhook: Duration,
    answer: Duration,
}

/// Measurements of one process.
struct Process {
    init: Duration,
    /// The first message.
    cold: Delivered,
    warm: Vec<Delivered>,
    peak_mib: f64,
}

pub async fn run() {
    let world = World::new(BY_AWS).await;
    let tls = TlsEndpoint::start(&world.table.endpoint()).await;
    let (deliver, hello) = (Function::deliver(), Function::hello());
    let mut processes = Vec::new();
    let mut hello_inits = Vec::new();
    // In turn, so that other load on the machine affects both. The first round fills the file
    // system cache and does not count.
    for round in 0..=STARTS {
        let (hello_init, process) = (start_hello(&hello, &tls).await, measure(&deliver, &world, &tls).await);
        if round > 0 {
            hello_inits.push(milliseconds(hello_init));
            processes.push(process);
        }
    }

    let cold = |of: fn(&Process) -> Duration| {
        Values::new(processes.iter().map(|process| milliseconds(of(process))).collect())
    };
    let row = |messages: Vec<&Delivered>| {
        let all = |of: fn(&Delivered) -> Duration| {
            Values::new(messages.iter().map(|delivered| milliseconds(of(delivered))).collect())
        };
        vec![
            Values::new(Vec::new()),
            all(|delivered| delivered.by_aws),
            all(|delivered| delivered.by_webhook),
            all(|delivered| delivered.answer),
        ]
    };
    let inserted = measure_inserts(&deliver).await;
    let init = cold(|process| process.init);
    let init_ratio = init.median() / Values::new(hello_inits).median();
    let zip_mib = deliver.zip_size() as f64 / f64::from(1 << 20);
    let peak = Values::new(processes.iter().map(|process| process.peak_mib).collect());
    println!(
        "\nDelivery, {STARTS} processes with {} messages each, then {INSERTED} inserts: median (p99) in milliseconds\n",
        1 + WARM
    );
    report::table(
        &["init", "request to AWS", "request to webhook", "answer"],
        &[
            (
                "first message",
                vec![
                    init,
                    cold(|process| process.cold.by_aws),
                    cold(|process| process.cold.by_webhook),
                    cold(|process| process.cold.answer),
                ],
            ),
            ("later messages", row(processes.iter().flat_map(|process| &process.warm).collect())),
            ("from the insert", row(inserted.iter().collect())),
        ],
    );
    println!("\npeak memory {:.2} MiB\n", peak.median());
    report::at_most("delivery: init / hello's init", init_ratio, 4.0);
    report::at_most("delivery: zip, MiB", zip_mib, 5.0);
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn start_hello(hello: &Function, tls: &TlsEndpoint) -> Duration {
    let mut runtime = Runtime::start().await;
    let mut command = hello.command(&runtime, tls, &[]);
    let started = Instant::now();
    let _process = command.stdout(Stdio::null()).spawn().unwrap();
    let (ready, call) = runtime.next_call_at().await;
    assert_eq!(call, RuntimeCall::Next);
    ready - started
}

/// The function's process, when it waits for its first event.
struct Started {
    runtime: Runtime,
    process: Child,
    init: Duration,
}

async fn start(deliver: &Function, world: &World, tls: &TlsEndpoint) -> Started {
    let mut runtime = Runtime::start().await;
    let mut command = deliver.command(&runtime, tls, &[]);
    command.env("AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2", world.providers.endpoint());
    command.env("WEBHOOK_ALLOW_PRIVATE", "1");
    let started = Instant::now();
    let process = command.stdout(Stdio::null()).spawn().unwrap();
    let (ready, call) = runtime.next_call_at().await;
    assert_eq!(call, RuntimeCall::Next);
    Started { runtime, process, init: ready - started }
}

/// Starts the function and has messages delivered, each by AWS and by a webhook.
async fn measure(deliver: &Function, world: &World, tls: &TlsEndpoint) -> Process {
    let Started { mut runtime, process, init } = start(deliver, world, tls).await;
    let cold = send(&mut runtime, world).await;
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(send(&mut runtime, world).await);
    }
    Process { init, cold, warm, peak_mib: memory(process.id().unwrap(), "VmHWM") }
}

/// Has messages delivered from their insert on, in a table of its own, because a stream makes each
/// write of the engine slower.
async fn measure_inserts(deliver: &Function) -> Vec<Delivered> {
    let world = World::new(BY_AWS).await;
    let tls = TlsEndpoint::start(&world.table.endpoint()).await;
    let Started { mut runtime, process: _process, .. } = start(deliver, &world, &tls).await;
    send(&mut runtime, &world).await;
    let mut stream = Stream::open(&world.table).await;
    let mut inserted = Vec::new();
    for _ in 0..INSERTED {
        inserted.push(insert(&mut runtime, &world, &mut stream).await);
    }
    inserted
}

/// Puts a message for both providers.
async fn put(world: &World) -> Key {
    // The function has the system's clock.
    world.clock().advance(Utc::now() - world.clock().now());
    let channels = json!([{"type": "SMS", "value": MOBILE}, {"type": "WHATSAPP", "value": MOBILE}]);
    world.put(&channels).await
}

/// Sends the event of a new message.
async fn send(runtime: &mut Runtime, world: &World) -> Delivered {
    let event = read_stream_event(STREAM_EVENTS[0], &put(world).await);
    deliver(runtime, world, event, Instant::now()).await
}

/// Puts a message somewhere between two polls of the stream, and sends what the second one reads.
async fn insert(runtime: &mut Runtime, world: &World, stream: &mut Stream) -> Delivered {
    let poll_at = tokio::time::Instant::now() + POLL_INTERVAL;
    sleep(POLL_INTERVAL.mul_f64(os_rng().random_range(0.0..0.9))).await;
    put(world).await;
    let put_at = Instant::now();
    sleep_until(poll_at).await;
    let event = stream.poll().await.expect("the record of the message");
    deliver(runtime, world, event, put_at).await
}

/// Sends an event. Times count from `start`.
async fn deliver(runtime: &mut Runtime, world: &World, event: String, start: Instant) -> Delivered {
    let before = world.providers.received().len();
    let (answered, answer): (Instant, Value) = runtime.invoke_timed(event).await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    let received = world.providers.received();
    let at = |called: Called| {
        let request = received[before..].iter().find(|request| request.called == called).unwrap();
        request.at - start
    };
    Delivered { by_aws: at(Called::Text), by_webhook: at(Called::Webhook), answer: answered - start }
}
