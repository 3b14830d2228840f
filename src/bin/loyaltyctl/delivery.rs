//! Delivery of OTP messages under `serve --demo`: to the console. In production, DynamoDB Streams and a pipe bring
//! the same items to whoever sends them.

use std::time::Duration;

use loyalty_codes::embedded::{EngineError, Stream};
use serde_json::Value;
use tokio::time::interval;

use crate::output::line;

const EVERY: Duration = Duration::from_millis(100);

/// Prints each message that is written from now on, until the process ends.
pub async fn deliver(mut stream: Stream) -> EngineError {
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        match stream.inserted() {
            Ok(items) => items.iter().flat_map(messages).for_each(|text| line(&text)),
            Err(error) => return error,
        }
    }
}

/// A line for each channel of a message item; none for any other item.
fn messages(item: &Value) -> Vec<String> {
    let text = |name: &str| item[name]["S"].as_str().unwrap_or_default();
    if !text("SK").starts_with("MESSAGE#") {
        return Vec::new();
    }
    let channels: Vec<Value> = serde_json::from_str(text("channels")).unwrap_or_default();
    let message = |channel: &Value| {
        let (kind, address) = (channel["type"].as_str()?, channel["value"].as_str()?);
        Some(match kind {
            "EMAIL" => {
                format!("delivered by {kind} to {address}: {}: {}", text("email_subject"), text("email_body"))
            }
            _ => format!("delivered by {kind} to {address}: {}", text("text")),
        })
    };
    channels.iter().filter_map(message).collect()
}
