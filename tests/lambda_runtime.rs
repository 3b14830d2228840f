//! Tests the Lambda binary through the Runtime API, as Lambda runs it.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use common::{
    MOBILE, PASSWORD, TABLE, TestTable,
    events::{EVENTS, VERSIONS, WRONG_TYPES, assert_as_listed, function_environment, read, with_wrong_type},
    faults::{Fault, Faults, with_fault_proxy},
    runtime_api::{HANG_TIMEOUT, Runtime, RuntimeCall},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// Returns the command that starts the function, on a table of a DynamoDB.
fn function(runtime: &Runtime, dynamodb: &str, table: &str) -> Command {
    let mut command = runtime.function(env!("CARGO_BIN_EXE_loyalty-codes"));
    command.envs(function_environment(dynamodb, table)).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends the function and returns its output.
async fn end(mut function: Child) -> Output {
    function.start_kill().unwrap();
    function.wait_with_output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_answered_as_listed() {
    for version in VERSIONS {
        let (table, _service) = common::demo().await;
        let mut runtime = Runtime::start().await;
        let function = function(&runtime, &table.endpoint(), table.name()).spawn().unwrap();
        for (name, status, expected) in EVENTS {
            let answer = runtime.invoke(read(name, version)).await;
            assert_as_listed(name, version, *status, expected, &answer);
            assert_eq!(answer["isBase64Encoded"], false);
            assert_eq!(answer["headers"]["cache-control"], "no-store", "{answer}");
            assert!(
                answer["headers"].get("content-length").is_none(),
                "API Gateway adds the length itself: {answer}"
            );
        }
        let log = String::from_utf8(end(function).await.stdout).unwrap();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().filter(|line| line["message"] == "request").count(), EVENTS.len(), "{log}");
        for secret in [MOBILE, "9010000022", PASSWORD, "538AD87", "c3RvcmUuc2VydmVyOnNlcnZlcjEyMw"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
}

/// The log lines that a function writes for an event. `change` modifies its environment.
async fn log_lines_of(event: &str, change: impl FnOnce(&mut Command) -> &mut Command) -> Vec<Value> {
    let (table, _service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let function = change(&mut function(&runtime, &table.endpoint(), table.name())).spawn().unwrap();
    runtime.invoke(read(event, "v2")).await;
    let log = String::from_utf8(end(function).await.stdout).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Maximum length in bytes of the log line of a process's first request. Later lines have about 550
/// bytes, which the README's cost table assumes.
const MAX_LINE: usize = 700;

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_configures_metrics() {
    let dimensions = |lines: &[Value]| -> Vec<Value> {
        let directives = lines[0]["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert!(directives.iter().all(|directive| directive["Namespace"] == "shop-eu"));
        directives.iter().map(|directive| directive["Dimensions"].clone()).collect()
    };
    let event = "card-number-get";
    let lines = log_lines_of(event, |command| command.env("METRICS_NAMESPACE", "shop-eu")).await;
    assert_eq!(lines.len(), 1, "one line for each request");
    let length = lines[0].to_string().len();
    assert!(length < MAX_LINE, "a log line has {length} bytes, and CloudWatch charges by the byte");
    assert_eq!(dimensions(&lines), [json!([["route"]]), json!([[]])]);
    let lines = log_lines_of(event, |command| {
        command.env("METRICS_NAMESPACE", "shop-eu").env("METRICS_BY_ORG", "true")
    })
    .await;
    assert_eq!(dimensions(&lines), [json!([["route"], ["org", "route"]]), json!([[], ["org"]])]);
    assert_eq!((&lines[0]["org"], &lines[0]["CardNumbersGenerated"]), (&json!("966"), &json!(1.0)));

    let lines = log_lines_of(event, |command| command.env_remove("METRICS_NAMESPACE")).await;
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["message"], &lines[0]["status"]), (&json!("request"), &json!(200)));
    assert!(lines[0].get("_aws").is_none() && lines[0].get("Requests").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_have_the_level_and_timestamp_that_lambda_filters_by() {
    let (table, _service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let running = function(&runtime, &table.endpoint(), table.name()).spawn().unwrap();
    runtime.invoke(read("card-number-get", "v2")).await;
    table.client().delete_table().table_name(table.name()).send().await.unwrap();
    runtime.invoke(read("otp-fetch", "v2")).await;
    let log = String::from_utf8(end(running).await.stdout).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let levels: Vec<&str> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["INFO", "ERROR"], "{log}");
    for line in &lines {
        // Lambda treats a line without a timestamp in this format as INFO.
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(timestamp).is_ok(), "{timestamp}");
    }
    let filter = "ApplicationLogLevel: INFO";
    assert!(include_str!("../template.yaml").contains(filter), "the template must keep lines of level INFO");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_from_api_gateway_is_ignored_without_an_error() {
    let (table, _service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let function = function(&runtime, &table.endpoint(), table.name()).spawn().unwrap();
    let events = [
        r#"{"version":"0","detail-type":"Scheduled Event","source":"aws.events","detail":{"secret":1}}"#,
        r#"{"source":"serverless-plugin-warmup","secret":1}"#,
        r#"{"warmer":true}"#,
        "{}",
        "[]",
        "\"secret\"",
        "1",
        "null",
    ];
    for event in events {
        assert_eq!(runtime.invoke(event.to_owned()).await, serde_json::json!({}), "{event}");
    }
    assert_eq!(runtime.invoke(read("card-number-get", "v2")).await["statusCode"], 200);
    let log = String::from_utf8(end(function).await.stdout).unwrap();
    assert_eq!(log.matches("ignored an event that is not of API Gateway").count(), events.len(), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(!log.contains(r#""level":"ERROR""#) && !log.contains(r#""level":"WARN""#), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_of_api_gateway_is_a_400_with_a_warning_in_the_log() {
    let (table, _service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let function = function(&runtime, &table.endpoint(), table.name()).spawn().unwrap();
    for change in WRONG_TYPES {
        let answer = runtime.invoke(with_wrong_type(*change)).await;
        assert_eq!(answer["statusCode"], 400, "{change:?}: {answer}");
        let headers = &answer["headers"];
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers["x-request-id"].as_str().is_some_and(|id| !id.is_empty()), "{answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let error = json!({"status": false, "code": 400, "message": "The request cannot be read"});
        assert_eq!(body, json!({"errors": [error], "warnings": []}));
    }
    let log = String::from_utf8(end(function).await.stdout).unwrap();
    assert_eq!(log.matches("cannot read an event of API Gateway").count(), WRONG_TYPES.len(), "{log}");
    assert_eq!(log.matches(r#""level":"WARN""#).count(), WRONG_TYPES.len(), "{log}");
    assert!(!log.contains("secret") && !log.contains(MOBILE), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_path_is_a_setting() {
    let (table, _service) = common::demo().await;
    let mut runtime = Runtime::start().await;
    let mut function = function(&runtime, &table.endpoint(), table.name());
    let _function = function.env("BASE_PATH", "codes/").spawn().unwrap();
    let mut event: Value = serde_json::from_str(&read("card-number-get", "v1")).unwrap();
    event["path"] = "/codes/v2/cardNumber".into();
    assert_eq!(runtime.invoke(event.to_string()).await["statusCode"], 200);
    assert_eq!(runtime.invoke(read("card-number-get", "v1")).await["statusCode"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_opened_during_init() {
    let dynamodb = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut runtime = Runtime::start().await;
    let endpoint = format!("http://{}", dynamodb.local_addr().unwrap());
    let _function = function(&runtime, &endpoint, TABLE).spawn().unwrap();
    let connection = timeout(HANG_TIMEOUT, dynamodb.accept()).await.unwrap().unwrap();
    assert!(runtime.made_no_call(), "the function must connect before it asks for an event");
    drop(connection);
    drop(dynamodb);
    assert_eq!(
        runtime.next_call().await,
        RuntimeCall::Next,
        "a connection error during init must not end the function"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_dynamodb_is_a_503_and_the_function_keeps_running() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut runtime = Runtime::start().await;
    let mut function = function(&runtime, &format!("http://{free}"), TABLE).spawn().unwrap();
    for _ in 0..2 {
        let answer = runtime.invoke(read("card-number-get", "v2")).await;
        assert_eq!(answer["statusCode"], 503);
        assert_eq!(answer["headers"]["retry-after"], "1");
        assert!(answer["body"].as_str().unwrap().contains("\"code\":503"));
    }
    assert!(function.try_wait().unwrap().is_none(), "the function must keep running");
}

/// A function that waits for its first event, with a fault proxy in front of DynamoDB.
async fn waiting_with_fault_proxy() -> (TestTable, Runtime, Child, Faults) {
    let (table, _service) = common::demo().await;
    let (_service, faults) = with_fault_proxy(&table, "store.server").await;
    let mut runtime = Runtime::start().await;
    let function = function(&runtime, &faults.endpoint(), table.name()).spawn().unwrap();
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);
    (table, runtime, function, faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_dynamodb_call_is_retried() {
    let (_table, mut runtime, _function, faults) = waiting_with_fault_proxy().await;
    faults.inject(|_, call| (call == 0).then_some(Fault::Dropped));
    assert_eq!(runtime.invoke(read("card-number-get", "v2")).await["statusCode"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_before_the_deadline() {
    let (_table, mut runtime, _function, faults) = waiting_with_fault_proxy().await;
    faults.inject(|_, _| Some(Fault::Dropped));
    let (started, limit) = (Instant::now(), Duration::from_millis(1500));
    runtime.set_deadline(limit);
    let (answered, answer) = runtime.invoke_timed(read("card-number-get", "v2")).await;
    assert_eq!(answer["statusCode"], 503);
    assert!(answered - started < limit, "{:?}", answered - started);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_setting_fails_init_with_its_name() {
    let table = TestTable::new().await;
    let runtime = Runtime::start().await;
    for (variable, value) in [
        ("TABLE_NAME", "no table name"),
        ("BASE_PATH", "/co des"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AWS_REGION", ""),
        ("AWS_REGION", "us east"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://a b"),
        ("RUST_LOG", "loyalty_codes=loud"),
        ("RUST_LOG", "infoo"),
        ("METRICS_NAMESPACE", "AWS/Lambda"),
        ("METRICS_BY_ORG", "perhaps"),
    ] {
        let output = function(&runtime, &table.endpoint(), table.name()).env(variable, value).output();
        let output = timeout(HANG_TIMEOUT, output).await.unwrap().unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(variable), "{stderr}");
    }
}
