//! Expected answers to the files of `events/`.

use std::{collections::BTreeSet, fs};

use lambda_http::Context;
use loyalty_codes::{
    api::Request,
    entrypoints::api_gateway::{self, Unreadable},
    store::keys::Key,
};
use serde_json::Value;

/// Payload versions of API Gateway: `v1` is 1.0 (REST APIs), `v2` is 2.0 (HTTP APIs).
pub const VERSIONS: [&str; 2] = ["v1", "v2"];

/// The events, in an order in which the demo org can process them. Each has the status of its
/// answer and, for errors, the error codes.
pub const EVENTS: &[(&str, u16, &[u64])] = &[
    ("otp-generate", 200, &[]),
    ("otp-generate-base64", 200, &[]),
    ("otp-fetch", 200, &[]),
    ("otp-fetch-in-path", 200, &[]),
    ("otp-fetch-by-shorthand", 200, &[]),
    ("otp-head", 200, &[]),
    ("otp-validate", 200, &[]),
    ("card-number-get", 200, &[]),
    ("card-number-post", 200, &[]),
    ("customer-register", 200, &[]),
    ("customer-register-with-id", 200, &[]),
    ("customer-join", 200, &[]),
    ("customer-lookup", 200, &[]),
    ("customer-details", 200, &[]),
    ("customer-by-id", 200, &[]),
    ("customer-change-identifier", 200, &[]),
    ("token-generate", 200, &[]),
    ("token-generate-md5", 200, &[]),
    ("error-token-wrong-secret", 401, &[401]),
    ("error-token-unknown", 401, &[401]),
    ("error-unauthorized", 401, &[401]),
    ("error-wrong-password", 401, &[401]),
    ("error-parameters-missing", 400, &[8016, 8092, 8093, 600]),
    ("error-account-missing", 400, &[8091]),
    ("error-mobile-malformed", 400, &[8056]),
    ("error-customer-unknown", 404, &[8015]),
    ("error-no-valid-otp", 404, &[9001]),
    ("error-no-valid-otp-by-id", 404, &[9001]),
    ("error-no-valid-otp-by-id-in-path", 404, &[9001]),
    ("error-parameter-repeated", 400, &[400]),
    ("error-path-ambiguous", 400, &[400]),
    ("error-body-broken", 400, &[400]),
    ("error-content-type", 415, &[415]),
    ("error-route-unknown", 404, &[404]),
    ("error-method", 405, &[405]),
    ("error-head-of-card-number", 405, &[]),
    ("error-account-not-enabled", 403, &[8127]),
    ("error-customer-elsewhere", 404, &[8065]),
    ("error-customer-id-unknown", 404, &[8009]),
    ("error-identifier-taken", 409, &[8006]),
];

/// Changes of the event `otp-fetch` (version 2.0) that give a member the wrong type. Each value
/// contains `secret`.
pub const WRONG_TYPES: &[(&str, &str)] = &[
    ("/requestContext/http/method", r#"["secret"]"#),
    ("/requestContext/http/method", r#""secret method""#),
    ("/requestContext/http", r#""secret""#),
    ("/headers", r#""secret""#),
    ("/headers/host", r#"["secret"]"#),
    ("/rawPath", r#"{"secret":1}"#),
    ("/rawQueryString", r#"["secret"]"#),
    ("/isBase64Encoded", r#""secret""#),
    ("/version", r#"{"secret":2}"#),
];

/// The event `otp-fetch` (version 2.0) with another value at a place.
pub fn with_wrong_type((place, value): (&str, &str)) -> String {
    let mut event: Value = serde_json::from_str(&read("otp-fetch", "v2")).unwrap();
    *event.pointer_mut(place).unwrap() = serde_json::from_str(value).unwrap();
    event.to_string()
}

/// Events of the table's stream: a new message, and records that start no delivery.
pub const STREAM_EVENTS: [&str; 2] = ["stream-message", "stream-other-items"];

/// The key of the message in the first of [`STREAM_EVENTS`].
const STREAM_MESSAGE: (&str, &str) = ("ORG#966#USER#313302314", "MESSAGE#POINTS#1795687200123456#00001");

/// Returns the text of an event of the stream, about the message with another key.
pub fn read_stream_event(name: &str, message: &Key) -> String {
    let event = read_file(name);
    let (pk, sk) = STREAM_MESSAGE;
    assert!(event.contains(pk) && event.contains(sk), "{name}");
    event.replace(pk, &message.pk).replace(sk, &message.sk)
}

/// Returns the text of an event file.
pub fn read(name: &str, version: &str) -> String {
    read_file(&format!("{name}.{version}"))
}

fn read_file(name: &str) -> String {
    let path = format!("{}/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Parses an event as the function does.
pub fn request(event: &str) -> Result<Option<Request>, Unreadable> {
    api_gateway::request(event, &Context::default())
}

/// Environment of a function, besides the variables of the Lambda runtime.
pub fn function_environment<'a>(dynamodb: &'a str, table: &'a str) -> [(&'static str, &'a str); 8] {
    [
        // Engines separate tables by region and access key. These are the values of the tests' own
        // client.
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "ANOTREAL"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_SESSION_TOKEN", "test"),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("TABLE_NAME", table),
        ("METRICS_NAMESPACE", "loyalty-codes"),
    ]
}

/// An event of the table's stream: these items were put. The sequence numbers begin with 100.
pub fn stream_event(keys: &[Key]) -> String {
    let record = |(number, key): (usize, &Key)| {
        serde_json::json!({
            "eventID": format!("event-{number}"),
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "ap-south-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_795_235_400,
                "Keys": {"PK": {"S": key.pk}, "SK": {"S": key.sk}},
                "SequenceNumber": (100 + number).to_string(),
                "SizeBytes": 100,
                "StreamViewType": "KEYS_ONLY",
            },
            "eventSourceARN":
                "arn:aws:dynamodb:ap-south-1:123456789012:table/loyalty-codes/stream/2026-11-21T00:00:00.000",
        })
    };
    serde_json::json!({"Records": keys.iter().enumerate().map(record).collect::<Vec<_>>()}).to_string()
}

/// Asserts that [`EVENTS`] and [`STREAM_EVENTS`] list exactly the files of `events/`.
pub fn assert_all_files_are_listed() {
    let files: BTreeSet<String> = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/events"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed = EVENTS
        .iter()
        .flat_map(|(name, ..)| VERSIONS.map(|version| format!("{name}.{version}.json")))
        .chain(STREAM_EVENTS.map(|name| format!("{name}.json")))
        .collect::<BTreeSet<_>>();
    assert_eq!(files, listed);
}

/// Returns the codes of an error body. A success has none.
pub fn codes(body: &Value) -> Vec<u64> {
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["code"].as_u64().unwrap()).collect()
}

/// Returns the error codes of an answer to an event. An answer to `HEAD` has no body.
pub fn codes_in(name: &str, body: &str) -> Vec<u64> {
    assert_eq!(body.is_empty(), name.contains("head"), "{name}: {body}");
    if body.is_empty() { Vec::new() } else { codes(&serde_json::from_str(body).unwrap()) }
}

/// Asserts that an answer is as [`EVENTS`] lists it.
pub fn assert_as_listed(name: &str, version: &str, status: u16, expected: &[u64], answer: &Value) {
    let body = answer["body"].as_str().unwrap();
    assert_eq!(answer["statusCode"], status, "{name}.{version}: {answer}");
    assert_eq!(codes_in(name, body), expected, "{name}.{version}");
}
