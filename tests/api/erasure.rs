//! Erased customers: nothing of them stays, nobody can write to them afterwards, and an erasure
//! that is interrupted anywhere is finished by the next one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use loyalty_codes::{
    model::{
        customer::{IdentifierName, UserId},
        org::{Org, OrgId},
    },
    secret::os_rng,
    store::{CustomerState, ErasureStart, Store, UpgradeOptions},
};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::{sync::SetOnce, time::sleep};

use crate::{
    common::{MOBILE, TestService, TestTable, USER, demo, faults::killed_after_writes},
    guard::{request_for, sending},
    idempotency,
    joining::{INSTORE, WECHAT, assert_consistent, new_customer, register, unmark},
    races::{all_at_once, processes},
};

/// Everything personal that the demo customer has, as it is stored.
const VALUES: [&str; 7] =
    ["8799361139", "tom@example.com", "openid-1", "CARD-1", "Tom", "Hi user", "Validation Code"];

pub async fn org(service: &TestService) -> Org {
    service.store.org(OrgId(966)).await.unwrap().unwrap()
}

pub async fn begin(store: &Store, service: &TestService, user: u64) -> ErasureStart {
    store.begin_erasure(&org(service).await, UserId(user), service.clock.now()).await.unwrap()
}

/// Erases a customer with both sweeps.
pub async fn erase(service: &TestService, user: u64) -> usize {
    let ErasureStart::Begun(erasure) = begin(&service.store, service, user).await else {
        panic!("there is nothing to erase");
    };
    service.store.finish_erasure(&org(service).await, &erasure).await.unwrap()
}

/// All items that contain one of the values, as text.
async fn items_with(table: &TestTable, values: &[&str]) -> Vec<String> {
    let items = table.items("").await.into_iter().map(|item| format!("{item:?}"));
    items.filter(|item| values.iter().any(|value| item.contains(value))).collect()
}

/// The items of a customer's partition that are neither the tombstone nor a mark.
pub async fn written_after_the_tombstone(
    table: &TestTable,
    user: u64,
) -> Vec<HashMap<String, AttributeValue>> {
    let mut items = table.items("").await;
    items.retain(|item| {
        item["PK"].as_s().unwrap() == &format!("ORG#966#USER#{user}") && !item.contains_key("gone_at")
    });
    items
}

fn generate(kind: &str, value: &str, scope: &str, source: &str) -> Value {
    let mut body = request_for(kind, value, scope, &[("SMS", MOBILE), ("EMAIL", "tom@example.com")]);
    if source == "WECHAT" {
        body["source"] = "WECHAT".into();
        body["accountId"] = "WECHAT-API1".into();
    }
    body
}

/// Has the demo customer leave traces of every kind, and returns the codes that are stored.
async fn leave_traces(table: &TestTable, service: &TestService) -> Vec<String> {
    for (kind, value, scope, source) in [
        ("MOBILE", MOBILE, "POINTS", "INSTORE"),
        ("MOBILE", MOBILE, "COUPON", "WECHAT"),
        ("EMAIL", "tom@example.com", "GENERIC", "INSTORE"),
        ("MOBILE", MOBILE, "REGISTRATION", "INSTORE"),
        ("MOBILE", MOBILE, "REGISTRATION", "WECHAT"),
        ("WECHAT", "openid-1", "REGISTRATION", "WECHAT"),
        ("EXTERNAL_ID", "CARD-1", "REGISTRATION", "INSTORE"),
    ] {
        let body = generate(kind, value, scope, source);
        let answer = service.post("/v2/otp/generate", &body).await;
        assert_eq!(answer.status, 200, "{kind} {scope}: {answer:?}");
    }
    for route in ["/v2/otp/generate", "/v2/otp/validate"] {
        assert_eq!(idempotency::send(service, route, route, &idempotency::body(route)).await.status, 200);
    }
    let code = service.code().await;
    assert!(service.is_right(&code).await);
    let codes = table
        .items("OTP#")
        .await
        .into_iter()
        .filter_map(|item| Some(item.get("code")?.as_s().unwrap().clone()));
    codes.collect()
}

async fn with_traces() -> (TestTable, TestService, Vec<String>) {
    let (table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 20").await;
    let codes = leave_traces(&table, &service).await;
    (table, service, codes)
}

/// Panics unless nothing of the demo customer is left but what names the user id alone.
async fn assert_erased(table: &TestTable, service: &TestService, codes: &[String]) {
    let values: Vec<&str> = VALUES.into_iter().chain(codes.iter().map(String::as_str)).collect();
    assert_eq!(items_with(table, &values).await, Vec::<String>::new());
    let two_days = (service.clock.now() + TimeDelta::days(2)).timestamp() + 1;
    for item in table.items("").await {
        let key = item["PK"].as_s().unwrap().clone();
        if !format!("{item:?}").contains(&USER.to_string()) || key.contains("#COUNTER#") {
            continue;
        }
        let expires = item.get("expires_at").map(|at| at.as_n().unwrap().parse::<i64>().unwrap());
        let is_tombstone = item["SK"].as_s().unwrap() == "PROFILE" && item.contains_key("gone_at");
        assert!(is_tombstone || expires.is_some_and(|at| at <= two_days), "{item:?}");
        if is_tombstone {
            let names: BTreeSet<&str> = item.keys().map(String::as_str).collect();
            assert_eq!(names, BTreeSet::from(["PK", "SK", "gone_at", "user_id"]));
        }
    }
}

#[tokio::test]
async fn nothing_of_an_erased_customer_stays_but_ids() {
    let (table, service, codes) = with_traces().await;
    assert!(codes.len() >= 8, "{codes:?}");
    for value in VALUES.into_iter().chain(codes.iter().map(String::as_str)) {
        assert!(!items_with(&table, &[value]).await.is_empty(), "{value} was stored before");
    }
    let deleted = erase(&service, USER).await;
    assert!(deleted > 20, "{deleted}");
    assert_erased(&table, &service, &codes).await;
    assert!(matches!(begin(&service.store, &service, USER).await, ErasureStart::Erased(_)));
    assert!(matches!(begin(&service.store, &service, 5).await, ErasureStart::Unknown));
}

#[tokio::test]
async fn the_otp_of_another_contact_that_was_sent_to_the_customers_phone_is_that_contacts() {
    let (table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 20").await;
    let other = "9010000022";
    let body = request_for("MOBILE", other, "REGISTRATION", &[("SMS", MOBILE)]);
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    erase(&service, USER).await;
    let two_days = (service.clock.now() + TimeDelta::days(2)).timestamp();
    let left: Vec<_> =
        table.items("").await.into_iter().filter(|it| format!("{it:?}").contains(MOBILE)).collect();
    assert_eq!(left.len(), 1, "the counter of the address is deleted: {left:?}");
    assert!(
        left[0]["PK"].as_s().unwrap().contains(&format!("#CONTACT#INSTORE##mobile#91{other}")),
        "{left:?}"
    );
    assert!(left[0]["SK"].as_s().unwrap().starts_with("MESSAGE#"), "{left:?}");
    assert!(left[0]["expires_at"].as_n().unwrap().parse::<i64>().unwrap() <= two_days, "{left:?}");
    let fetched = service.get(&format!("/v2/otp?source=INSTORE&mobile={other}&scope=REGISTRATION")).await;
    assert_eq!(fetched.status, 200, "it is valid for the other contact");
}

#[tokio::test]
async fn requests_for_an_erased_customer_are_answered_as_for_an_unknown_one() {
    let (table, service, codes) = with_traces().await;
    let ErasureStart::Begun(erasure) = begin(&service.store, &service, USER).await else { panic!() };
    let change = json!({"add": [{"type": "cuid", "value": "C1"}]});
    for (value, user) in [(MOBILE, USER), ("9010000022", 5)] {
        let url =
            |route: &str| format!("{route}?source=INSTORE&identifierName=mobile&identifierValue={value}");
        for (answer, expected) in [
            (service.get(&format!("{}&scope=POINTS", url("/v2/otp"))).await, (404, vec![8015])),
            (
                service.post("/v2/otp/generate", &request_for("MOBILE", value, "POINTS", &[])).await,
                (404, vec![8015]),
            ),
            (service.get(&url("/v2/customers/lookup")).await, (404, vec![8015])),
            (service.get(&format!("/v2/customers/{user}")).await, (404, vec![8009])),
            (
                service.post(&format!("/v2/customers/{user}/changeIdentifier?source=INSTORE"), &change).await,
                (404, vec![8009]),
            ),
        ] {
            assert_eq!(answer.refusal(), expected, "{value}: {answer:?}");
        }
    }
    let by_number =
        service.get("/v2/customers/lookup?source=ALL&identifierName=externalId&identifierValue=CARD-1");
    assert_eq!(by_number.await.refusal(), (404, vec![8015]));
    // The person may come back, as another customer, and keeps what is stored from then on.
    let again = new_customer(&service, INSTORE, &[("mobile", MOBILE), ("externalId", "CARD-1")]).await;
    assert!(again > USER);
    let body = request_for("MOBILE", MOBILE, "REGISTRATION", &[("SMS", MOBILE)]);
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    service.issue().await;
    service.store.finish_erasure(&org(&service).await, &erasure).await.unwrap();
    assert_eq!(service.fetch().await.status, 200);
    assert_eq!(service.fetch().await.json["userId"], again);
    let contact = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=REGISTRATION");
    assert_eq!(service.get(&contact).await.status, 200, "it is the new customer's");
    let old: Vec<&str> = codes.iter().map(String::as_str).chain(["tom@example.com", "openid-1"]).collect();
    assert_eq!(items_with(&table, &old).await, Vec::<String>::new());
}

#[tokio::test]
async fn numbers_of_the_plan_are_never_given_again_and_others_are_free() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("cardnumber", "HAND-7")]).await;
    let number = "1000000010";
    let lookup =
        format!("/v2/customers/lookup?source=ALL&identifierName=externalId&identifierValue={number}");
    assert_eq!(service.get(&lookup).await.json["entity"], user);
    // Under another plan, the numbers of the earlier one stay.
    let mut luhn = crate::common::demo_org_with("CONF_CARD_CHECKSUM_DIGIT_ALGO = \"LUHN_ALGO\"");
    luhn.config.card_numbers.length = Some(12);
    service.apply(&luhn).await.unwrap();
    erase(&service, user).await;
    let values = ["9010000022", "HAND-7"];
    assert_eq!(items_with(&table, &values).await, Vec::<String>::new());
    let tombstone = format!("#ID###external_id#{number}");
    assert_eq!(items_with(&table, &[&tombstone]).await.len(), 1);
    assert_eq!(service.get(&lookup).await.refusal(), (404, vec![8015]));
    for kind in ["externalId", "cardnumber"] {
        let answer = register(&service, INSTORE, &[("mobile", "9010000033"), (kind, number)]).await;
        assert_eq!(answer.refusal(), (409, vec![8008]), "{answer:?}");
        let change = json!({"add": [{"type": kind, "value": number}]});
        let url = format!("/v2/customers/{USER}/changeIdentifier?source=INSTORE");
        assert_eq!(service.post(&url, &change).await.status, 409);
    }
    let mut guess = request_for("EXTERNAL_ID", number, "GENERIC", &[]);
    guess["code"] = "0000000".into();
    let guessed = service.post("/v2/otp/validate", &guess).await;
    assert_eq!((guessed.status, &guessed.json["entity"]), (200, &json!(false)), "as of any contact");
    let next = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("externalId", "HAND-7")]).await;
    assert!(next > user);
    let org = org(&service).await;
    let identifier = org.identifier(IdentifierName::ExternalId, number).unwrap();
    let search = service.store.search(&org, &identifier).await.unwrap();
    assert_eq!((search.erased, search.customers.len()), (Some(UserId(user)), 0));
    assert_consistent(&table).await;
}

#[tokio::test]
async fn what_belongs_to_another_customer_stays() {
    let (table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 20").await;
    unmark(&table).await;
    let service = service.another_process();
    let tom = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    let eve = new_customer(&service, WECHAT, &[("mobile", "9010000022")]).await;
    for scope in ["POINTS", "REGISTRATION"] {
        let mut body = request_for("MOBILE", "9010000022", scope, &[("SMS", "9010000022")]);
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
        body["source"] = "WECHAT".into();
        body["accountId"] = "WECHAT-API1".into();
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    }
    erase(&service, tom).await;
    for scope in ["POINTS", "REGISTRATION"] {
        let fetch = |place: &str| format!("/v2/otp?{place}&mobile=9010000022&scope={scope}");
        assert_eq!(service.get(&fetch("source=WECHAT&accountId=WECHAT-API1")).await.status, 200, "{scope}");
        assert_eq!(service.get(&fetch("source=INSTORE")).await.status, 404, "{scope}");
    }
    assert!(!items_with(&table, &["#RECIPIENT#mobile#919010000022"]).await.is_empty());
    let report = service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    assert_eq!((report.joining, report.unreadable.len(), report.org_wide), (vec![OrgId(966)], 0, 1));
    let joined = register(&service.another_process(), INSTORE, &[("mobile", "9010000022")]).await;
    assert_eq!(joined.json["createdId"], eve);
    assert_consistent(&table).await;
}

#[tokio::test]
async fn a_customer_with_the_most_identifiers_is_erased_wholly() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    let url = format!("/v2/customers/{user}/changeIdentifier?source=INSTORE");
    for chunk in 0..12 {
        let add: Vec<_> =
            (0..40).map(|i| json!({"type": "cuid", "value": format!("SECRET-{chunk}-{i}")})).collect();
        assert_eq!(service.post(&url, &json!({"add": add})).await.status, 200);
    }
    erase(&service, user).await;
    assert_eq!(items_with(&table, &["SECRET-", "9010000022"]).await, Vec::<String>::new());
    assert_consistent(&table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_at_any_write_is_finished_by_the_next_one() {
    let mut killed_at = Vec::new();
    for position in 0.. {
        let (table, service, codes) = with_traces().await;
        let (org, now) = (org(&service).await, service.clock.now());
        let completed = killed_after_writes(&table, position, |process| async move {
            let begun = process.store.begin_erasure(&org, UserId(USER), now).await.unwrap();
            let ErasureStart::Begun(erasure) = begun else { panic!("it was erased before") };
            process.store.finish_erasure(&org, &erasure).await.unwrap();
        })
        .await;
        if position == 0 {
            assert_eq!(service.fetch().await.refusal(), (404, vec![8015]), "the first write is the erasure");
        }
        match begin(&service.store, &service, USER).await {
            ErasureStart::Begun(erasure) => {
                assert!(!completed);
                service.store.finish_erasure(&self::org(&service).await, &erasure).await.unwrap();
            }
            ErasureStart::Erased(_) => {}
            other => panic!("{other:?}"),
        }
        assert_erased(&table, &service, &codes).await;
        if completed {
            break;
        }
        killed_at.push(position);
    }
    assert!(killed_at.len() > 20, "{killed_at:?}");
}

/// The time between two of the requests that race an act.
const STAGGER: Duration = Duration::from_millis(2);
/// How many requests race an act, and how many come after it.
pub const RACING: usize = 8;
pub const LATER: usize = 4;

/// Does `act` once while `requests` run on other processes, the last ones of them after it. Returns
/// the results of both.
pub async fn act_while<A, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    table: &TestTable,
    act: impl Future<Output = A> + Unpin,
    requests: impl Fn(TestService, usize) -> F,
) -> (A, Vec<T>) {
    let (processes, done) = (processes(table), Arc::new(SetOnce::new()));
    tokio::join!(
        async {
            // At another moment in each round.
            sleep(Duration::from_micros(os_rng().random_range(0..20_000))).await;
            let result = act.await;
            done.set(()).unwrap();
            result
        },
        all_at_once(&processes, RACING + LATER, |service, i| {
            let (request, done) = (requests(service, i), Arc::clone(&done));
            async move {
                match u32::try_from(i).unwrap() {
                    _ if i >= RACING => {
                        done.wait().await;
                    }
                    i => sleep(STAGGER * i).await,
                }
                request.await
            }
        }),
    )
}

/// Erases the demo customer while `requests` run on other processes, and returns their results.
/// Between the two sweeps, nothing may be in the customer's partition.
async fn erase_while<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    table: &TestTable,
    service: &TestService,
    requests: impl Fn(TestService, usize) -> F,
) -> Vec<T> {
    let org = org(service).await;
    let erasing = Box::pin(service.store.begin_erasure(&org, UserId(USER), service.clock.now()));
    let (erasure, results) = act_while(table, erasing, requests).await;
    let ErasureStart::Begun(erasure) = erasure.unwrap() else { panic!("there is nothing to erase") };
    assert_eq!(written_after_the_tombstone(table, USER).await, []);
    Box::pin(service.store.finish_erasure(&org, &erasure)).await.unwrap();
    results
}

pub const ROUNDS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_is_issued_to_a_customer_after_the_erasure() {
    let (mut before, mut after) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = sending("CONF_OTP_DAILY_LIMIT = 100").await;
        let work = |service: TestService, i: usize| async move {
            let scope = ["POINTS", "COUPON", "GENERIC"][i % 3];
            let body = generate("MOBILE", MOBILE, scope, "INSTORE");
            service.post("/v2/otp/generate", &body).await
        };
        for answer in erase_while(&table, &service, work).await {
            if answer.status == 200 {
                before += 1;
            } else {
                assert_eq!(answer.refusal(), (404, vec![8015]), "{answer:?}");
                after += 1;
            }
        }
        // An OTP for GENERIC is the contact's after the erasure, and deleted by the second sweep.
        assert_erased(&table, &service, &[]).await;
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_validation_writes_after_the_erasure() {
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        service.issue().await;
        let right = service.code().await;
        let work = move |service: TestService, i: usize| {
            let code = if i.is_multiple_of(3) { right.clone() } else { format!("WRONG{i}") };
            async move { service.validate(&code).await }
        };
        let answers = erase_while(&table, &service, work).await;
        assert!(answers.iter().filter(|answer| answer.json["entity"] == true).count() <= 1);
        for answer in answers {
            assert!([200, 404, 429].contains(&answer.status), "{answer:?}");
        }
        assert_erased(&table, &service, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_joins_before_the_erasure_or_makes_another_customer() {
    let (mut joined, mut new) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        let work = |service: TestService, i: usize| async move {
            let own = format!("OWN-{i}-");
            let identifiers = [("mobile", MOBILE), ("cuid", own.as_str())];
            let answer = register(&service, "WECHAT:WECHAT-API2", &identifiers).await;
            (own, answer)
        };
        let answers = erase_while(&table, &service, work).await;
        for (own, answer) in &answers {
            let kept = items_with(&table, &[own]).await;
            match answer.json["createdId"].as_u64() {
                Some(USER) => {
                    joined += 1;
                    assert_eq!(kept, Vec::<String>::new(), "it was erased, too");
                }
                Some(_) => {
                    new += 1;
                    assert!(!kept.is_empty(), "{answer:?}");
                }
                // Another one of them was registered in that account before.
                None => assert_eq!(answer.refusal(), (409, vec![8006]), "{answer:?}"),
            }
        }
        assert_eq!(
            items_with(&table, &["tom@example.com", "openid-1", "CARD-1"]).await,
            Vec::<String>::new()
        );
        assert_consistent(&table).await;
    }
    assert!(joined > 0 && new > 0, "{joined} joined, {new} new");
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_are_changed_before_the_erasure_or_not_at_all() {
    let (mut before, mut after) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        let work = |service: TestService, i: usize| async move {
            let change = json!({"add": [{"type": "email", "value": format!("added-{i}@example.com")}]});
            let url = format!("/v2/customers/{USER}/changeIdentifier?source=INSTORE");
            service.post(&url, &change).await
        };
        for answer in erase_while(&table, &service, work).await {
            match answer.status {
                200 => before += 1,
                404 => after += 1,
                _ => panic!("{answer:?}"),
            }
        }
        assert_eq!(items_with(&table, &["added-"]).await, Vec::<String>::new());
        assert_erased(&table, &service, &[]).await;
        assert_consistent(&table).await;
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[tokio::test]
async fn an_erased_customer_has_a_history_that_says_so() {
    let (_table, service) = demo().await;
    erase(&service, USER).await;
    let history = service.store.customer_history(&org(&service).await, UserId(USER)).await.unwrap().unwrap();
    let CustomerState::Gone(tombstone) = history.state else { panic!("it is erased") };
    assert_eq!((tombstone.gone_at, tombstone.merged_into), (service.clock.now(), None));
    assert!(history.own.is_empty(), "{:?}", history.own);
}
