//! Warm requests: the service's handlers, and the bare SDK calls that each handler makes. Both run
//! alternately in one process, with one connection each.

use std::{
    collections::HashMap,
    future::Future,
    io,
    process::Stdio,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeValue, ConditionCheck, Put, ReturnValue, ReturnValuesOnConditionCheckFailure,
        TransactWriteItem, Update,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderValue, Method, header};
use loyalty_codes::{
    api::{App, Path, Request, Response, TIME_LIMIT},
    logging::{self, Format, Metrics},
    store::{Store, connect_local},
};
use serde_json::{Value, json};
use tokio::{runtime, task::block_in_place};

use crate::{
    DynamoDb, Function,
    common::{MOBILE, PASSWORD, TABLE, basic, runtime_api::Runtime},
    measure::Values,
    report,
};

const CALLS: usize = 500;
/// More days than the comparison with the bare calls uses.
const DAYS: usize = CALLS * 2 * 2 + 10;

const ROUTES: [&str; 4] = ["generate", "fetch", "validate", "cardNumber"];

/// Medians of a route in microseconds.
pub struct Warm {
    pub ours: f64,
    pub bare: f64,
}

pub async fn run() -> Vec<Warm> {
    let dynamodb = DynamoDb::start().await;
    // Log lines and metrics are formatted as on Lambda, then discarded.
    let subscriber =
        logging::subscriber(Format::Json(Some(Metrics::new("loyalty-codes", false))), None, io::sink)
            .unwrap();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    // The handlers run on one thread, as on Lambda. The embedded DynamoDB and its endpoint have
    // others.
    let (our_times, bare_times) = block_in_place(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(measure(&dynamodb))
    });
    let node = measure_other_language(&Function::node(), &dynamodb, DAYS).await;
    let python = measure_other_language(&Function::python(), &dynamodb, DAYS * 2).await;

    println!(
        "\nWarm, {CALLS} calls each: median (p99) in microseconds, and as a multiple of the first line's\n"
    );
    let rows = [
        ("bare SDK calls", columns(&bare_times.0)),
        ("loyalty-codes", columns(&our_times.0)),
        ("Node.js, SDK v3", columns(&node)),
        ("Python, boto3", columns(&python)),
    ];
    report::table(&ROUTES, &rows);
    let [(_, bare), (_, ours), ..] = &rows;
    ours.iter().zip(bare).map(|(ours, bare)| Warm { ours: ours.median(), bare: bare.median() }).collect()
}

async fn measure(dynamodb: &DynamoDb) -> (Times, Times) {
    let client = connect_local(&dynamodb.settings(), &dynamodb.tls.url).unwrap();
    let store = Store::new(client, TABLE.to_owned());
    let app = App::new(store, dynamodb.table.clock.clock());
    let ours = Till::new(&app, "store.server", PASSWORD);
    let bare = BareCalls::new(connect_local(&dynamodb.settings(), &dynamodb.tls.url).unwrap()).await;

    let (mut our_times, mut bare_times) = (Times::default(), Times::default());
    for _ in 0..CALLS {
        ours.round(&mut our_times).await;
        dynamodb.next_day();
        bare.round(dynamodb.table.clock.now(), &mut bare_times).await;
        dynamodb.next_day();
    }
    refusals(&app).await;
    (our_times, bare_times)
}

/// Durations of the calls of each route, in nanoseconds.
#[derive(Default)]
struct Times(HashMap<&'static str, Vec<f64>>);

impl Times {
    async fn of<T>(&mut self, route: &'static str, call: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = call.await;
        self.0.entry(route).or_default().push(started.elapsed().as_nanos() as f64);
        answer
    }
}

fn columns<K: std::borrow::Borrow<str> + Eq + std::hash::Hash>(times: &HashMap<K, Vec<f64>>) -> Vec<Values> {
    let microseconds = |route: &&str| times[*route].iter().map(|nanoseconds| nanoseconds / 1e3).collect();
    ROUTES.iter().map(|route| Values::new(microseconds(route))).collect()
}

/// Calls the service's handlers as a till.
struct Till<'a> {
    app: &'a App,
    authorization: HeaderValue,
}

impl<'a> Till<'a> {
    fn new(app: &'a App, name: &str, password: &str) -> Self {
        Self { app, authorization: basic(&format!("{name}:{password}")) }
    }

    async fn call(&self, method: Method, path: &str, query: &str, body: String) -> Response {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, self.authorization.clone())]);
        let request = Request {
            method,
            path: Path::Encoded(path.to_owned()),
            query: query.to_owned(),
            query_was_decoded: false,
            headers,
            body: body.into(),
            time_limit: TIME_LIMIT,
            request_id: "bench".to_owned(),
        };
        self.app.handle(request).await
    }

    async fn round(&self, times: &mut Times) {
        let otp = |code: &str| {
            json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": code})
                .to_string()
        };
        // Fills the caches of tills and orgs, which have expired on the new day.
        self.call(Method::GET, "/v2/otp", "", String::new()).await;
        let issue = self.call(Method::POST, "/v2/otp/generate", "", otp(""));
        assert_eq!(times.of("generate", issue).await.status(), 200);
        let query = format!("source=INSTORE&mobile={MOBILE}&scope=POINTS");
        let fetched = times.of("fetch", self.call(Method::GET, "/v2/otp", &query, String::new())).await;
        let fetched: Value = serde_json::from_str(fetched.body()).unwrap();
        let code = fetched["code"].as_str().unwrap();
        let validate = self.call(Method::POST, "/v2/otp/validate", "", otp(code));
        assert!(times.of("validate", validate).await.body().contains("true"));
        let number = self.call(Method::GET, "/v2/cardNumber", "", String::new());
        assert_eq!(times.of("cardNumber", number).await.status(), 200);
    }
}

/// Measures whether the time of a refusal reveals which tills exist.
async fn refusals(app: &App) {
    let callers = [
        ("wrong password", Till::new(app, "store.server", "wrong")),
        ("unknown till", Till::new(app, "store.servex", "wrong")),
    ];
    let mut times = Times::default();
    for _ in 0..CALLS * 4 {
        for (name, caller) in &callers {
            let refusal = caller.call(Method::GET, "/v2/cardNumber", "", String::new());
            assert_eq!(times.of(name, refusal).await.status(), 401);
        }
    }
    println!("\nRefused credentials, {} calls each: median (p99) in microseconds\n", CALLS * 4);
    let rows = callers.each_ref().map(|(name, _)| {
        let microseconds = times.0[name].iter().map(|nanoseconds| nanoseconds / 1e3).collect();
        (*name, vec![Values::new(microseconds)])
    });
    report::table(&["refusal"], &rows);
}

/// Makes the DynamoDB calls of the routes, and nothing else.
struct BareCalls {
    client: Client,
    /// The format of the org's card numbers, as it is stored.
    format: AttributeValue,
}

fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

#[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called")]
fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn key(pk: &str, sk: impl Into<String>) -> HashMap<String, AttributeValue> {
    HashMap::from([("PK".to_owned(), s(pk)), ("SK".to_owned(), s(sk))])
}

fn counter() -> HashMap<String, AttributeValue> {
    key("ORG#966#COUNTER#CARD_NUMBER", "COUNTER")
}

/// The attribute of the counter with the format of card numbers.
const FORMAT: &str = "shape";
const CUSTOMER: &str = "ORG#966#USER#313302314";
const IDENTITY: &str = "ORG#966#ID#INSTORE##mobile#918799361139";

impl BareCalls {
    async fn new(client: Client) -> Self {
        let counter = client.get_item().table_name(TABLE).set_key(Some(counter())).send().await.unwrap();
        let format = counter.item.unwrap().remove(FORMAT).unwrap();
        Self { client, format }
    }

    async fn round(&self, now: DateTime<Utc>, times: &mut Times) {
        let id = now.timestamp_millis() * 1000;
        times
            .of("generate", async {
                self.find_customer().await;
                self.issue(id, now).await;
            })
            .await;
        let from = (now - TimeDelta::days(1)).timestamp_millis() * 1000;
        times
            .of("fetch", async {
                self.find_customer().await;
                self.otps(from).await;
            })
            .await;
        times
            .of("validate", async {
                self.find_customer().await;
                self.otps(from).await;
                self.consume(id, now).await;
            })
            .await;
        times.of("cardNumber", self.count()).await;
    }

    async fn find_customer(&self) {
        let read = self.client.get_item().table_name(TABLE).set_key(Some(key(IDENTITY, "ID")));
        assert!(read.consistent_read(true).send().await.unwrap().item.is_some());
    }

    async fn otps(&self, from: i64) {
        let query = self
            .client
            .query()
            .table_name(TABLE)
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
            .expression_attribute_names("#pk", "PK")
            .expression_attribute_names("#sk", "SK")
            .expression_attribute_values(":pk", s(CUSTOMER))
            .expression_attribute_values(":from", s(format!("OTP#POINTS#{from:016}")))
            .expression_attribute_values(":to", s("OTP#POINTS#GUESSES"))
            .consistent_read(true)
            .scan_index_forward(false);
        assert_eq!(query.send().await.unwrap().items().len(), 1);
    }

    async fn issue(&self, id: i64, now: DateTime<Utc>) {
        let until = now + TimeDelta::days(1);
        let put = Put::builder()
            .table_name(TABLE)
            .set_item(Some(key(CUSTOMER, format!("OTP#POINTS#{id:016}"))))
            .item("created_id", n(id))
            .item("code", s("538AD87"))
            .item("valid_until", n(until.timestamp_millis()))
            .item("expires_at", n(until.timestamp()))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", "PK")
            .build()
            .unwrap();
        let count = Update::builder()
            .table_name(TABLE)
            .set_key(Some(key(CUSTOMER, format!("QUOTA#{}", now.date_naive()))))
            .update_expression("ADD #issued :one SET #expires = :expires")
            .condition_expression("attribute_not_exists(#issued) OR #issued < :limit")
            .expression_attribute_names("#issued", "issued")
            .expression_attribute_names("#expires", "expires_at")
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":limit", n(1000))
            .expression_attribute_values(":expires", n((until + TimeDelta::days(1)).timestamp()))
            .build()
            .unwrap();
        self.transact([
            TransactWriteItem::builder().put(put).build(),
            TransactWriteItem::builder().update(count).build(),
        ])
        .await;
    }

    async fn consume(&self, id: i64, now: DateTime<Utc>) {
        let consume = Update::builder()
            .table_name(TABLE)
            .set_key(Some(key(CUSTOMER, format!("OTP#POINTS#{id:016}"))))
            .update_expression("SET #consumed = :now")
            .condition_expression("attribute_exists(#pk) AND attribute_not_exists(#consumed)")
            .expression_attribute_names("#pk", "PK")
            .expression_attribute_names("#consumed", "consumed_at")
            .expression_attribute_values(":now", n(now.timestamp_millis()))
            .build()
            .unwrap();
        let check = ConditionCheck::builder()
            .table_name(TABLE)
            .set_key(Some(key(CUSTOMER, "OTP#POINTS#GUESSES")))
            .condition_expression("attribute_not_exists(#version)")
            .expression_attribute_names("#version", "version")
            .build()
            .unwrap();
        self.transact([
            TransactWriteItem::builder().update(consume).build(),
            TransactWriteItem::builder().condition_check(check).build(),
        ])
        .await;
    }

    async fn transact(&self, writes: [TransactWriteItem; 2]) {
        self.client.transact_write_items().set_transact_items(Some(writes.into())).send().await.unwrap();
    }

    async fn count(&self) {
        let update = self
            .client
            .update_item()
            .table_name(TABLE)
            .set_key(Some(counter()))
            .update_expression("ADD #next :one")
            .condition_expression("#format = :format AND #next <= :last")
            .expression_attribute_names("#next", "next")
            .expression_attribute_names("#format", FORMAT)
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":format", self.format.clone())
            .expression_attribute_values(":last", n(9_999_999_999_i64))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        update.send().await.unwrap();
    }
}

/// Measures the same routes in another language, in a separate process.
async fn measure_other_language(
    function: &Function,
    dynamodb: &DynamoDb,
    first_day: usize,
) -> HashMap<String, Vec<f64>> {
    let runtime = Runtime::start().await;
    let mut command = function.command(&runtime, &dynamodb.tls, &[]);
    command.env("CALLS", CALLS.to_string()).env("FIRST_DAY", first_day.to_string());
    let measured = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let limit = Duration::from_mins(5);
    let output = tokio::time::timeout(limit, measured.wait_with_output()).await.unwrap().unwrap();
    let times: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(times).unwrap()
}
