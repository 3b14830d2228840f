//! Importing customers while the org changes. `tests/loyaltyctl/import.rs` runs the command.

use chrono::TimeDelta;
use loyalty_codes::{api::import::Imported, model::org::OrgId, store::UpgradeOptions};
use serde_json::json;

use crate::{
    common::{MOBILE, TestService, USER, demo},
    joining::{INSTORE, new_customer, unmark},
    upgrade::indonesia,
};

/// Imports a row with a mobile as a process does that has been running for a while.
async fn import(service: &TestService, source: &str, mobile: &str) -> Imported {
    let profile = json!({"source": source, "identifiers": [{"type": "mobile", "value": mobile}]});
    let body = json!({"profiles": [profile]}).to_string();
    let customer = service.app.read_import(OrgId(966), body.as_bytes()).await.unwrap().unwrap();
    service.app.import(&customer).await.unwrap()
}

#[tokio::test]
async fn an_import_sees_within_a_minute_that_customers_join() {
    let (table, service) = demo().await;
    unmark(&table).await;
    let importer = service.another_process();
    let user = new_customer(&importer, INSTORE, &[("mobile", "9010000022")]).await;
    assert_eq!(import(&importer, "MARTJACK", MOBILE).await, Imported::Existed);
    service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    importer.clock.advance(TimeDelta::seconds(60));
    assert_eq!(import(&importer, "MARTJACK", "9010000022").await, Imported::Joined);
    let lookup = "/v2/customers/lookup?source=MARTJACK&accountId=SHOP&identifierName=mobile&identifierValue=9010000022";
    assert_eq!(service.get(lookup).await.json["entity"], user);
}

#[tokio::test]
async fn an_import_follows_a_changed_phone_number_plan_within_a_minute() {
    let (_table, service) = demo().await;
    let importer = service.another_process();
    assert_eq!(import(&importer, "INSTORE", "9010000022").await, Imported::Registered);
    service.apply(&indonesia()).await.unwrap();
    importer.clock.advance(TimeDelta::seconds(60));
    assert_eq!(import(&importer, "INSTORE", "081234567890").await, Imported::Registered);
    let new_form = service.another_process();
    let lookup = "/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue=%2B6281234567890";
    assert_eq!(new_form.get(lookup).await.json["entity"], USER + 2);
}
