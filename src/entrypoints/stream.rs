//! Events of the table's stream: the keys of the messages that were put, and the answer that tells
//! which records have failed.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    delivery::{Deliverer, DeliveryError, log_unreadable},
    store::{
        error_chain,
        keys::{Key, is_message},
    },
};

/// The parts of an event that are read. Item images are skipped: what counts is the item as it is
/// when it is delivered.
#[derive(Deserialize)]
struct Event<'a> {
    /// Each is read alone, so that one of another form does not hide the others.
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    dynamodb: Change,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    keys: Keys,
    sequence_number: String,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(rename = "PK")]
    pk: Text,
    #[serde(rename = "SK")]
    sk: Text,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

/// The answer to an event. Lambda sends the failed record with the lowest sequence number again,
/// and all that follow it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

/// A message that was put, and the sequence number of its record.
#[derive(Debug, PartialEq, Eq)]
pub struct InsertedMessage {
    pub key: Key,
    pub sequence_number: String,
}

/// The messages in an event, in order. Empty for other events, and for records of other items.
pub fn inserted_messages(event: &str) -> Vec<InsertedMessage> {
    let records = serde_json::from_str::<Event<'_>>(event).map(|event| event.records).unwrap_or_default();
    let records = records.into_iter().filter_map(|record| serde_json::from_str::<Record>(record.get()).ok());
    let inserted = records.filter(|record| record.event_name == "INSERT");
    let messages = inserted.map(|Record { dynamodb: Change { keys, sequence_number }, .. }| {
        InsertedMessage { key: Key { pk: keys.pk.text, sk: keys.sk.text }, sequence_number }
    });
    messages.filter(|message| is_message(&message.key)).collect()
}

/// Delivers the messages in an event, side by side, in a function that ends at `deadline`. A record
/// fails if DynamoDB does, or if its messages cannot be sent before the deadline. A message that is
/// corrupt itself is logged and given up, because it would hold up all messages after it.
pub async fn handle(deliverer: &Deliverer, event: &str, deadline: SystemTime) -> BatchResponse {
    // A deadline in the past is ignored: `cargo lambda watch` sends such events.
    let time_left = deadline.duration_since(SystemTime::now()).ok();
    let (keys, numbers): (Vec<Key>, Vec<String>) = inserted_messages(event)
        .into_iter()
        .map(|InsertedMessage { key, sequence_number }| (key, sequence_number))
        .unzip();
    let mut batch_item_failures = Vec::new();
    for (position, error) in deliverer.deliver_all(&keys, time_left).await {
        match error {
            DeliveryError::Store(error) if error.is_corrupt() => log_unreadable(&keys[position], &error),
            error => {
                tracing::error!(cause = error_chain(&error), "a message cannot be delivered yet");
                batch_item_failures.push(Failure { item_identifier: numbers[position].clone() });
            }
        }
    }
    BatchResponse { batch_item_failures }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_messages_that_were_put_are_read() {
        let record = |name: &str, sk: &str, number: &str| {
            json!({
                "eventID": "1", "eventName": name, "eventVersion": "1.1", "eventSource": "aws:dynamodb",
                "awsRegion": "ap-south-1", "eventSourceARN": "arn:aws:dynamodb:…",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1_795_235_400, "SizeBytes": 900, "StreamViewType": "KEYS_ONLY",
                    "Keys": {"PK": {"S": "ORG#966#USER#5"}, "SK": {"S": sk}},
                    "NewImage": {"created_id": {"N": "1"}}, "SequenceNumber": number,
                },
            })
        };
        let message = "MESSAGE#POINTS#1795235400000294#00001";
        let event = json!({"Records": [
            record("INSERT", message, "100"),
            record("MODIFY", message, "101"),
            record("REMOVE", message, "102"),
            record("INSERT", "OTP#POINTS#1795235400000294", "103"),
            {"eventName": "INSERT"},
        ]});
        let key = Key { pk: "ORG#966#USER#5".into(), sk: message.into() };
        let expected = [InsertedMessage { key, sequence_number: "100".into() }];
        assert_eq!(inserted_messages(&event.to_string()), expected);
        for event in ["", "null", "{}", "[]", "1", r#"{"Records":[]}"#, r#"{"Records":[{"s3":{}}]}"#] {
            assert_eq!(inserted_messages(event), [], "{event}");
        }
    }

    #[test]
    fn the_answer_names_the_failed_records() {
        let failure = Failure { item_identifier: "100".into() };
        let response = BatchResponse { batch_item_failures: vec![failure] };
        let json = r#"{"batchItemFailures":[{"itemIdentifier":"100"}]}"#;
        assert_eq!(serde_json::to_string(&response).unwrap(), json);
        assert_eq!(serde_json::to_string(&BatchResponse::default()).unwrap(), r#"{"batchItemFailures":[]}"#);
    }
}
