//! Registrations of customers who are known from another source or account.

use std::collections::{BTreeMap, HashSet};

use aws_sdk_dynamodb::types::AttributeValue;
use loyalty_codes::{model::org::OrgId, store::keys};
use serde_json::{Value, json};

use crate::{
    common::{Answer, MOBILE, TestService, TestTable, USER, demo},
    races::{all_at_once, processes},
};

pub const WECHAT: &str = "WECHAT:WECHAT-API1";
pub const INSTORE: &str = "INSTORE:";
const WECHAT_2: &str = "WECHAT:WECHAT-API2";
const ACCOUNTS: [&str; 4] = [INSTORE, WECHAT, WECHAT_2, "MARTJACK:SHOP"];

/// Identifiers as a body has them.
pub fn list(identifiers: &[(&str, &str)]) -> Value {
    identifiers.iter().map(|(name, value)| json!({"type": name, "value": value})).collect()
}

/// A profile in an account, such as `INSTORE:`.
fn profile(account: &str, identifiers: &[(&str, &str)]) -> Value {
    let (source, id) = account.split_once(':').unwrap();
    json!({"source": source, "accountId": id, "identifiers": list(identifiers)})
}

pub async fn register(service: &TestService, account: &str, identifiers: &[(&str, &str)]) -> Answer {
    service.post("/v2/customers", &json!({"profiles": [profile(account, identifiers)]})).await
}

/// Registers a new customer, and returns the user id.
pub async fn new_customer(service: &TestService, account: &str, identifiers: &[(&str, &str)]) -> u64 {
    let answer = register(service, account, identifiers).await;
    assert_eq!((answer.status, &answer.json["warnings"]), (200, &json!([])), "{answer:?}");
    answer.json["createdId"].as_u64().unwrap()
}

/// Panics unless a registration joined `user`.
fn assert_joined(answer: &Answer, user: u64) {
    let message =
        format!("Same identifier found in other source. Merging into the account with user id {user}");
    let warnings = json!([{"status": false, "code": 8051, "message": message}]);
    assert_eq!(answer.json, json!({"createdId": user, "sideEffects": [], "warnings": warnings}));
}

/// Panics unless a registration was refused with 8006 and this id.
fn assert_exists(answer: &Answer, user: u64) {
    assert_eq!(answer.refusal(), (409, vec![8006]));
    let message = format!("Add failed, Customer already exists with id {user} for same source");
    assert_eq!(answer.json["errors"][0]["message"], message.as_str());
}

/// The identifiers of each profile of a customer, as `type=value`, by account.
pub async fn profiles(service: &TestService, user: u64) -> BTreeMap<String, Vec<String>> {
    let answer = service.get(&format!("/v2/customers/{user}?source=INSTORE")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let profile = |profile: &Value| {
        let identifiers = profile["identifiers"].as_array().unwrap().iter();
        let mut identifiers: Vec<String> =
            identifiers.map(|one| format!("{}={}", text(&one["type"]), text(&one["value"]))).collect();
        identifiers.sort();
        (format!("{}:{}", text(&profile["source"]), text(&profile["accountId"])), identifiers)
    };
    answer.json["profiles"].as_array().unwrap().iter().map(profile).collect()
}

/// Panics unless the identity items are those that the customers list, and each points at one
/// customer. Returns how many identity items there are.
pub async fn assert_consistent(table: &TestTable) -> usize {
    let items = table.client().scan().table_name(table.name()).send().await.unwrap();
    assert!(items.last_evaluated_key.is_none());
    let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
    // Tombstones of customers and of their numbers identify nobody.
    for item in items.items.unwrap().into_iter().filter(|item| !item.contains_key("gone_at")) {
        let text = |name: &str| item[name].as_s().unwrap().clone();
        let user = || item["user_id"].as_n().unwrap().clone();
        if text("SK") == "ID" {
            let accounts = item.get("accounts").map_or_else(HashSet::new, |accounts| {
                accounts.as_ss().unwrap().iter().cloned().collect::<HashSet<String>>()
            });
            found.insert(text("PK"), (user(), accounts));
        } else if text("SK") == "PROFILE" {
            let identifiers: Vec<(Option<String>, String, String)> =
                serde_json::from_str(&text("identifiers")).unwrap();
            assert!(!identifiers.is_empty());
            for (account, name, value) in identifiers {
                let place = account.as_ref().map_or("#".to_owned(), |account| account.replace(':', "#"));
                let space = if name == "cardnumber" { "external_id" } else { &name };
                let key = format!("ORG#966#ID#{place}#{space}#{value}");
                let earlier = expected.insert(key, (user(), HashSet::new()));
                assert!(earlier.is_none_or(|(owner, _)| owner == user()), "{value} belongs to two customers");
                if name == "mobile" || name == "email" {
                    let key = format!("ORG#966#ID###{name}#{value}");
                    let (owner, accounts) = expected.entry(key).or_insert_with(|| (user(), HashSet::new()));
                    assert_eq!(*owner, user(), "{value} belongs to two customers");
                    accounts.insert(account.unwrap());
                }
            }
        }
    }
    assert_eq!(found, expected);
    found.len()
}

/// Makes the demo org one whose org-wide identities are not all written, as an earlier version left
/// it.
pub async fn unmark(table: &TestTable) {
    let update = table.client().update_item().table_name(table.name());
    let update = update.set_key(Some(keys::org(OrgId(966)).attributes()));
    update.update_expression("REMOVE customers_join").send().await.unwrap();
}

/// Deletes the org-wide identities, which an earlier version did not write.
pub async fn delete_org_wide(table: &TestTable) {
    let items = table.client().scan().table_name(table.name()).send().await.unwrap().items.unwrap();
    for item in items.iter().filter(|item| item.contains_key("accounts")) {
        let delete = table.client().delete_item().table_name(table.name());
        delete.key("PK", item["PK"].clone()).key("SK", item["SK"].clone()).send().await.unwrap();
    }
}

#[tokio::test]
async fn a_mobile_or_an_email_of_another_account_joins_its_customer() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("email", "a@example.com")]).await;
    let joined = register(&service, WECHAT, &[("mobile", "+919010000022"), ("wechat", "o-1")]).await;
    assert_joined(&joined, user);
    let joined = register(&service, WECHAT_2, &[("email", "A@example.com"), ("mobile", "9010000033")]).await;
    assert_joined(&joined, user);
    let number = "externalId=1000000010".to_owned();
    let expected = [
        (INSTORE, vec!["email=a@example.com", "mobile=919010000022"]),
        (WECHAT, vec!["mobile=919010000022", "wechat=o-1"]),
        (WECHAT_2, vec!["email=a@example.com", "mobile=919010000033"]),
    ];
    let expected = expected.map(|(account, mut identifiers)| {
        identifiers.insert(1, &number);
        identifiers.sort_unstable();
        (account.to_owned(), identifiers.into_iter().map(str::to_owned).collect())
    });
    assert_eq!(profiles(&service, user).await, BTreeMap::from(expected));
    assert_eq!(service.card_number().await, "1000000011", "one person has one card");
    assert_consistent(&table).await;

    // One person, one quota: the OTPs are the same by every identifier.
    let issue = json!({"entityType": "WECHAT", "entityValue": "o-1", "action": "POINTS", "source": "WECHAT",
        "accountId": "WECHAT-API1"});
    assert_eq!(service.post("/v2/otp/generate", &issue).await.status, 200);
    let fetched = service.get("/v2/otp?source=INSTORE&mobile=9010000022&scope=POINTS").await;
    assert_eq!(fetched.json["userId"], user);
}

#[tokio::test]
async fn a_profile_in_an_account_of_the_customer_is_extended() {
    let (table, service) = demo().await;
    let named = |first: &str, last: &str, account: &str, identifiers: &[(&str, &str)]| {
        let mut profile = profile(account, identifiers);
        profile["firstName"] = first.into();
        profile["lastName"] = last.into();
        json!({"profiles": [profile]})
    };
    let first = named("Tom", "", WECHAT, &[("wechat", "o-1"), ("email", "a@example.com")]);
    let user = service.post("/v2/customers", &first).await.json["createdId"].as_u64().unwrap();
    assert_joined(
        &register(&service, INSTORE, &[("email", "a@example.com"), ("mobile", "9010000022")]).await,
        user,
    );
    let again = named("Thomas", "Sawyer", WECHAT, &[("wechat", "o-2"), ("mobile", "9010000022")]);
    assert_joined(&service.post("/v2/customers", &again).await, user);
    let details = service.get(&format!("/v2/customers/{user}")).await.json;
    let wechat = &details["profiles"][0];
    assert_eq!((&wechat["firstName"], &wechat["lastName"]), (&json!("Tom"), &json!("Sawyer")));
    assert_eq!(details["profiles"].as_array().unwrap().len(), 2);
    let identifiers = profiles(&service, user).await[WECHAT].clone();
    assert_eq!(
        identifiers,
        ["email=a@example.com", "externalId=1000000010", "mobile=919010000022", "wechat=o-1", "wechat=o-2"]
    );
    assert_consistent(&table).await;
}

#[tokio::test]
async fn the_external_id_of_a_joined_customer_stays() {
    let (table, service) = demo().await;
    let mobile = ("mobile", "9010000022");
    let user = new_customer(&service, INSTORE, &[mobile, ("externalId", "X1")]).await;
    let other = register(&service, WECHAT, &[mobile, ("externalId", "X2")]).await;
    assert_eq!(other.refusal(), (409, vec![8008]));
    assert_joined(&register(&service, WECHAT, &[mobile, ("externalId", "X1")]).await, user);
    assert_eq!(service.card_number().await, "1000000010", "no number was spent");
    assert_consistent(&table).await;
}

#[tokio::test]
async fn a_joined_customer_without_an_external_id_gets_the_next_one() {
    let (table, service) = demo().await;
    let mobile = ("mobile", "9010000022");
    let user = new_customer(&service, WECHAT_2, &[mobile]).await;
    assert_joined(&register(&service, INSTORE, &[mobile]).await, user);
    assert!(profiles(&service, user).await[WECHAT_2].contains(&"externalId=1000000010".to_owned()));
    assert_consistent(&table).await;
}

#[tokio::test]
async fn identifiers_of_different_customers_are_refused_and_nothing_is_written() {
    let (table, service) = demo().await;
    let a = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("cardnumber", "K1")]).await;
    let b = new_customer(&service, INSTORE, &[("email", "b@example.com"), ("cuid", "C1")]).await;
    let before = assert_consistent(&table).await;
    let (mobile, email) = (("mobile", "9010000022"), ("email", "b@example.com"));
    assert_eq!(register(&service, WECHAT, &[mobile, email]).await.refusal(), (409, vec![8053]));
    assert_eq!(register(&service, WECHAT, &[email, ("cardnumber", "K1")]).await.refusal(), (409, vec![8053]));
    assert_eq!(register(&service, INSTORE, &[mobile, email]).await.refusal(), (409, vec![8008]));
    assert_exists(&register(&service, INSTORE, &[mobile, ("cuid", "C2")]).await, a);
    assert_exists(&register(&service, INSTORE, &[email, ("cuid", "C1")]).await, b);
    assert_exists(&register(&service, WECHAT, &[("externalId", "K1")]).await, a);
    // One of them in the account of the request, and one elsewhere.
    let c = new_customer(&service, WECHAT, &[("email", "c@example.com")]).await;
    let of_both = register(&service, INSTORE, &[mobile, ("email", "c@example.com")]).await;
    assert_eq!(of_both.refusal(), (409, vec![8053]));
    assert_exists(&register(&service, WECHAT, &[("email", "c@example.com")]).await, c);
    let before = before + 3;
    assert_eq!(assert_consistent(&table).await, before);
    let next = register(&service, INSTORE, &[("mobile", "9010000044")]).await;
    assert_eq!(next.json["createdId"], c + 1, "no user id was spent");
}

#[tokio::test]
async fn one_request_may_have_the_same_person_in_several_accounts() {
    let (table, service) = demo().await;
    let one =
        |account: &str| profile(account, &[("mobile", "9010000022"), ("cuid", "C1"), ("externalId", "X1")]);
    let body = json!({"profiles": [one(INSTORE), one(WECHAT), one(WECHAT)]});
    let answer = service.post("/v2/customers", &body).await;
    assert_eq!((answer.status, &answer.json["warnings"]), (200, &json!([])));
    let user = answer.json["createdId"].as_u64().unwrap();
    assert_eq!(profiles(&service, user).await.len(), 2);
    assert_consistent(&table).await;
}

#[tokio::test]
async fn customers_of_an_org_that_is_not_upgraded_do_not_join() {
    let (table, service) = demo().await;
    unmark(&table).await;
    let service = service.another_process();
    let mobile = ("mobile", "9010000022");
    let user = new_customer(&service, INSTORE, &[mobile]).await;
    assert_eq!(new_customer(&service, WECHAT, &[mobile]).await, user + 1);
    assert_exists(&register(&service, WECHAT, &[mobile]).await, user + 1);
    assert_exists(&register(&service, INSTORE, &[mobile]).await, user);
    // A lookup finds each customer in the account, and elsewhere the one who has the org-wide
    // identity.
    let lookup = |source: &str| {
        format!("/v2/customers/lookup?{source}&identifierName=mobile&identifierValue=9010000022")
    };
    assert_eq!(service.get(&lookup("source=INSTORE")).await.json["entity"], user);
    let wechat = service.get(&lookup("source=WECHAT&accountId=WECHAT-API1")).await;
    assert_eq!(wechat.json["entity"], user + 1);
    assert_eq!(service.get(&lookup("source=ALL")).await.json["entity"], user);
    let elsewhere = service.get(&lookup("source=WECHAT&accountId=WECHAT-API2")).await;
    assert_eq!(elsewhere.refusal(), (404, vec![8065]));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_register_one_mobile_at_once_make_one_customer() {
    let (table, service) = demo().await;
    for round in 0..10 {
        let mobile = format!("90100001{round:02}");
        let work = move |service: TestService, i: usize| {
            let mobile = mobile.clone();
            async move {
                let own = format!("C-{round}-{i}");
                register(&service, ACCOUNTS[i % 4], &[("mobile", &mobile), ("cuid", &own)]).await
            }
        };
        let answers = all_at_once(&processes(&table), 4, work).await;
        let user = answers[0].json["createdId"].as_u64().unwrap();
        let new = answers.iter().filter(|answer| answer.json["warnings"] == json!([])).count();
        assert_eq!(new, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.json["createdId"] == user), "{answers:?}");
        assert_eq!(profiles(&service, user).await.len(), 4);
    }
    assert_consistent(&table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_joined_by_many_at_once() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("email", "a@example.com")]).await;
    let work = |service: TestService, i: usize| async move {
        let known = if i.is_multiple_of(2) { ("mobile", "9010000022") } else { ("email", "a@example.com") };
        register(&service, ACCOUNTS[1 + i % 3], &[known, ("cuid", &format!("C{i}"))]).await
    };
    let answers = all_at_once(&processes(&table), 6, work).await;
    for answer in &answers {
        assert_joined(answer, user);
    }
    assert_eq!(
        profiles(&service, user).await.values().flatten().filter(|one| one.starts_with("cuid")).count(),
        6
    );
    assert_consistent(&table).await;
}

#[tokio::test]
async fn a_new_profile_says_when_and_by_which_till_it_was_made() {
    let (_table, service) = demo().await;
    let details = service.get(&format!("/v2/customers/{USER}?source=INSTORE")).await.json;
    let expected = json!({
        "createDate": "2026-11-21T10:00:00+05:30",
        "createdBy": {"code": "store.server", "name": "store.server", "type": "TILL"},
    });
    for profile in details["profiles"].as_array().unwrap() {
        assert_eq!(profile["attribution"], expected);
    }
}

#[tokio::test]
async fn a_profile_of_an_earlier_version_has_no_attribution() {
    let (table, service) = demo().await;
    let old = r#"[{"account":"INSTORE:","first_name":"Tom","last_name":null}]"#;
    let update = table.client().update_item().table_name(table.name());
    let key = keys::profile(OrgId(966), loyalty_codes::model::customer::UserId(USER)).attributes();
    let update = update.set_key(Some(key)).update_expression("SET profiles = :old");
    update.expression_attribute_values(":old", AttributeValue::S(old.to_owned())).send().await.unwrap();
    let details = service.get(&format!("/v2/customers/{USER}")).await;
    assert_eq!((details.status, &details.json["profiles"][0]["attribution"]), (200, &Value::Null));
    // Such a customer is joined as any other is.
    assert_joined(&register(&service, WECHAT_2, &[("mobile", MOBILE)]).await, USER);
}
