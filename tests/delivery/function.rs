//! The delivery function through the Runtime API, as Lambda runs it.

use std::{
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use loyalty_codes::{delivery::Limits, store::OPERATION_TIMEOUT};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::SetOnce,
    time::timeout,
};

use crate::{
    common::{
        events::{function_environment, stream_event},
        runtime_api::{HANG_TIMEOUT, Runtime, RuntimeCall},
        template,
    },
    providers::{Called, Reply},
    world::{BY_AWS, BY_WEBHOOK, CODE, EMAIL, MOBILE, World},
};

fn function(runtime: &Runtime, dynamodb: &str, table: &str, providers: &str) -> Command {
    let mut command = runtime.function(env!("CARGO_BIN_EXE_deliver"));
    command
        .envs(function_environment(dynamodb, table))
        .env("AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2", providers)
        .env("AWS_ENDPOINT_URL_SESV2", providers)
        .env("WEBHOOK_ALLOW_PRIVATE", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends the function and returns its output.
async fn end(mut function: Child) -> Output {
    function.start_kill().unwrap();
    function.wait_with_output().await.unwrap()
}

/// A world whose clock shows the time of the system, as the function's does.
async fn world() -> World {
    let world = World::new(BY_AWS).await;
    world.clock().advance(chrono::Utc::now() - world.clock().now());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_a_cold_function_is_delivered() {
    let world = world().await;
    let key = world.put(&json!([
        {"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}, {"type": "WHATSAPP", "value": MOBILE},
    ])).await;
    let mut runtime = Runtime::start().await;
    let endpoint = world.table.endpoint();
    let function =
        function(&runtime, &endpoint, world.table.name(), &world.providers.endpoint()).spawn().unwrap();
    let answer = runtime.invoke(stream_event(std::slice::from_ref(&key))).await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert!(world.states(&key).await.iter().all(|state| state.starts_with("sent")));
    for called in [Called::Text, Called::Email, Called::Webhook] {
        assert_eq!(world.providers.taken().iter().filter(|received| received.called == called).count(), 1);
    }
    // Delivered once more, as a stream may.
    assert_eq!(runtime.invoke(stream_event(&[key])).await, json!({"batchItemFailures": []}));
    assert_eq!(world.providers.taken().len(), 3);

    let log = String::from_utf8(end(function).await.stdout).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines {
        assert_eq!((&line["MessagesSent"], &line["outcome"]), (&json!(1), &json!("sent")));
        assert!(line["DeliveryLatency"].as_f64().unwrap() >= 0.0);
        assert!(chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
    }
    assert!(!log.contains(CODE) && !log.contains(MOBILE) && !log.contains(EMAIL), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_are_ignored() {
    let world = world().await;
    let mut runtime = Runtime::start().await;
    let endpoint = world.table.endpoint();
    let function =
        function(&runtime, &endpoint, world.table.name(), &world.providers.endpoint()).spawn().unwrap();
    for event in [r#"{"warmer":true}"#, "{}", "[]", "null", r#"{"Records":[{"eventSource":"aws:s3"}]}"#] {
        assert_eq!(runtime.invoke(event.to_owned()).await, json!({"batchItemFailures": []}), "{event}");
    }
    assert_eq!(String::from_utf8(end(function).await.stdout).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_fail_while_dynamodb_is_away_and_corrupt_items_do_not_stop_the_stream() {
    let world = world().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let healthy = world.put_for(1, &json!([{"type": "SMS", "value": MOBILE}])).await;
    let corrupt = world.put_for(2, &json!([{"type": "SMS", "value": MOBILE}])).await;
    let remove = world.service.client.update_item().table_name(world.table.name());
    let remove = remove.set_key(Some(corrupt.attributes())).update_expression("REMOVE email_body");
    remove.send().await.unwrap();
    let event = stream_event(&[corrupt, healthy.clone()]);

    let mut runtime = Runtime::start().await;
    let providers = world.providers.endpoint();
    let without =
        function(&runtime, &format!("http://{free}"), world.table.name(), &providers).spawn().unwrap();
    let failures = json!({"batchItemFailures": [{"itemIdentifier": "100"}, {"itemIdentifier": "101"}]});
    assert_eq!(runtime.invoke(event.clone()).await, failures);
    drop(without);

    let mut runtime = Runtime::start().await;
    let with = function(&runtime, &world.table.endpoint(), world.table.name(), &providers).spawn().unwrap();
    assert_eq!(runtime.invoke(event).await, json!({"batchItemFailures": []}));
    assert_eq!(world.states(&healthy).await, ["sent: id-1"]);
    let log = String::from_utf8(end(with).await.stdout).unwrap();
    let errors = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect::<Vec<_>>();
    let [given_up] = errors[..] else { panic!("{log}") };
    let line: Value = serde_json::from_str(given_up).unwrap();
    assert!(line["cause"].as_str().unwrap().contains("email_body"), "{line}");
    for (name, value) in [
        ("message", json!("delivery")),
        ("org", json!("966")),
        ("outcome", json!("failed")),
        ("reason", json!("unreadable")),
        ("MessagesFailed", json!(1)),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    // What the alarm is on.
    let alarm = template::block("UnreadableMessageAlarm:").join("\n");
    assert!(alarm.contains("Dimensions: [{ Name: channel, Value: UNKNOWN }]"), "{alarm}");
    assert_eq!(line["channel"], "UNKNOWN");
    assert!(template::metrics_in(&line).contains(&("MessagesFailed".to_owned(), vec!["channel".to_owned()])));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_the_time_to_store_its_outcome() {
    let world = world().await;
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}])).await;
    let event = stream_event(std::slice::from_ref(&key));
    let mut runtime = Runtime::start().await;
    let endpoint = world.table.endpoint();
    let _function =
        function(&runtime, &endpoint, world.table.name(), &world.providers.endpoint()).spawn().unwrap();
    let Limits { total, store_outcome, .. } = Limits::default();
    let needed = total + store_outcome + OPERATION_TIMEOUT;
    runtime.set_deadline(needed.saturating_sub(Duration::from_millis(100)));
    let failed = json!({"batchItemFailures": [{"itemIdentifier": "100"}]});
    assert_eq!(runtime.invoke(event.clone()).await, failed);
    assert_eq!(world.providers.received().len(), 0);
    runtime.set_deadline(needed + Duration::from_secs(20));
    assert_eq!(runtime.invoke(event).await, json!({"batchItemFailures": []}));
    assert!(world.states(&key).await.iter().all(|state| state.starts_with("sent")));
    assert_eq!(world.providers.taken().len(), 2);
}

/// What a function on Lambda may have open, and the memory of the delivery function in
/// `template.yaml`.
const OPEN_FILES: usize = 1024;
const MEMORY_MIB: u64 = 512;
/// The limit of the code.
const SENDING: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_stays_within_the_memory_and_the_connections_of_a_function() {
    let world = World::new(BY_WEBHOOK).await;
    world.clock().advance(chrono::Utc::now() - world.clock().now());
    let all_sending = Arc::new(SetOnce::new());
    let seen = Arc::clone(&all_sending);
    world.providers.reply(move |_, before| {
        if before == SENDING - 1 {
            seen.set(()).unwrap();
        }
        if before < SENDING { Reply::Silent } else { Reply::Taken }
    });
    let delivery = template::block("DeliveryFunction:");
    let number = |name: &str| {
        let value = delivery.iter().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        value.parse::<u64>().unwrap()
    };
    assert_eq!(number("MemorySize: "), MEMORY_MIB);
    let channels = json!([
        {"type": "SMS", "value": MOBILE}, {"type": "PHONE", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL},
        {"type": "WHATSAPP", "value": MOBILE}, {"type": "WECHAT", "value": "openid-1"},
    ]);
    let mut keys = Vec::new();
    for user in 0..number("BatchSize: ") {
        keys.push(world.put_for(user, &channels).await);
    }
    let mut runtime = Runtime::start().await;
    let endpoint = world.table.endpoint();
    let mut function = function(&runtime, &endpoint, world.table.name(), &world.providers.endpoint());
    // Nobody reads its lines.
    let function = function.stdout(Stdio::null()).spawn().unwrap();
    let process = format!("/proc/{}", function.id().unwrap());
    runtime.send(stream_event(&keys));
    timeout(HANG_TIMEOUT, all_sending.wait()).await.unwrap();
    let open = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);
    let RuntimeCall::Response(answer) = runtime.next_call().await else { panic!("an answer") };
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({"batchItemFailures": []}));
    assert_eq!(world.providers.received().len(), 5 * keys.len(), "each is sent, the last ones later");
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{} messages on 5 channels: {open} files and connections, {} MiB", keys.len(), peak / 1024);
    // The connections of TLS, which this test does not have, take up to 50 KiB more each.
    assert!(open < OPEN_FILES * 3 / 4, "{open} files and connections");
    assert!(peak / 1024 < MEMORY_MIB / 4, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_opened_during_init() {
    let dynamodb = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut runtime = Runtime::start().await;
    let endpoint = format!("http://{}", dynamodb.local_addr().unwrap());
    let _function = function(&runtime, &endpoint, "table", &endpoint).spawn().unwrap();
    let connection = timeout(HANG_TIMEOUT, dynamodb.accept()).await.unwrap().unwrap();
    assert!(runtime.made_no_call(), "the function must connect before it asks for an event");
    drop(connection);
    drop(dynamodb);
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_setting_fails_init_with_its_name() {
    let world = world().await;
    let runtime = Runtime::start().await;
    for (variable, value) in [
        ("TABLE_NAME", "no table name"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AWS_REGION", ""),
        ("AWS_ENDPOINT_URL_SESV2", "http://"),
        ("AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2", "sms"),
        ("WEBHOOK_ALLOW_PRIVATE", "yes"),
        ("METRICS_NAMESPACE", "AWS/Lambda"),
    ] {
        let endpoint = world.table.endpoint();
        let mut command = function(&runtime, &endpoint, world.table.name(), &world.providers.endpoint());
        let output = timeout(HANG_TIMEOUT, command.env(variable, value).output()).await.unwrap().unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(variable), "{stderr}");
    }
}
