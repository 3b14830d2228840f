//! The log lines of deliveries and their metrics.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::{
    common::{Log, template},
    providers::{Called, Reply},
    world::{BY_AWS, CODE, EMAIL, MOBILE, World},
};

/// The lines about deliveries.
fn deliveries(log: &Log) -> Vec<Value> {
    let text = log.text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "delivery").collect()
}

#[tokio::test]
async fn each_channel_has_a_line_with_its_metrics() {
    let world = World::with_config(BY_AWS, "CONF_OTP_MESSAGES_PER_HOUR = 2").await;
    world.providers.reply(|received, _| match received.called {
        Called::Email => Reply::error("SendingPausedException", ""),
        _ => Reply::Taken,
    });
    let (log, _recording) = Log::record();
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}])).await;
    world.clock().advance(TimeDelta::nanoseconds(250_000_379));
    world.deliver(&key).await;
    let over_budget = world.put_for(6, &json!([{"type": "SMS", "value": MOBILE}])).await;
    world.deliver(&over_budget).await;
    let expired = world.put_for(7, &json!([{"type": "SMS", "value": MOBILE}])).await;
    world.clock().advance(TimeDelta::minutes(5));
    world.deliver(&expired).await;

    let lines = deliveries(&log);
    let line = |outcome: &str| lines.iter().find(|line| line["outcome"] == outcome).unwrap();
    let sent = line("sent");
    for (name, value) in [
        ("level", json!("INFO")),
        ("org", json!("966")),
        ("channel", json!("SMS")),
        ("ms", json!(250.0)),
        ("MessagesSent", json!(1)),
        ("DeliveryLatency", json!(250.0)),
    ] {
        assert_eq!(sent[name], value, "{sent}");
    }
    let directive = &sent["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "loyalty-codes");
    assert_eq!(directive["Dimensions"], json!([[], ["channel"]]));
    let latency = json!({"Name": "DeliveryLatency", "Unit": "Milliseconds"});
    assert_eq!(directive["Metrics"], json!([{"Name": "MessagesSent"}, latency]));
    let failed = line("failed");
    assert_eq!((&failed["level"], &failed["MessagesFailed"]), (&json!("WARN"), &json!(1)));
    assert_eq!(failed["reason"], "not_permitted");
    assert_eq!(failed["provider_code"], "SendingPausedException");
    assert_eq!(line("over_budget")["MessagesOverBudget"], 1);
    assert_eq!(line("expired")["MessagesExpired"], 1);
    assert_eq!(lines.len(), 4);

    // The alarms and the dashboard use no other metrics than these.
    let written: BTreeSet<template::Metric> = lines.iter().flat_map(template::metrics_in).collect();
    let asked: BTreeSet<_> = template::metrics().into_iter().filter(template::is_of_delivery).collect();
    let missing: Vec<_> = asked.difference(&written).collect();
    assert!(missing.is_empty(), "the template uses metrics that are never written: {missing:?}");
    for (name, _) in &written {
        assert!(asked.iter().any(|(asked, _)| asked == name), "{name} is on no dashboard");
    }
}

#[tokio::test]
async fn no_line_shows_a_code_an_address_or_a_secret() {
    let replies = [
        Reply::Taken,
        Reply::error("ValidationException", "INVALID_PARAMETER"),
        Reply::error("ConflictException", "DESTINATION_PHONE_NUMBER_OPTED_OUT"),
        Reply::error("SomethingNew", ""),
        Reply::error("MessageRejected", ""),
        Reply::status(400),
        Reply::status(503),
        Reply::Reset,
        Reply::Silent,
    ];
    let (log, _recording) = Log::record();
    for reply in replies {
        let world = World::new(BY_AWS).await;
        world.providers.reply(move |_, _| reply.clone());
        let channels = json!([
            {"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL},
            {"type": "PHONE", "value": MOBILE}, {"type": "WHATSAPP", "value": MOBILE},
        ]);
        let key = world.put(&channels).await;
        let outcomes = world.deliver(&key).await;
        assert_eq!(outcomes.len(), 4);
        let text = format!("{}{outcomes:?}{:?}", log.text(), world.deliverer);
        let secret = world.secret.to_text();
        for hidden in [CODE, MOBILE, "8799361139", EMAIL, "tom@", &secret[6..], "R&D", "USER#5"] {
            assert!(!text.contains(hidden), "{hidden} is in {text}");
        }
    }
    assert!(deliveries(&log).len() >= 36);
}
