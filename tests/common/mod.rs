//! Test services. Each runs on a fresh embedded DynamoDB, or on a fresh table of the engine at
//! `DYNAMODB_ENDPOINT`. Their clock stands still until a test moves it.
#![allow(dead_code, reason = "each test binary uses only a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure must fail the test")]

pub mod caller;
pub mod capacity;
pub mod contract;
pub mod events;
pub mod faults;
pub mod input;
pub mod runtime_api;
pub mod served;
pub mod template;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    config::retry::RetryPartition,
    types::{AttributeValue, TimeToLiveSpecification},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use loyalty_codes::{
    api::{App, Path, Request},
    clock::Clock,
    embedded::{Embedded, Storage},
    logging::{self, Format, Metrics},
    model::{
        access_token::TokenLifetime,
        customer::{Account, AccountId, Identifier, IdentifierName, Identity, Source, UserId},
        org::{Definition, OrgId},
        otp::{OtpOwner, OtpSeries, Scope},
        till::{Credential, Permission, Till, TillName},
    },
    secret::{Secret, os_rng},
    settings::Settings,
    store::{Applied, ApplyError, Store, Stream, connect_local, keys},
};
use rand::RngExt;
use serde_json::Value;

pub const MOBILE: &str = "8799361139";
pub const PASSWORD: &str = "server123";
/// The route that issues access tokens.
pub const TOKEN_ROUTE: &str = "/v3/oauth/token/generate";
/// Name of the table if each test has its own engine.
pub const TABLE: &str = "test-codes";
pub const USER: u64 = 313_302_314;

/// The org of the documentation.
pub const DEMO_ORG: &str = r#"
    id = 966
    name = "Demo Stores"
    timezone = "Asia/Kolkata"
    country_code = "91"
    national_mobile_length = 10
    [sources]
    WECHAT = ["WECHAT-API1", "WECHAT-API2"]
    MARTJACK = ["SHOP"]
    [config]
    CONF_CARD_NUMBER_GENERATION_ENABLED = true
    SOURCE_ACCOUNTS_EXTERNALID_ENABLED = ["INSTORE:", "WECHAT:WECHAT-API1", "MARTJACK:SHOP"]
    CONF_CARD_NUMBER_LENGTH = 10
    CONF_CARD_NUMBER_OFFSET = 1000000010
"#;

/// The org of the documentation with more lines in its `[config]`. A repeated key replaces the
/// earlier one.
pub fn demo_org_with(config: &str) -> Definition {
    let mut document: toml::Table = DEMO_ORG.parse().unwrap();
    let section = document["config"].as_table_mut().unwrap();
    section.extend(config.parse::<toml::Table>().unwrap());
    document.try_into().unwrap()
}

pub fn demo_org() -> Definition {
    demo_org_with("")
}

/// The org of the documentation with more lines at the end of its file: first keys of `[config]`,
/// then other tables.
pub fn demo_org_and(lines: &str) -> Definition {
    format!("{DEMO_ORG}\n{lines}").parse::<toml::Table>().unwrap().try_into().unwrap()
}

/// A clock that shows 2026-11-21 10:00 in India until a test moves it.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn new() -> Self {
        let start: DateTime<Utc> = "2026-11-21T04:30:00Z".parse().unwrap();
        Self(Arc::new(AtomicI64::new(start.timestamp_millis())))
    }

    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }

    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::SeqCst)).unwrap()
    }

    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::from_fn(move || clock.now())
    }
}

/// The DynamoDB of a test.
#[derive(Debug)]
enum Engine {
    /// An embedded engine for this test alone.
    Embedded(Embedded),
    /// The engine at this endpoint, which all tests share.
    Shared(String),
}

/// The table of one test. Dropping it deletes the table.
#[derive(Debug)]
pub struct TestTable {
    engine: Engine,
    name: String,
    pub clock: TestClock,
}

impl TestTable {
    /// All items whose sort key begins with a text, sorted by their keys.
    pub async fn items(&self, prefix: &str) -> Vec<HashMap<String, AttributeValue>> {
        let scan = self.client().scan().table_name(&self.name).consistent_read(true);
        let items = scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap();
        let key = |item: &HashMap<String, AttributeValue>, name: &str| item[name].as_s().unwrap().clone();
        let mut items: Vec<_> =
            items.into_iter().filter(|item| key(item, keys::SK).starts_with(prefix)).collect();
        items.sort_by_key(|item| (key(item, keys::PK), key(item, keys::SK)));
        items
    }

    pub async fn new() -> Self {
        let (engine, name) = if let Ok(endpoint) = std::env::var("DYNAMODB_ENDPOINT") {
            (Engine::Shared(endpoint), format!("{TABLE}-{:032x}", os_rng().random::<u128>()))
        } else {
            let embedded = Embedded::start(&Storage::Memory, "127.0.0.1:0".parse().unwrap()).await.unwrap();
            (Engine::Embedded(embedded), TABLE.to_owned())
        };
        let table = Self { engine, name, clock: TestClock::new() };
        table.store().create_table(Stream::None).await.unwrap();
        if table.is_shared() {
            table.disable_ttl().await;
        }
        table
    }

    /// Switches expiry off. The tests' clock shows the past, and engines delete expired items by
    /// their own clock.
    async fn disable_ttl(&self) {
        let off = TimeToLiveSpecification::builder().attribute_name(keys::EXPIRES_AT).enabled(false).build();
        let update = self.client().update_time_to_live().table_name(&self.name);
        // AWS refuses a second change within an hour, but deletes items later than any test runs.
        //
        // <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateTimeToLive.html>
        let _ = update.time_to_live_specification(off.unwrap()).send().await;
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether other tests use the same engine.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Shared(_))
    }

    pub fn endpoint(&self) -> String {
        match &self.engine {
            Engine::Embedded(embedded) => embedded.endpoint(),
            Engine::Shared(endpoint) => endpoint.clone(),
        }
    }

    /// A plain SDK client, for changes that the service itself never makes.
    pub fn client(&self) -> Client {
        client(&self.name, &self.endpoint())
    }

    /// A store with its own client and connections, as another process has them.
    pub fn store(&self) -> Store {
        Store::new(self.client(), self.name.clone())
    }

    /// Another process on the same table.
    pub fn service(&self, till: &str) -> TestService {
        self.service_with(self.client(), till)
    }

    /// A process that reaches the table through `client`.
    pub fn service_with(&self, client: Client, till: &str) -> TestService {
        let store = Store::new(client.clone(), self.name.clone());
        TestService {
            app: Arc::new(App::new(store.clone(), self.clock.clock())),
            client,
            store,
            clock: self.clock.clone(),
            authorization: Some(basic(&format!("{till}:{PASSWORD}"))),
            // Much more time than a busy machine needs.
            time_limit: Duration::from_mins(1),
        }
    }
}

impl Drop for TestTable {
    fn drop(&mut self) {
        let Engine::Shared(endpoint) = &self.engine else {
            return;
        };
        let (endpoint, name) = (endpoint.clone(), self.name.clone());
        // The deletion has its own runtime, because the test's runtime cannot wait here.
        let deletion = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // The test may have deleted the table itself.
            let _ = runtime.block_on(client(&name, &endpoint).delete_table().table_name(&name).send());
        });
        let _ = deletion.join();
    }
}

/// Builds an `Authorization` header from `name:password`.
pub fn basic(credentials: &str) -> HeaderValue {
    format!("Basic {}", STANDARD.encode(credentials)).parse().unwrap()
}

/// Returns a port that is free now, for programs that cannot listen on port 0.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn client(table: &str, endpoint: &str) -> Client {
    let settings = Settings { table: table.to_owned(), ..Settings::default() };
    connect_local(&settings, endpoint).unwrap()
}

/// One process of the service, called with one till's credentials.
#[derive(Debug, Clone)]
pub struct TestService {
    pub app: Arc<App>,
    pub client: Client,
    pub store: Store,
    pub clock: TestClock,
    pub authorization: Option<HeaderValue>,
    pub time_limit: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    /// The status and all error codes.
    pub fn refusal(&self) -> (u16, Vec<u64>) {
        let errors = self.json["errors"].as_array().cloned().unwrap_or_default();
        for error in &errors {
            assert_eq!(error["status"], false);
            assert!(error["message"].is_string());
        }
        assert!(self.json["warnings"].is_array(), "{self:?}");
        (self.status, errors.iter().map(|error| error["code"].as_u64().unwrap()).collect())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn retry_after(&self) -> i64 {
        self.header("retry-after").expect("Retry-After").parse().unwrap()
    }
}

/// The demo customer's OTPs for POINTS.
pub fn demo_series() -> OtpSeries {
    OtpSeries { org: OrgId(966), owner: OtpOwner::Customer(UserId(USER)), scope: Scope::Points }
}

/// The OTPs of the demo customer's mobile for REGISTRATION.
pub fn contact_series() -> OtpSeries {
    let plan = demo_org().phone_number_plan();
    let mobile = Identifier::new(IdentifierName::Mobile, MOBILE, &plan).unwrap();
    let instore = Account { source: Source::Instore, id: AccountId(String::new()) };
    let owner = OtpOwner::Contact(Identity::new(instore, mobile));
    OtpSeries { org: OrgId(966), owner, scope: Scope::Registration }
}

/// Creates a table with the demo org, its till `store.server` with all permissions, and the
/// customer of the documentation.
pub async fn demo() -> (TestTable, TestService) {
    demo_with("").await
}

/// Like [`demo`], with more lines in the org's `[config]`.
pub async fn demo_with(config: &str) -> (TestTable, TestService) {
    demo_of(&demo_org_with(config)).await
}

/// Like [`demo`], with another definition of the org.
pub async fn demo_of(definition: &Definition) -> (TestTable, TestService) {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    service.apply(definition).await.unwrap();
    service.create_till("store.server", 966, Permission::ALL).await;
    service.register_demo_customer().await;
    (table, service)
}

impl TestService {
    pub async fn apply(&self, definition: &Definition) -> Result<Applied, ApplyError> {
        self.store.apply_org(definition, Secret::new([7; 32]), UserId(USER), None).await
    }

    pub async fn create_till(&self, name: &str, org: u32, permissions: &[Permission]) {
        let till = Till {
            name: TillName::parse(name).unwrap(),
            org: OrgId(org),
            permissions: permissions.to_vec(),
            credentials: vec![Credential::new(PASSWORD, self.clock.now())],
            token_lifetime: TokenLifetime::default(),
        };
        assert!(self.store.create_till(&till).await.unwrap());
    }

    /// Registers the customer with the mobile in INSTORE and WECHAT-API1, and the external ID
    /// `CARD-1`.
    pub async fn register_demo_customer(&self) {
        let identifiers = serde_json::json!([
            {"type": "mobile", "value": MOBILE},
            {"type": "email", "value": "tom@example.com"},
            {"type": "wechat", "value": "openid-1"},
            {"type": "externalId", "value": "CARD-1"},
        ]);
        let body = serde_json::json!({"profiles": [
            {"firstName": "Tom", "source": "INSTORE", "accountId": "", "identifiers": identifiers},
            {"source": "WECHAT", "accountId": "WECHAT-API1", "identifiers": identifiers},
            {"source": "MARTJACK", "accountId": "SHOP", "identifiers": identifiers},
        ]});
        let answer = self.post("/v2/customers", &body).await;
        assert_eq!(answer.text, format!(r#"{{"createdId":{USER},"sideEffects":[],"warnings":[]}}"#));
    }

    /// The same process, called with other credentials.
    pub fn as_till(&self, name: &str, password: &str) -> Self {
        Self { authorization: Some(basic(&format!("{name}:{password}"))), ..self.clone() }
    }

    /// The same process, called with an access token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { authorization: HeaderValue::try_from(format!("Bearer {token}")).ok(), ..self.clone() }
    }

    /// Asks for an access token.
    pub async fn request_token(&self, key: &str, secret: &str) -> Answer {
        self.post(TOKEN_ROUTE, &serde_json::json!({"key": key, "secret": secret})).await
    }

    /// An access token of the till `store.server`.
    pub async fn token(&self) -> String {
        let answer = self.request_token("store.server", PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["data"]["accessToken"].as_str().unwrap().to_owned()
    }

    /// A process with empty caches and an unused retry quota, on the same connections.
    pub fn another_process(&self) -> Self {
        let quota = RetryPartition::custom("another process").build();
        let client = Client::from_conf(self.client.config().to_builder().retry_partition(quota).build());
        let store = Store::new(client.clone(), self.store.table().to_owned());
        let app = Arc::new(App::new(store.clone(), self.clock.clock()));
        Self { app, client, store, ..self.clone() }
    }

    /// Number of OTPs that the demo customer was issued today.
    pub async fn issued_otps(&self) -> usize {
        self.store.otps_and_attempts(&demo_series(), self.clock.now()).await.unwrap().otps.len()
    }

    pub fn without_credentials(&self) -> Self {
        Self { authorization: None, ..self.clone() }
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    pub async fn post(&self, url: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(Method::POST, url, &headers, body.to_string().into()).await
    }

    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let mut all = HeaderMap::new();
        if let Some(authorization) = &self.authorization {
            all.insert(header::AUTHORIZATION, authorization.clone());
        }
        for (name, value) in headers {
            all.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method: method.clone(),
            path: Path::Encoded(path.to_owned()),
            query: query.to_owned(),
            query_was_decoded: false,
            headers: all,
            body,
            time_limit: self.time_limit,
            request_id: "test-request".to_owned(),
        };
        // The future is boxed, because a test with many requests would keep each state on its
        // stack.
        let response = Box::pin(self.app.handle(request)).await;
        let (parts, text) = response.into_parts();
        let status = parts.status.as_u16();
        if method == Method::HEAD {
            assert_eq!(text, "");
            return Answer { status, headers: parts.headers, text, json: Value::Null };
        }
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let answer = Answer { status, headers: parts.headers, text, json };
        contract::check(&method, path, &answer);
        answer
    }

    /// Issues an OTP to the demo customer and returns its `createdId`.
    pub async fn issue(&self) -> u64 {
        let body = serde_json::json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
        let answer = self.post("/v2/otp/generate", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["createdId"].as_u64().unwrap()
    }

    pub async fn fetch(&self) -> Answer {
        self.get(&format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=POINTS")).await
    }

    /// Returns the code that a fetch finds.
    pub async fn code(&self) -> String {
        let answer = self.fetch().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["code"].as_str().unwrap().to_owned()
    }

    pub async fn validate(&self, code: &str) -> Answer {
        let body = serde_json::json!({
            "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": code,
        });
        self.post("/v2/otp/validate", &body).await
    }

    /// Returns whether a code is right. Panics if the validation was refused.
    pub async fn is_right(&self, code: &str) -> bool {
        let answer = self.validate(code).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["entity"].as_bool().unwrap()
    }

    /// Takes the next card number.
    pub async fn card_number(&self) -> String {
        let answer = self.get("/v2/cardNumber").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["entity"].as_str().unwrap().to_owned()
    }
}

/// Log lines of this thread while a recording is active.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static RECORDING: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Ends the recording when it is dropped.
#[derive(Debug)]
pub struct Recording;

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDING.set(None);
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Records what Lambda logs with `RUST_LOG=trace`. All tests of a process share one subscriber,
    /// because `tracing` caches per thread which lines a subscriber wants.
    pub fn record() -> (Self, Recording) {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let writer = || RECORDING.with_borrow(|log| log.clone().unwrap_or_default());
            let format = Format::Json(Some(Metrics::new("loyalty-codes", false)));
            let subscriber = logging::subscriber(format, Some("trace"), writer).unwrap();
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        let log = Self::default();
        RECORDING.set(Some(log.clone()));
        (log, Recording)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The log lines about requests, each a JSON object.
    pub fn requests(&self) -> Vec<Value> {
        let lines = self.text();
        let objects = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        objects.filter(|line| line["message"] == "request").collect()
    }
}
