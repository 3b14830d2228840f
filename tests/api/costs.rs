//! Counts the round trips and capacity units of each route in each situation. The counts must not
//! grow. `make cost-table` writes the README's cost table from them.

use std::{fmt::Write as _, fs, path::Path};

use aws_sdk_dynamodb::Client;
use chrono::TimeDelta;
use loyalty_codes::model::{
    customer::{AccountId, Source},
    till::{Permission, TillName},
};
use serde_json::{Value, json};

use crate::{
    common::{
        Answer, Log, MOBILE, PASSWORD, TestService, TestTable, USER,
        capacity::{Capacity, Consumed},
        demo, demo_org_with, demo_with,
    },
    guard::sending,
};

/// A request in a situation: route, situation, round trips, read units, write units.
type Row = (&'static str, &'static str, u32, f64, f64);

const FETCH: &str = "GET /v2/otp";
const GENERATE: &str = "POST /v2/otp/generate";
const VALIDATE: &str = "POST /v2/otp/validate";
const NUMBER: &str = "GET /v2/cardNumber";
const KEYED_NUMBER: &str = "POST /v2/cardNumber";
const REGISTER: &str = "POST /v2/customers";
const LOOKUP: &str = "GET /v2/customers/lookup";
const DETAILS: &str = "GET /v2/customers/lookup/customerDetails";
const BY_ID: &str = "GET /v2/customers/{id}";
const CHANGE: &str = "POST /v2/customers/{id}/changeIdentifier";
const TOKEN: &str = "POST /v3/oauth/token/generate";

const PLAIN: &str = "";
const WITH_KEY: &str = "with a key";
const AGAIN: &str = "with the same key again";
const REGISTRATION: &str = "for a contact";
const WITH_MESSAGE: &str = "with a message";
const GUARDED: &str = "with a message, a cooldown and an hourly limit";

const UNKNOWN_ID: &str = "an id that nobody has, of 251 accounts";

/// Costs of a warm process, unless the situation says otherwise. A write in a transaction costs
/// twice as much.
const COSTS: &[Row] = &[
    (FETCH, PLAIN, 2, 2.0, 0.0),
    (FETCH, "no valid OTP", 2, 2.0, 0.0),
    (FETCH, "unknown customer", 1, 1.0, 0.0),
    (FETCH, REGISTRATION, 1, 1.0, 0.0),
    (FETCH, "bad input", 0, 0.0, 0.0),
    (GENERATE, PLAIN, 2, 1.0, 4.0),
    (GENERATE, WITH_MESSAGE, 2, 1.0, 6.0),
    (GENERATE, "with a message to another address of the customer", 3, 2.0, 6.0),
    (GENERATE, "with channels, nothing is sent", 2, 1.0, 4.0),
    (GENERATE, GUARDED, 3, 2.0, 10.0),
    (GENERATE, "again, with a message, a cooldown and an hourly limit", 3, 2.0, 10.0),
    (GENERATE, "within the cooldown", 2, 2.0, 0.0),
    (GENERATE, "for a contact, with a message to another address and an hourly limit", 1, 0.0, 10.0),
    (GENERATE, REGISTRATION, 1, 0.0, 4.0),
    (GENERATE, WITH_KEY, 3, 2.0, 6.0),
    (GENERATE, AGAIN, 1, 1.0, 0.0),
    (GENERATE, "quota used up", 2, 1.0, 4.0),
    (VALIDATE, "a wrong code", 3, 2.0, 2.0),
    (VALIDATE, PLAIN, 3, 2.0, 4.0),
    (VALIDATE, "a wrong code, with a key", 4, 3.0, 4.0),
    (VALIDATE, WITH_KEY, 4, 3.0, 6.0),
    (VALIDATE, AGAIN, 1, 1.0, 0.0),
    (VALIDATE, REGISTRATION, 2, 1.0, 4.0),
    (VALIDATE, "locked", 2, 2.0, 0.0),
    (NUMBER, PLAIN, 1, 0.0, 1.0),
    (NUMBER, "exhausted", 1, 0.0, 1.0),
    (NUMBER, "cold process", 3, 2.0, 1.0),
    (NUMBER, "wrong password", 1, 1.0, 0.0),
    (NUMBER, "unknown till", 1, 1.0, 0.0),
    (NUMBER, "no credentials", 0, 0.0, 0.0),
    (KEYED_NUMBER, PLAIN, 1, 0.0, 1.0),
    (KEYED_NUMBER, WITH_KEY, 3, 1.0, 2.0),
    (KEYED_NUMBER, AGAIN, 1, 1.0, 0.0),
    (REGISTER, PLAIN, 4, 2.0, 10.0),
    (REGISTER, "with an external ID", 3, 1.0, 5.0),
    (REGISTER, WITH_KEY, 5, 3.0, 12.0),
    (REGISTER, AGAIN, 1, 1.0, 0.0),
    (REGISTER, "identifier taken", 1, 2.0, 0.0),
    (REGISTER, "joining", 3, 3.0, 6.0),
    (LOOKUP, PLAIN, 1, 1.0, 0.0),
    (LOOKUP, "in all accounts", 1, 1.0, 0.0),
    (LOOKUP, "unknown customer", 2, 2.0, 0.0),
    (LOOKUP, UNKNOWN_ID, 4, 251.0, 0.0),
    (LOOKUP, "an id in all of 251 accounts", 3, 251.0, 0.0),
    (DETAILS, PLAIN, 2, 2.0, 0.0),
    (BY_ID, PLAIN, 1, 1.0, 0.0),
    (BY_ID, "unknown customer", 1, 1.0, 0.0),
    (CHANGE, "adding a mobile", 3, 3.0, 6.0),
    (CHANGE, "nothing to change", 2, 3.0, 0.0),
    (CHANGE, WITH_KEY, 4, 4.0, 8.0),
    (CHANGE, AGAIN, 1, 1.0, 0.0),
    (TOKEN, PLAIN, 1, 0.0, 1.0),
    (TOKEN, "cold process", 3, 2.0, 1.0),
    (TOKEN, "wrong password", 1, 1.0, 0.0),
    (TOKEN, "unknown till", 1, 1.0, 0.0),
    (TOKEN, "no credentials", 0, 0.0, 0.0),
    // A token that the process remembers costs nothing, and one that it does not remember one read.
    (NUMBER, "by a token", 1, 0.0, 1.0),
    (NUMBER, "by a new token", 2, 1.0, 1.0),
    (NUMBER, "by a token, cold process", 4, 3.0, 1.0),
    (NUMBER, "unknown token", 1, 1.0, 0.0),
    (NUMBER, "expired token", 1, 1.0, 0.0),
    (NUMBER, "token of a revoked password", 2, 2.0, 0.0),
    (NUMBER, "malformed token", 0, 0.0, 0.0),
];

/// A process whose round trips and units are counted.
struct Counted {
    service: TestService,
    capacity: Capacity,
    rows: Vec<Row>,
}

impl Counted {
    fn cold(table: &TestTable) -> Self {
        let capacity = Capacity::default();
        let config = table.client().config().to_builder().interceptor(capacity.clone());
        let service = table.service_with(Client::from_conf(config.build()), "store.server");
        Self { service, capacity, rows: Vec::new() }
    }

    async fn warm(table: &TestTable) -> Self {
        let counted = Self::cold(table);
        counted.service.card_number().await;
        counted
    }

    /// Counts one request, which must be answered with `status`.
    async fn count(&mut self, route: &'static str, situation: &'static str, status: u16, ask: Ask) -> Answer {
        let (method, path) = route.split_once(' ').unwrap();
        let caller = ask.caller.clone().unwrap_or_else(|| self.service.clone());
        let url = format!("{}{}", path.replace("{id}", &ask.id.to_string()), ask.query);
        let method = method.parse().unwrap();
        // Each request runs in its own task, because the stack of this function is deep.
        let sent = async move {
            let headers = [("content-type", "application/json"), ("idempotency-key", ask.key)];
            let headers = if ask.key.is_empty() { &headers[..1] } else { &headers };
            let body = if ask.body.is_null() { String::new() } else { ask.body.to_string() };
            caller.send(method, &url, headers, body.into()).await
        };
        self.capacity.take();
        let answer = tokio::spawn(sent).await.unwrap();
        let Consumed { round_trips, read_units, write_units } = self.capacity.take();
        assert_eq!(answer.status, status, "{route} {situation}: {answer:?}");
        self.rows.push((route, situation, round_trips, read_units, write_units));
        answer
    }
}

/// A request without its route.
#[derive(Default)]
struct Ask {
    query: String,
    /// The user id in the path.
    id: u64,
    body: Value,
    /// The `Idempotency-Key`; empty for none.
    key: &'static str,
    /// A till other than the one with all permissions.
    caller: Option<TestService>,
}

fn query(query: &str) -> Ask {
    Ask { query: query.to_owned(), ..Ask::default() }
}

fn body(body: Value) -> Ask {
    Ask { body, ..Ask::default() }
}

fn keyed(key: &'static str, body: Value) -> Ask {
    Ask { body, key, ..Ask::default() }
}

fn otp(action: &str, code: &str) -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": action, "code": code})
}

fn fetch_by(mobile: &str, scope: &str) -> Ask {
    query(&format!("?source=INSTORE&mobile={mobile}&scope={scope}"))
}

fn code(answer: &Answer) -> String {
    answer.json["code"].as_str().unwrap().to_owned()
}

async fn count_otps() -> Vec<Row> {
    let (table, _service) = demo_with("CONF_OTP_DAILY_LIMIT = 3").await;
    let mut counted = Counted::warm(&table).await;
    counted.count(FETCH, "no valid OTP", 404, fetch_by(MOBILE, "POINTS")).await;
    counted.count(FETCH, "unknown customer", 404, fetch_by("9010000022", "POINTS")).await;
    counted.count(FETCH, "bad input", 400, query("?scope=X")).await;

    counted.count(GENERATE, PLAIN, 200, body(otp("POINTS", ""))).await;
    let first = counted.count(FETCH, PLAIN, 200, fetch_by(MOBILE, "POINTS")).await;
    counted.count(VALIDATE, "a wrong code", 200, body(otp("POINTS", "WRONG"))).await;
    counted.count(VALIDATE, PLAIN, 200, body(otp("POINTS", &code(&first)))).await;

    let unsent = sent_to(otp("POINTS", ""), &[("SMS", MOBILE)]);
    counted.count(GENERATE, "with channels, nothing is sent", 200, body(unsent)).await;
    for situation in [WITH_KEY, AGAIN] {
        counted.count(GENERATE, situation, 200, keyed("generate", otp("POINTS", ""))).await;
    }
    counted.count(GENERATE, "quota used up", 429, body(otp("POINTS", ""))).await;

    let wrong = keyed("wrong", otp("POINTS", "WRONG"));
    counted.count(VALIDATE, "a wrong code, with a key", 200, wrong).await;
    let last = counted.service.code().await;
    for situation in [WITH_KEY, AGAIN] {
        counted.count(VALIDATE, situation, 200, keyed("validate", otp("POINTS", &last))).await;
    }
    for _ in 0..3 {
        assert!(!counted.service.is_right("WRONG").await);
    }
    counted.count(VALIDATE, "locked", 429, body(otp("POINTS", "WRONG"))).await;
    counted.rows
}

fn sent_to(mut request: Value, channels: &[(&str, &str)]) -> Value {
    let channels = channels.iter().map(|(kind, value)| json!({"type": kind, "value": value}));
    request["channels"] = channels.collect();
    request
}

/// OTPs in an org whose messages are sent.
async fn count_messages() -> Vec<Row> {
    let (table, _service) = sending("").await;
    let mut counted = Counted::warm(&table).await;
    let to_entity = sent_to(otp("POINTS", ""), &[("SMS", MOBILE)]);
    counted.count(GENERATE, WITH_MESSAGE, 200, body(to_entity)).await;
    // The till may not send to any address.
    counted.service.create_till("issuer", 966, &[Permission::OtpIssue]).await;
    let issuer = counted.service.as_till("issuer", PASSWORD);
    assert_eq!(issuer.post("/v2/otp/generate", &otp("POINTS", "")).await.status, 200, "warm");
    let to_other = sent_to(otp("POINTS", ""), &[("EMAIL", "tom@example.com")]);
    let ask = Ask { caller: Some(issuer), ..body(to_other) };
    counted.count(GENERATE, "with a message to another address of the customer", 200, ask).await;
    counted.rows
}

/// OTPs in an org with every limit.
async fn count_guarded_otps() -> Vec<Row> {
    let limits =
        "CONF_OTP_COOLDOWN_SECONDS = 30\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 9\nCONF_OTP_REISSUE = \"SAME\"";
    let (table, _service) = sending(limits).await;
    let mut counted = Counted::warm(&table).await;
    let to_entity = || body(sent_to(otp("POINTS", ""), &[("SMS", MOBILE), ("PHONE", MOBILE)]));
    counted.count(GENERATE, GUARDED, 200, to_entity()).await;
    counted.count(GENERATE, "within the cooldown", 429, to_entity()).await;
    counted.service.clock.advance(chrono::TimeDelta::seconds(30));
    let again = "again, with a message, a cooldown and an hourly limit";
    counted.count(GENERATE, again, 200, to_entity()).await;

    let (table, _service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 9").await;
    let mut plain = Counted::warm(&table).await;
    let to_other = body(sent_to(otp("REGISTRATION", ""), &[("EMAIL", "new@example.com")]));
    let situation = "for a contact, with a message to another address and an hourly limit";
    plain.count(GENERATE, situation, 200, to_other).await;
    counted.rows.extend(plain.rows);
    counted.rows
}

async fn count_otps_of_a_contact() -> Vec<Row> {
    let (table, _service) = demo().await;
    let mut counted = Counted::warm(&table).await;
    counted.count(GENERATE, REGISTRATION, 200, body(otp("REGISTRATION", ""))).await;
    let fetched = counted.count(FETCH, REGISTRATION, 200, fetch_by(MOBILE, "REGISTRATION")).await;
    let right = body(otp("REGISTRATION", &code(&fetched)));
    let validated = counted.count(VALIDATE, REGISTRATION, 200, right).await;
    assert_eq!(validated.json["entity"], true);
    counted.rows
}

async fn count_numbers() -> Vec<Row> {
    let (table, _service) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 96").await;
    let mut counted = Counted::cold(&table);
    counted.count(NUMBER, "cold process", 200, Ask::default()).await;
    counted.count(NUMBER, PLAIN, 200, Ask::default()).await;
    counted.count(KEYED_NUMBER, PLAIN, 200, Ask::default()).await;
    for situation in [WITH_KEY, AGAIN] {
        counted.count(KEYED_NUMBER, situation, 200, keyed("number", json!({}))).await;
    }
    counted.count(NUMBER, "exhausted", 409, Ask::default()).await;
    let service = counted.service.clone();
    for (situation, caller) in [
        ("wrong password", service.as_till("store.server", "wrong")),
        ("unknown till", service.as_till("unknown.till", "wrong")),
        ("no credentials", service.without_credentials()),
    ] {
        let ask = Ask { caller: Some(caller), ..Ask::default() };
        counted.count(NUMBER, situation, 401, ask).await;
    }
    counted.rows
}

async fn count_tokens() -> Vec<Row> {
    let (table, service) = demo().await;
    let request = |key: &str, secret: &str| body(json!({"key": key, "secret": secret}));
    let right = || request("store.server", PASSWORD);
    let by = |service: &TestService, token: &str| Ask {
        caller: Some(service.with_token(token)),
        ..Ask::default()
    };
    let mut counted = Counted::cold(&table);
    counted.count(TOKEN, "cold process", 200, right()).await;
    counted.count(TOKEN, PLAIN, 200, right()).await;
    counted.count(TOKEN, "wrong password", 401, request("store.server", "wrong")).await;
    counted.count(TOKEN, "unknown till", 401, request("unknown.till", "wrong")).await;
    counted.count(TOKEN, "no credentials", 401, body(json!({}))).await;

    // Issued by another process.
    let token = service.token().await;
    let mut cold = Counted::cold(&table);
    let caller = cold.service.clone();
    cold.count(NUMBER, "by a token, cold process", 200, by(&caller, &token)).await;
    counted.rows.append(&mut cold.rows);
    let caller = counted.service.clone();
    for situation in ["by a new token", "by a token"] {
        counted.count(NUMBER, situation, 200, by(&caller, &token)).await;
    }
    counted.count(NUMBER, "unknown token", 401, by(&caller, &"A".repeat(43))).await;
    counted.count(NUMBER, "malformed token", 401, by(&caller, "x")).await;
    table.clock.advance(TimeDelta::hours(1));
    counted.count(NUMBER, "expired token", 401, by(&caller, &token)).await;

    let token = service.token().await;
    let till = service.store.till(&TillName::parse("store.server").unwrap()).await.unwrap().unwrap();
    assert!(service.store.replace_credentials(&till, &[]).await.unwrap());
    counted.count(NUMBER, "token of a revoked password", 401, by(&caller, &token)).await;
    counted.rows
}

async fn count_registrations() -> Vec<Row> {
    let (table, _service) = demo().await;
    let mut counted = Counted::warm(&table).await;
    let customer = |name: &str, value: &str| json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": name, "value": value}]}]});
    counted.count(REGISTER, PLAIN, 200, body(customer("mobile", "9010000022"))).await;
    counted.count(REGISTER, "identifier taken", 409, body(customer("mobile", "9010000022"))).await;
    counted.count(REGISTER, "with an external ID", 200, body(customer("externalId", "A"))).await;
    for situation in [WITH_KEY, AGAIN] {
        counted.count(REGISTER, situation, 200, keyed("register", customer("mobile", "9010000033"))).await;
    }
    let mut joining = customer("mobile", "9010000033");
    joining["profiles"][0]["source"] = "MARTJACK".into();
    counted.count(REGISTER, "joining", 200, body(joining)).await;
    counted.rows
}

async fn count_customers() -> Vec<Row> {
    let (table, _service) = demo().await;
    let mut counted = Counted::warm(&table).await;
    let by = |source: &str, mobile: &str| {
        query(&format!("?source={source}&identifierName=mobile&identifierValue={mobile}"))
    };
    counted.count(LOOKUP, PLAIN, 200, by("INSTORE", MOBILE)).await;
    counted.count(LOOKUP, "in all accounts", 200, by("ALL", MOBILE)).await;
    counted.count(LOOKUP, "unknown customer", 404, by("INSTORE", "9010000022")).await;
    counted.count(DETAILS, PLAIN, 200, by("INSTORE", MOBILE)).await;
    counted.count(BY_ID, PLAIN, 200, Ask { id: USER, ..Ask::default() }).await;
    counted.count(BY_ID, "unknown customer", 404, Ask { id: 5, ..Ask::default() }).await;
    let change = |body| Ask { id: USER, query: "?source=INSTORE".to_owned(), body, ..Ask::default() };
    let mobile = |list: &str, value: &str| json!({list: [{"type": "mobile", "value": value}]});
    for situation in ["adding a mobile", "nothing to change"] {
        counted.count(CHANGE, situation, 200, change(mobile("add", "9010000022"))).await;
    }
    for situation in [WITH_KEY, AGAIN] {
        let ask = Ask { key: "change", ..change(mobile("remove", "9010000022")) };
        counted.count(CHANGE, situation, 200, ask).await;
    }
    counted.rows
}

/// Lookups of ids that belong to an account, in an org with many: each account is read.
async fn count_accounts() -> Vec<Row> {
    let mut definition = demo_org_with("SOURCE_ACCOUNTS_EXTERNALID_ENABLED = [\"INSTORE:\"]");
    let named = |source: &str, count: usize| -> Vec<AccountId> {
        (0..count).map(|i| AccountId(format!("{source}-{i}"))).collect()
    };
    definition.sources =
        [(Source::Wechat, named("W", 200)), (Source::Ecommerce, named("E", 50))].into_iter().collect();
    let (table, service) = demo().await;
    service.apply(&definition).await.unwrap();
    let mut counted = Counted::warm(&table).await;
    let by_id = |source: &str| query(&format!("?source={source}&identifierName=wechat&identifierValue=o-1"));
    counted.count(LOOKUP, UNKNOWN_ID, 404, by_id("INSTORE")).await;
    counted.count(LOOKUP, "an id in all of 251 accounts", 404, by_id("ALL")).await;
    counted.rows
}

#[tokio::test]
async fn each_route_has_exactly_the_listed_round_trips_and_units() {
    // The units of the embedded engine were recorded on AWS. Other engines report units of their
    // own.
    if std::env::var_os("DYNAMODB_ENDPOINT").is_some() {
        return;
    }
    let mut counted = tokio::spawn(count_otps()).await.unwrap();
    counted.extend(tokio::spawn(count_messages()).await.unwrap());
    counted.extend(tokio::spawn(count_guarded_otps()).await.unwrap());
    counted.extend(tokio::spawn(count_otps_of_a_contact()).await.unwrap());
    counted.extend(tokio::spawn(count_numbers()).await.unwrap());
    counted.extend(tokio::spawn(count_registrations()).await.unwrap());
    counted.extend(tokio::spawn(count_customers()).await.unwrap());
    counted.extend(tokio::spawn(count_accounts()).await.unwrap());
    counted.extend(tokio::spawn(count_tokens()).await.unwrap());
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by_key(|(route, situation, ..)| (*route, *situation));
        rows
    };
    assert_eq!(sorted(counted), sorted(COSTS.to_vec()));
}

/// US dollars per million, at the list prices of us-east-1.
const READ_UNITS: f64 = 0.125;
const WRITE_UNITS: f64 = 0.625;
const HTTP_API: f64 = 1.0;
const LAMBDA_REQUESTS: f64 = 0.2;
/// US dollars for a GB-second on arm64.
const LAMBDA_GB_SECOND: f64 = 0.000_013_333_4;
const GIGABYTES: f64 = 0.25;
const MILLISECONDS: f64 = 10.0;
/// US dollars for a GB of logs.
const LOGS_GB: f64 = 0.5;
/// Log bytes of one request: a line of the function, a line of the API's access log, and
/// CloudWatch's overhead for each.
const LOG_BYTES: f64 = 900.0;
/// Log bytes without the function's line: the access log line in the template's format, and 26
/// bytes of overhead for each line.
const OTHER_LOG_BYTES: usize = 230 + 2 * 26;

/// US dollars for the traces of a million requests: X-Ray keeps one request of 20, at 5 dollars a
/// million.
const TRACES: f64 = 5.0 / 20.0;

/// The situations of everyday use, as the README lists them.
const LISTED: &[(&str, &str, &str)] = &[
    ("fetch", FETCH, PLAIN),
    ("card number", NUMBER, PLAIN),
    ("card number with an `Idempotency-Key`", KEYED_NUMBER, WITH_KEY),
    ("generate", GENERATE, PLAIN),
    ("generate with an `Idempotency-Key`", GENERATE, WITH_KEY),
    ("generate with a message to deliver", GENERATE, WITH_MESSAGE),
    ("generate with a message, a cooldown and an hourly limit", GENERATE, GUARDED),
    ("validate", VALIDATE, PLAIN),
    ("validate with an `Idempotency-Key`", VALIDATE, WITH_KEY),
    ("any of them, again under its key", GENERATE, AGAIN),
    ("register, one identifier and a generated number", REGISTER, PLAIN),
    ("look up a customer's id", LOOKUP, PLAIN),
    ("look up an id that nobody has, in an org of 251 accounts", LOOKUP, UNKNOWN_ID),
    ("look up a customer's profiles", DETAILS, PLAIN),
    ("change an identifier", CHANGE, "adding a mobile"),
    ("an access token", TOKEN, PLAIN),
];

fn cost_table() -> String {
    let lambda = LAMBDA_REQUESTS + LAMBDA_GB_SECOND * GIGABYTES * MILLISECONDS * 1e3;
    let logs = LOGS_GB * LOG_BYTES * 1e6 / 1e9 + TRACES;
    let mut table = format!(
        "In US dollars, by the list prices of us-east-1: on-demand DynamoDB {WRITE_UNITS} per million write units and\n\
         {READ_UNITS} per million read units, Lambda on arm64 {LAMBDA_REQUESTS:.2} per million requests and {LAMBDA_GB_SECOND} per\n\
         GB-second, HTTP API {HTTP_API:.2} per million, CloudWatch Logs {LOGS_GB:.2} per GB, X-Ray {TRACES:.2} for a trace of each 20th request. Check\n\
         them: they change. For\n\
         {:.0} MB, {MILLISECONDS:.0} ms a request and {LOG_BYTES} bytes of logs:\n\n\
         | a million of | DynamoDB units | round trips | DynamoDB | HTTP API | Lambda | logs, traces | together |\n\
         |---|---|---|---|---|---|---|---|\n",
        GIGABYTES * 1024.0,
    );
    for (label, route, situation) in LISTED {
        let found = COSTS.iter().find(|row| (&row.0, &row.1) == (route, situation));
        let (_, _, round_trips, read, write) = found.unwrap();
        let units: Vec<String> = [(read, "read"), (write, "write")]
            .into_iter()
            .filter(|(units, _)| **units > 0.0)
            .map(|(units, name)| format!("{units} {name}"))
            .collect();
        let dynamodb = read * READ_UNITS + write * WRITE_UNITS;
        let together = dynamodb + HTTP_API + lambda + logs;
        writeln!(
            table,
            "| {label} | {} | {round_trips} | {dynamodb:.2} | {HTTP_API:.2} | {lambda:.2} | {logs:.2} | **{together:.2}** |",
            units.join(", "),
        )
        .unwrap();
    }
    table
}

#[tokio::test]
#[allow(clippy::cast_precision_loss, reason = "a log line is short")]
async fn a_request_logs_as_many_bytes_as_the_cost_table_assumes() {
    let (_table, service) = demo().await;
    let (log, _recording) = Log::record();
    service.card_number().await;
    let log = log.text();
    let line = log.lines().find(|line| line.contains("GET /v2/cardNumber")).unwrap();
    let written = line.len() + 1;
    let bytes = (written + OTHER_LOG_BYTES) as f64;
    assert!((bytes - LOG_BYTES).abs() <= LOG_BYTES * 0.05, "a request logs {bytes} bytes: update LOG_BYTES");
}

const BEGIN: &str = "<!-- What follows is written by `make cost-table`. -->\n";
const END: &str = "<!-- Up to here. -->\n";

/// Compares the README's table with the counts. With `UPDATE_README=1`, writes the table.
#[test]
fn the_readme_has_the_current_cost_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let current = format!("{before}{BEGIN}{}{END}{after}", cost_table());
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, current).unwrap();
    } else {
        assert!(readme == current, "the README's cost table is out of date: run `make cost-table`");
    }
}
