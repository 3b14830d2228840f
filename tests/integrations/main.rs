//! Existing integrations, each played as a whole by a client with its habits, over HTTP against the
//! running service. The service is that of `loyaltyctl serve`, with a clock that the test moves.
//!
//! The clients are written for these tests. What they have in common with clients in use are their
//! habits: what they send, what they look at in an answer, and what they ignore.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

#[path = "../common/mod.rs"]
mod common;

mod commerce_connector;
mod http_client;
mod importer;
mod kiosk;
mod mobile_backend;
mod node_proxy;
mod web_shop;

use axum::Router;
use common::{
    TestService, TestTable,
    faults::{Faults, with_fault_proxy},
};
use loyalty_codes::{
    entrypoints::http::{Limits, serve},
    model::till::Permission,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An org whose shops are accounts of INSTORE, and whose web shop and app are sources.
const ORG: &str = r#"
    id = 966
    name = "Demo Stores"
    timezone = "Asia/Kolkata"
    country_code = "91"
    national_mobile_length = 10
    [sources]
    INSTORE = ["site-1", "site-2"]
    ECOMMERCE = ["web-shop"]
    MOBILE_APP = ["app"]
    [config]
    CONF_CARD_NUMBER_GENERATION_ENABLED = true
    SOURCE_ACCOUNTS_EXTERNALID_ENABLED = ["INSTORE:", "INSTORE:site-1", "ECOMMERCE:web-shop", "MOBILE_APP:app"]
    CONF_CARD_NUMBER_LENGTH = 10
    CONF_CARD_NUMBER_OFFSET = 1000000010
    [delivery]
    SMS = "aws"
    EMAIL = "aws"
    [delivery.aws]
    sms_origination = "SHOP"
    email_from = "otp@example.com"
"#;

/// The service behind HTTP, with the org and its till `store.server`.
struct Running {
    /// The same process, without HTTP: the clock, and what the test looks at itself.
    service: TestService,
    table: TestTable,
    /// `http://127.0.0.1:…`.
    base: String,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Running {
    async fn start() -> Self {
        let (table, service) = Self::with_org().await;
        Self::serving(table, service).await
    }

    /// Starts a process that reaches DynamoDB through a proxy.
    async fn start_with_faults() -> (Self, Faults) {
        let (table, _direct) = Self::with_org().await;
        let (service, faults) = with_fault_proxy(&table, "store.server").await;
        (Self::serving(table, service).await, faults)
    }

    async fn with_org() -> (TestTable, TestService) {
        let table = TestTable::new().await;
        let service = table.service("store.server");
        service.apply(&toml::from_str(ORG).unwrap()).await.unwrap();
        service.create_till("store.server", 966, Permission::ALL).await;
        (table, service)
    }

    async fn serving(table: TestTable, service: TestService) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = service.app.clone();
        let server = tokio::spawn(async move {
            serve(app, Router::new(), listener, Limits::default(), std::future::pending()).await;
        });
        Self { service, table, base, server }
    }

    /// The text of the last message to an address, as the customer receives it.
    async fn message_to(&self, address: &str) -> String {
        let scan = self.table.client().scan().table_name(self.table.name()).send().await.unwrap();
        let mut messages: Vec<_> = scan
            .items
            .unwrap()
            .into_iter()
            .filter(|item| item["SK"].as_s().unwrap().starts_with("MESSAGE#"))
            .filter(|item| item["channels"].as_s().unwrap().contains(&format!("\"{address}\"")))
            .collect();
        messages.sort_by_key(|item| item["SK"].as_s().unwrap().clone());
        let last = messages.pop().unwrap();
        let is_email = address.contains('@');
        last[if is_email { "email_body" } else { "text" }].as_s().unwrap().clone()
    }
}
