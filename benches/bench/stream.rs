//! The stream of the embedded DynamoDB, polled as Lambda polls it.

use std::time::Duration;

use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use axum::body::{Body, to_bytes};
use http::{Method, Request, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

use crate::common::TestTable;

/// Lambda polls each shard four times a second.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The records of a table's stream, from when it was opened.
pub struct Stream {
    endpoint: String,
    iterator: String,
}

impl Stream {
    /// Gives a table a stream of new images, as the template does, and opens it.
    pub async fn open(table: &TestTable) -> Self {
        let view = StreamSpecification::builder()
            .stream_enabled(true)
            .stream_view_type(StreamViewType::NewImage)
            .build()
            .unwrap();
        let client = table.client();
        client.update_table().table_name(table.name()).stream_specification(view).send().await.unwrap();
        let described = client.describe_table().table_name(table.name()).send().await.unwrap();
        let arn = described.table.unwrap().latest_stream_arn.unwrap();
        let endpoint = table.endpoint();
        let described = call(&endpoint, "DescribeStream", &json!({"StreamArn": arn})).await;
        let shard = &described["StreamDescription"]["Shards"][0]["ShardId"];
        let latest = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "LATEST"});
        let opened = call(&endpoint, "GetShardIterator", &latest).await;
        Self { endpoint, iterator: opened["ShardIterator"].as_str().unwrap().to_owned() }
    }

    /// The records since the last call that the template's filter lets through, as an event.
    pub async fn poll(&mut self) -> Option<String> {
        let read = json!({"ShardIterator": self.iterator});
        let mut answer = call(&self.endpoint, "GetRecords", &read).await;
        answer["NextShardIterator"].as_str().unwrap().clone_into(&mut self.iterator);
        let Value::Array(mut records) = answer["Records"].take() else { panic!("{answer}") };
        records.retain(|record| {
            let key = record["dynamodb"]["Keys"]["SK"]["S"].as_str().unwrap();
            record["eventName"] == "INSERT" && key.starts_with("MESSAGE#")
        });
        (!records.is_empty()).then(|| json!({"Records": records}).to_string())
    }
}

/// Calls an operation of DynamoDB's streams.
async fn call(endpoint: &str, operation: &str, input: &Value) -> Value {
    let request = Request::builder()
        .method(Method::POST)
        .uri(endpoint)
        .header("x-amz-target", format!("DynamoDBStreams_20120810.{operation}"))
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.0")
        .header(
            header::AUTHORIZATION,
            "AWS4-HMAC-SHA256 Credential=ANOTREAL/20261126/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=0",
        )
        .header("x-amz-date", "20261126T000000Z")
        .body(Body::from(input.to_string()))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    assert!(status.is_success(), "{operation}: {body}");
    body
}
