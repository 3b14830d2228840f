//! Upgrades identifiers that earlier versions or other phone number plans have written to the
//! present normal form.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_sdk_dynamodb::types::AttributeValue;
use loyalty_codes::{
    model::{
        customer::{IdentifierName, UserId},
        org::{Definition, OrgId},
    },
    store::{Reason, UpgradeOptions, UpgradeReport},
};
use serde_json::{Value, json};

use crate::common::{TestService, TestTable, USER, demo, demo_org};

/// Writes a customer with these INSTORE identifiers as an earlier version did.
async fn write_customer(table: &TestTable, user: u64, identifiers: &[(&str, &str)]) {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |number: u64| AttributeValue::N(number.to_string());
    let account = |name: &str| if name == "external_id" { None } else { Some("INSTORE:") };
    for (name, value) in identifiers {
        let place = account(name).map_or("#", |_| "INSTORE#");
        put(
            table,
            &[
                ("PK", s(&format!("ORG#966#ID#{place}#{name}#{value}"))),
                ("SK", s("ID")),
                ("user_id", n(user)),
            ],
        )
        .await;
    }
    let list: Vec<_> = identifiers.iter().map(|(name, value)| (account(name), name, value)).collect();
    put(
        table,
        &[
            ("PK", s(&format!("ORG#966#USER#{user}"))),
            ("SK", s("PROFILE")),
            ("user_id", n(user)),
            ("profiles", s(r#"[{"account":"INSTORE:","first_name":null,"last_name":null}]"#)),
            ("identifiers", s(&serde_json::to_string(&list).unwrap())),
            ("registered_at", n(1_795_235_400_000)),
        ],
    )
    .await;
}

async fn put(table: &TestTable, attributes: &[(&str, AttributeValue)]) {
    let mut put = table.client().put_item().table_name(table.name());
    for (name, value) in attributes {
        put = put.item(*name, value.clone());
    }
    put.send().await.unwrap();
}

/// The owner of every identity of the org, by the part of its key after `ID#`; and the identifier
/// list of each customer.
async fn identities(table: &TestTable) -> (BTreeMap<String, String>, BTreeMap<String, Value>) {
    let items = table.client().scan().table_name(table.name()).send().await.unwrap().items.unwrap();
    let (mut identities, mut lists) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let (pk, sk) = (item["PK"].as_s().unwrap(), item["SK"].as_s().unwrap());
        if let Some(identity) = pk.strip_prefix("ORG#966#ID#") {
            identities.insert(identity.to_owned(), item["user_id"].as_n().unwrap().clone());
        } else if sk == "PROFILE" {
            let list = serde_json::from_str(item["identifiers"].as_s().unwrap()).unwrap();
            lists.insert(pk.strip_prefix("ORG#966#USER#").unwrap().to_owned(), list);
        }
    }
    (identities, lists)
}

/// Panics unless each customer has exactly the identities that its item lists.
async fn check(table: &TestTable) {
    let (mut found, lists) = identities(table).await;
    for (user, list) in &lists {
        for entry in list.as_array().unwrap() {
            let account = entry[0].as_str().map_or("#".to_owned(), |account| account.replace(':', "#"));
            let key = format!("{account}#{}#{}", entry[1].as_str().unwrap(), entry[2].as_str().unwrap());
            assert_eq!(found.remove(&key).as_ref(), Some(user), "{key}");
        }
    }
    assert_eq!(found, BTreeMap::new(), "no customer lists these identities");
}

async fn upgrade(service: &TestService) -> UpgradeReport {
    service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap()
}

async fn status(service: &TestService, parameter: &str) -> (u16, Vec<u64>) {
    service.get(&format!("/v2/otp?source=INSTORE&scope=POINTS&{parameter}")).await.refusal()
}

const KNOWN: (u16, u64) = (404, 9001);
const UNKNOWN: (u16, u64) = (404, 8015);

async fn is(service: &TestService, parameter: &str, expected: (u16, u64)) {
    assert_eq!(status(service, parameter).await, (expected.0, vec![expected.1]), "{parameter}");
}

fn indonesia() -> Definition {
    Definition {
        country_code: "62".to_owned(),
        trunk_prefix: "0".to_owned(),
        national_mobile_length: [9, 10, 11, 12].into_iter().collect(),
        ..demo_org()
    }
}

#[tokio::test]
async fn identifiers_of_an_earlier_form_are_found_again() {
    let (table, service) = demo().await;
    let old =
        [("email", "to\u{200b}m@bücher.example"), ("external_id", "A\u{2011}1"), ("wechat", "Cafe\u{301}")];
    write_customer(&table, 5, &old).await;
    is(&service, "email=tom%40b%C3%BCcher.example", UNKNOWN).await;
    let before = identities(&table).await;

    let options = UpgradeOptions { dry_run: true, ..UpgradeOptions::default() };
    let report = service.store.upgrade(options, |_| ()).await.unwrap();
    assert_eq!((report.customers, report.changed, report.undecided.len()), (2, 3, 0));
    assert_eq!(identities(&table).await, before, "a dry run writes nothing");
    let options = UpgradeOptions { org: Some(OrgId(96)), dry_run: false };
    assert_eq!(
        service.store.upgrade(options, |_| ()).await.unwrap(),
        UpgradeReport::default(),
        "another org has nothing to upgrade"
    );

    let report = upgrade(&service).await;
    assert_eq!((report.customers, report.changed, report.undecided.len()), (2, 3, 0));
    for parameter in ["email=tom%40b%C3%BCcher.example", "external_id=A-1", "wechat=Caf%C3%A9"] {
        is(&service, parameter, KNOWN).await;
    }
    check(&table).await;
    let after = identities(&table).await;
    assert_eq!(after.0["INSTORE##email#tom@xn--bcher-kva.example"], "5");
    let report = upgrade(&service).await;
    assert_eq!((report.customers, report.changed), (2, 0), "a second run changes nothing");
    assert_eq!(identities(&table).await, after);
}

#[tokio::test]
async fn mobiles_follow_the_orgs_phone_number_plan() {
    let (table, service) = demo().await;
    service.apply(&indonesia()).await.unwrap();
    let service = service.another_process();
    // Under the demo's plan, these are the normal forms of `+62 0812…`, of an Indian number, and of
    // a number with a national length in Indonesia.
    write_customer(&table, 5, &[("mobile", "62081234567890")]).await;
    write_customer(&table, 6, &[("mobile", "6591234567")]).await;
    is(&service, "mobile=081234567890", UNKNOWN).await;
    let report = upgrade(&service).await;
    assert_eq!(report.changed, 1);
    is(&service, "mobile=081234567890", KNOWN).await;
    is(&service, "mobile=%2B918799361139", KNOWN).await;
    is(&service, "mobile=%2B6591234567", KNOWN).await;
    let undecided: Vec<_> = report.undecided.iter().map(|left| (left.user, left.reason.clone())).collect();
    let national = |mobile: &str| Reason::MaybeNational { normal_form: mobile.to_owned() };
    assert!(undecided.contains(&(UserId(6), national("626591234567"))), "{undecided:?}");
    assert!(undecided.iter().all(|(user, _)| *user != UserId(5)), "{undecided:?}");
    check(&table).await;
}

#[tokio::test]
async fn undecidable_identifiers_are_listed_and_not_changed() {
    let (table, service) = demo().await;
    write_customer(&table, 5, &[("email", "to\u{200b}m@example.com"), ("email", "jörg@example.com")]).await;
    let before = identities(&table).await;
    let taken = Reason::Taken { normal_form: "tom@example.com".to_owned(), by: UserId(USER) };
    for dry_run in [true, false, false] {
        let options = UpgradeOptions { org: Some(OrgId(966)), dry_run };
        let report = service.store.upgrade(options, |_| ()).await.unwrap();
        assert_eq!(report.changed, 0);
        let found: Vec<_> =
            report.undecided.into_iter().map(|left| (left.user, left.name, left.reason)).collect();
        let email = IdentifierName::Email;
        assert_eq!(found, [(UserId(5), email, taken.clone()), (UserId(5), email, Reason::Malformed)]);
    }
    assert_eq!(identities(&table).await, before);
}

#[tokio::test]
async fn two_spellings_of_one_customer_become_one_identifier() {
    let (table, service) = demo().await;
    write_customer(
        &table,
        5,
        &[("email", "a@example.com"), ("email", "\u{ad}a@example.com"), ("email", "a@example\u{200b}.com")],
    )
    .await;
    assert_eq!(upgrade(&service).await.changed, 2);
    check(&table).await;
    let (_, lists) = identities(&table).await;
    assert_eq!(lists["5"], json!([["INSTORE:", "email", "a@example.com"]]));
}

const CUSTOMERS: u64 = 30;

fn old_email(user: u64) -> String {
    format!("user{user}\u{200b}@example.com")
}

async fn write_customers(table: &TestTable) {
    for user in 1..=CUSTOMERS {
        write_customer(
            table,
            user,
            &[("email", &old_email(user)), ("external_id", &format!("\u{200b}X{user}"))],
        )
        .await;
    }
}

#[tokio::test]
async fn an_upgrade_that_was_killed_is_resumed() {
    let (table, service) = demo().await;
    write_customers(&table).await;
    let mut changed = 0;
    for stop_after in [1, 7, 15] {
        let seen = Arc::new(AtomicU64::new(0));
        let (store, counter) = (service.store.clone(), Arc::clone(&seen));
        let (send, killed) = tokio::sync::oneshot::channel();
        let mut send = Some(send);
        let running = tokio::spawn(async move {
            store
                .upgrade(UpgradeOptions::default(), |report| {
                    counter.store(report.changed, Ordering::SeqCst);
                    if report.changed >= stop_after
                        && let Some(send) = send.take()
                    {
                        send.send(()).unwrap();
                    }
                })
                .await
        });
        killed.await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        check(&table).await;
        changed += seen.load(Ordering::SeqCst);
    }
    assert!(changed >= 1 + 7 + 15, "{changed}");
    upgrade(&service).await;
    check(&table).await;
    let (found, _) = identities(&table).await;
    for user in 1..=CUSTOMERS {
        assert_eq!(found[&format!("INSTORE##email#user{user}@example.com")], user.to_string());
        assert_eq!(found[&format!("##external_id#X{user}")], user.to_string());
    }
    assert_eq!(upgrade(&service).await.changed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_registrations_may_run_at_once() {
    let (table, service) = demo().await;
    write_customers(&table).await;
    let upgrades = (0..3).map(|_| {
        let store = table.store();
        tokio::spawn(async move { store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap() })
    });
    let upgrades: Vec<_> = upgrades.collect();
    // Some registrations come before the upgrade of the identifier, others after it.
    let mut registered = Vec::new();
    for user in (1..=CUSTOMERS).rev() {
        let identifiers = json!([{"type": "email", "value": format!("USER{user}@example.com")}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        let answer = service.post("/v2/customers", &body).await;
        match answer.status {
            200 => registered.push(user),
            _ => assert_eq!(answer.refusal(), (409, vec![8008])),
        }
    }
    for upgrade in upgrades {
        upgrade.await.unwrap();
    }
    check(&table).await;
    let report = upgrade(&service).await;
    assert_eq!(report.changed, 0);
    let undecided: Vec<u64> = report.undecided.iter().map(|left| left.user.0).collect();
    assert_eq!(undecided.len(), registered.len(), "their addresses now have other owners");
    assert!(registered.iter().all(|user| undecided.contains(user)));
}
