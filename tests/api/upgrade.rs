//! Upgrades identifiers that earlier versions or other phone number plans have written to the
//! present normal form.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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

use crate::{
    common::{
        TestService, TestTable, USER, demo, demo_org,
        faults::{Fault, with_fault_proxy},
    },
    joining,
    races::all_at_once,
};

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

/// The owner of every identity with an account, by the part of its key after `ID#`; and the
/// identifier list of each customer.
async fn identities(table: &TestTable) -> (BTreeMap<String, String>, BTreeMap<String, Value>) {
    let items = table.client().scan().table_name(table.name()).send().await.unwrap().items.unwrap();
    let (mut identities, mut lists) = (BTreeMap::new(), BTreeMap::new());
    for item in items {
        let (pk, sk) = (item["PK"].as_s().unwrap(), item["SK"].as_s().unwrap());
        if item.contains_key("accounts") {
            continue;
        }
        if let Some(identity) = pk.strip_prefix("ORG#966#ID#") {
            identities.insert(identity.to_owned(), item["user_id"].as_n().unwrap().clone());
        } else if sk == "PROFILE" {
            let list = serde_json::from_str(item["identifiers"].as_s().unwrap()).unwrap();
            lists.insert(pk.strip_prefix("ORG#966#USER#").unwrap().to_owned(), list);
        }
    }
    (identities, lists)
}

/// The owner and the accounts of every org-wide identity, by name and value.
async fn org_wide(table: &TestTable) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let items = table.client().scan().table_name(table.name()).send().await.unwrap().items.unwrap();
    let read = |item: HashMap<String, AttributeValue>| {
        let accounts = item.get("accounts")?.as_ss().unwrap().iter().cloned().collect();
        let name = item["PK"].as_s().unwrap().strip_prefix("ORG#966#ID###").unwrap().to_owned();
        Some((name, (item["user_id"].as_n().unwrap().clone(), accounts)))
    };
    items.into_iter().filter_map(read).collect()
}

/// Panics unless each customer has exactly the identities that its item lists, and the org-wide
/// identities that exist have the accounts of their customer's list.
async fn check(table: &TestTable) {
    let (mut found, lists) = identities(table).await;
    for (name, (user, accounts)) in org_wide(table).await {
        let listed =
            lists[&user].as_array().unwrap().iter().filter(|entry| {
                format!("{}#{}", entry[1].as_str().unwrap(), entry[2].as_str().unwrap()) == name
            });
        let listed: BTreeSet<String> = listed.map(|entry| entry[0].as_str().unwrap().to_owned()).collect();
        assert_eq!(accounts, listed, "{name}");
    }
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

pub fn indonesia() -> Definition {
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
            _ => assert_eq!(answer.refusal(), (409, vec![8006])),
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

/// An org as an earlier version left it: with customers 1 to 3 who have no org-wide identities. The
/// second and the third one have the same mobile in different accounts.
async fn before_joining() -> (TestTable, TestService) {
    let (table, service) = demo().await;
    write_customer(&table, 1, &[("mobile", "919010000001"), ("email", "a@example.com")]).await;
    write_customer(&table, 2, &[("mobile", "919010000002")]).await;
    joining::unmark(&table).await;
    let service = service.another_process();
    let body = json!({"profiles": [{"source": "WECHAT", "accountId": "WECHAT-API1", "identifiers": [
        {"type": "mobile", "value": "9010000002"}, {"type": "wechat", "value": "o-1"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.json["createdId"], USER + 1);
    joining::delete_org_wide(&table).await;
    (table, service)
}

fn joins(org_wide: &BTreeMap<String, (String, BTreeSet<String>)>, name: &str) -> (u64, Vec<String>) {
    let (user, accounts) = &org_wide[name];
    (user.parse().unwrap(), accounts.iter().cloned().collect())
}

#[tokio::test]
async fn customers_of_an_earlier_version_join_after_an_upgrade() {
    let (table, service) = before_joining().await;
    let org = OrgId(966);
    let dry = UpgradeOptions { org: Some(org), dry_run: true };
    let report = service.store.upgrade(dry, |_| ()).await.unwrap();
    // Each of the four customers, and the mobile that two of them have counts once or twice,
    // depending on who is visited first.
    assert!((5..=6).contains(&report.org_wide), "{report:?}");
    assert_eq!((report.changed, &report.joining[..]), (0, &[org][..]));
    assert_eq!(org_wide(&table).await, BTreeMap::new(), "a dry run writes nothing");
    assert!(!service.store.org(org).await.unwrap().unwrap().customers_join);

    let report = upgrade(&service).await;
    assert_eq!((report.customers, report.changed, &report.joining[..]), (4, 0, &[org][..]));
    assert!(service.store.org(org).await.unwrap().unwrap().customers_join);
    check(&table).await;
    let written = org_wide(&table).await;
    assert_eq!(written.len(), 5);
    assert_eq!(joins(&written, "mobile#919010000001"), (1, vec!["INSTORE:".to_owned()]));
    assert_eq!(joins(&written, "mobile#919010000002"), (2, vec!["INSTORE:".to_owned()]));
    let (user, accounts) = joins(&written, "mobile#918799361139");
    assert_eq!((user, accounts.len()), (USER, 3));
    let undecided: Vec<_> = report
        .undecided
        .iter()
        .map(|left| (left.user.0, left.account.as_ref().unwrap().to_string(), left.reason.clone()))
        .collect();
    assert_eq!(
        undecided,
        [(USER + 1, "WECHAT:WECHAT-API1".to_owned(), Reason::OtherJoins { by: UserId(2) })]
    );

    let again = upgrade(&service).await;
    assert_eq!((again.org_wide, again.joining.len(), again.undecided), (0, 0, report.undecided));
    assert_eq!(org_wide(&table).await, written);
    let joined =
        joining::register(&service.another_process(), "MARTJACK:SHOP", &[("mobile", "9010000001")]).await;
    assert_eq!((&joined.json["createdId"], &joined.json["warnings"][0]["code"]), (&json!(1), &json!(8051)));
    check(&table).await;
}

#[tokio::test]
async fn the_lowest_user_id_takes_over_an_org_wide_identity() {
    let (table, service) = before_joining().await;
    // A customer who is registered before the upgrade claims what is free.
    let later = joining::new_customer(&service, "MARTJACK:SHOP", &[("mobile", "9010000001")]).await;
    assert_eq!(joins(&org_wide(&table).await, "mobile#919010000001").0, later);
    let report = upgrade(&service).await;
    assert_eq!(joins(&org_wide(&table).await, "mobile#919010000001"), (1, vec!["INSTORE:".to_owned()]));
    let listed = report.undecided.iter().find(|left| left.user.0 == later).unwrap();
    assert_eq!(listed.reason, Reason::OtherJoins { by: UserId(1) });
    assert_eq!(listed.account.as_ref().unwrap().to_string(), "MARTJACK:SHOP");
    check(&table).await;
    // The other customer keeps the identifier in the account, and gives it up alone.
    let url = format!("/v2/customers/{later}/changeIdentifier?source=MARTJACK&accountId=SHOP");
    let removed = json!({
        "add": [{"type": "cuid", "value": "C1"}], "remove": [{"type": "mobile", "value": "9010000001"}],
    });
    assert_eq!(service.post(&url, &removed).await.status, 200);
    assert_eq!(joins(&org_wide(&table).await, "mobile#919010000001").0, 1);
    check(&table).await;
}

#[tokio::test]
async fn an_org_with_a_customer_that_cannot_be_read_does_not_join() {
    let (table, service) = before_joining().await;
    put(
        &table,
        &[
            ("PK", AttributeValue::S("ORG#966#USER#9".to_owned())),
            ("SK", AttributeValue::S("PROFILE".to_owned())),
        ],
    )
    .await;
    let report = upgrade(&service).await;
    assert_eq!((report.unreadable.len(), report.joining.len(), report.org_wide > 0), (1, 0, true));
    assert!(!service.store.org(OrgId(966)).await.unwrap().unwrap().customers_join);
}

#[tokio::test]
async fn a_moved_mobile_takes_its_org_wide_identity_along() {
    let (table, service) = demo().await;
    service.apply(&indonesia()).await.unwrap();
    write_customer(&table, 5, &[("mobile", "62081234567890"), ("wechat", "o-1")]).await;
    joining::unmark(&table).await;
    // A version that wrote org-wide identities wrote this one under another phone number plan.
    put(
        &table,
        &[
            ("PK", AttributeValue::S("ORG#966#ID###mobile#62081234567890".to_owned())),
            ("SK", AttributeValue::S("ID".to_owned())),
            ("user_id", AttributeValue::N("5".to_owned())),
            ("accounts", AttributeValue::Ss(vec!["INSTORE:".to_owned()])),
        ],
    )
    .await;
    assert_eq!(upgrade(&service).await.changed, 1);
    let written = org_wide(&table).await;
    assert_eq!(joins(&written, "mobile#6281234567890"), (5, vec!["INSTORE:".to_owned()]));
    assert!(!written.contains_key("mobile#62081234567890"));
    check(&table).await;
}

#[tokio::test]
async fn a_change_of_the_org_keeps_the_mark() {
    let (table, service) = before_joining().await;
    let org = async || service.store.org(OrgId(966)).await.unwrap().unwrap();
    service.apply(&Definition { name: "Other Stores".to_owned(), ..demo_org() }).await.unwrap();
    assert!(!org().await.customers_join);
    upgrade(&service).await;
    service.apply(&demo_org()).await.unwrap();
    assert!(org().await.customers_join);
    check(&table).await;
}

#[tokio::test]
async fn another_upgrade_repairs_the_org_wide_identity_that_its_customer_gave_up() {
    let (table, service) = before_joining().await;
    upgrade(&service).await;
    let service = service.another_process();
    let url = "/v2/customers/2/changeIdentifier?source=INSTORE";
    let change = json!({
        "add": [{"type": "cuid", "value": "C1"}], "remove": [{"type": "mobile", "value": "9010000002"}],
    });
    assert_eq!(service.post(url, &change).await.status, 200);
    let everywhere = "/v2/customers/lookup?source=ALL&identifierName=mobile&identifierValue=9010000002";
    assert_eq!(service.get(everywhere).await.refusal(), (404, vec![8015]));
    let report = upgrade(&service).await;
    assert_eq!((report.org_wide, report.undecided.len()), (1, 0));
    assert_eq!(service.get(everywhere).await.json["entity"], USER + 1);
    let joined = joining::register(&service, "MARTJACK:SHOP", &[("mobile", "9010000002")]).await;
    assert_eq!(
        (&joined.json["createdId"], &joined.json["warnings"][0]["code"]),
        (&json!(USER + 1), &json!(8051))
    );
    check(&table).await;
}

#[tokio::test]
async fn an_upgrade_without_rights_fails_and_calls_no_customer_unreadable() {
    let (table, _service) = before_joining().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    for operation in ["TransactWriteItems", "BatchGetItem", "GetItem", "UpdateItem"] {
        faults.inject(move |called, _| (called == operation).then(|| Fault::error("AccessDeniedException")));
        let upgraded = service.store.upgrade(UpgradeOptions::default(), |_| ()).await;
        assert!(!upgraded.unwrap_err().is_corrupt(), "{operation}");
    }
    faults.clear();
    assert_eq!(upgrade(&service).await.unreadable.len(), 0);
}

/// Old customers with one account each, whom new processes register in further accounts while
/// several upgrades run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_upgrades_under_load_every_mobile_has_an_org_wide_identity() {
    let (table, service) = demo().await;
    for user in 1..=CUSTOMERS {
        let mobile = format!("9190100000{user:02}");
        write_customer(&table, user, &[("mobile", &mobile), ("cuid", &format!("C{user}"))]).await;
    }
    joining::unmark(&table).await;
    let upgrades: Vec<_> = (0..2)
        .map(|_| {
            let store = table.store();
            tokio::spawn(async move { store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap() })
        })
        .collect();
    // Half of the processes never see that the org is upgraded.
    let processes: Vec<TestService> = (0..4).map(|_| service.another_process()).collect();
    let work = |service: TestService, i: usize| async move {
        let user = i as u64 / 2 + 1;
        let service = if i.is_multiple_of(4) { service.another_process() } else { service };
        let mobile = format!("90100000{user:02}");
        if i.is_multiple_of(2) {
            return joining::register(&service, "MARTJACK:SHOP", &[("mobile", &mobile)]).await;
        }
        let url = format!("/v2/customers/{user}/changeIdentifier?source=INSTORE");
        let remove = json!({"remove": [{"type": "mobile", "value": mobile}]});
        let answer = service.post(&url, &remove).await;
        if user.is_multiple_of(3) {
            let back = json!({"add": [{"type": "mobile", "value": mobile}]});
            service.post(&url, &back).await;
        }
        answer
    };
    let answers = all_at_once(&processes, 2 * usize::try_from(CUSTOMERS).unwrap(), work).await;
    assert!(answers.iter().all(|answer| answer.status < 500), "{answers:?}");
    for upgrade in upgrades {
        upgrade.await.unwrap();
    }
    check(&table).await;
    upgrade(&service).await;
    check(&table).await;
    let (_, lists) = identities(&table).await;
    let wide = org_wide(&table).await;
    for (user, list) in &lists {
        for entry in list.as_array().unwrap().iter().filter(|entry| entry[1] == "mobile") {
            let (owner, _) = joins(&wide, &format!("mobile#{}", entry[2].as_str().unwrap()));
            assert!(owner <= user.parse().unwrap(), "{entry} belongs to {owner} and {user}");
        }
    }
}
