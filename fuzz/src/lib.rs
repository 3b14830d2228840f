//! The service that the fuzz targets call, with a map instead of DynamoDB. The map holds the org,
//! the till and the counters. It accepts the writes of requests, but does not store them. So an
//! input that fails once always fails.
#![allow(clippy::unwrap_used, reason = "a failure must stop the run")]

#[path = "../../tests/common/input.rs"]
pub mod input;

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
};
use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_types::body::SdkBody;
use http::{Request, Response};
use loyalty_codes::{api::{self, App}, clock::Clock, model::{access_token::TokenLifetime, customer::UserId, till::{Credential, Permission, Till, TillName}}, secret::Secret, store::Store};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

const DEMO_ORG: &str = include_str!("../../src/bin/loyaltyctl/demo.toml");

/// Sends requests to the service and panics at an invalid answer.
pub fn answer(requests: Vec<api::Request>) {
    static SERVICE: LazyLock<(Runtime, App)> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let app = runtime.block_on(service());
        (runtime, app)
    });
    let (runtime, app) = &*SERVICE;
    for request in requests {
        input::check(&runtime.block_on(app.handle(request)));
    }
}

async fn service() -> App {
    let store = Store::new(client(), "fuzz".to_owned());
    let definition = toml::from_str(DEMO_ORG).unwrap();
    store.apply_org(&definition, Secret::new([7; 32]), UserId(1), None).await.unwrap();
    let (name, password) = input::TILL;
    let clock = Clock::system();
    let till = Till {
        name: TillName::parse(name).unwrap(),
        org: definition.id,
        permissions: Permission::ALL.to_vec(),
        credentials: vec![Credential::new(password, clock.now())],
        token_lifetime: TokenLifetime::default(),
    };
    assert!(store.create_till(&till).await.unwrap());
    App::new(store, clock)
}

fn client() -> Client {
    let items = Mutex::new(HashMap::new());
    let dynamodb = move |request: Request<SdkBody>| {
        let target = request.headers()["x-amz-target"].to_str().unwrap();
        let operation = target.split_once('.').unwrap().1.to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        Response::new(SdkBody::from(perform(&operation, &body, &mut items.lock().unwrap()).to_string()))
    };
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("fuzz", "fuzz", None, None, "fuzz"))
        .http_client(infallible_client_fn(dynamodb));
    Client::from_conf(config.build())
}

/// Carries out an operation. It stores the items of the org, the till and the counters, and nothing
/// that a request writes.
fn perform(operation: &str, body: &Value, items: &mut HashMap<String, Value>) -> Value {
    let key = |item: &Value| format!("{}\n{}", item["PK"]["S"], item["SK"]["S"]);
    match operation {
        "GetItem" => items.get(&key(&body["Key"])).map_or(json!({}), |item| json!({"Item": item})),
        "Query" => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
        "BatchGetItem" => json!({"Responses": {}, "UnprocessedKeys": {}}),
        "UpdateItem" => json!({"Attributes": {"next": {"N": "1000000011"}}}),
        "PutItem" => json!({}),
        "TransactWriteItems" => {
            let puts = body["TransactItems"].as_array().unwrap().iter().map(|write| &write["Put"]["Item"]);
            let kept = puts.filter(|item| {
                ["definition", "plan", "credentials"].iter().any(|name| item.get(name).is_some())
            });
            items.extend(kept.map(|item| (key(item), item.clone())));
            json!({})
        }
        other => panic!("unknown operation {other}"),
    }
}
