//! Concurrent requests for the same thing.

use std::{collections::HashSet, future::Future};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    common::{MOBILE, TestService, TestTable, USER, demo, demo_with},
    joining::{assert_consistent, profiles},
};

/// Four processes on one table.
pub fn processes(table: &TestTable) -> Vec<TestService> {
    (0..4).map(|_| table.service("store.server")).collect()
}

/// Runs `work` this many times concurrently, spread over `processes`.
pub async fn all_at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    processes: &[TestService],
    times: usize,
    work: impl Fn(TestService, usize) -> F,
) -> Vec<T> {
    let mut set = JoinSet::new();
    for i in 0..times {
        set.spawn(work(processes[i % processes.len()].clone(), i));
    }
    set.join_all().await
}

async fn card_numbers_of_64_callers(config: &str) -> Vec<String> {
    let (table, _service) = demo_with(config).await;
    let work = |service: TestService, _| async move {
        let mut numbers = Vec::new();
        for _ in 0..50 {
            numbers.push(service.card_number().await);
        }
        numbers
    };
    all_at_once(&processes(&table), 64, work).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_inc_gives_3200_consecutive_numbers() {
    let mut numbers = card_numbers_of_64_callers("").await;
    numbers.sort();
    let expected: Vec<String> = (0..3200).map(|i| (1_000_000_010_u64 + i).to_string()).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_gives_3200_numbers_without_a_repeat() {
    let config = "CONF_CARD_CHECKSUM_DIGIT_ALGO = \"RANDOM_LUHN\"\nCONF_CARD_NUMBER_OFFSET = 0\nCONF_CARD_NUMBER_LENGTH = 6";
    let numbers = card_numbers_of_64_callers(config).await;
    assert_eq!(numbers.len(), 3200);
    assert_eq!(numbers.into_iter().collect::<HashSet<_>>().len(), 3200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_numbers_of_a_range_are_given_once() {
    let (table, _service) = demo_with("CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 90").await;
    let work = |service: TestService, _| async move { service.get("/v2/cardNumber").await };
    let answers = all_at_once(&processes(&table), 40, work).await;
    let mut given: Vec<&str> = answers.iter().filter_map(|a| a.json["entity"].as_str()).collect();
    given.sort_unstable();
    assert_eq!(given, ["90", "91", "92", "93", "94", "95", "96", "97", "98", "99"]);
    assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_generates_exactly_10_succeed() {
    let (table, service) = demo().await;
    let work = |service: TestService, _| async move {
        let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
        service.post("/v2/otp/generate", &body).await
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    let ids: HashSet<u64> = answers.iter().filter_map(|a| a.json["createdId"].as_u64()).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 10);
    assert_eq!(answers.iter().filter(|a| a.status == 429).count(), 30);
    let mut found = 0;
    while service.fetch().await.status == 200 {
        assert!(service.is_right(&service.code().await).await);
        found += 1;
    }
    assert_eq!(found, 10, "every issued OTP must be stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_validates_with_the_right_code_exactly_one_is_true() {
    let (table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    let work = move |service: TestService, _| {
        let code = code.clone();
        async move { service.validate(&code).await }
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(answers.iter().filter(|a| a.json["entity"] == true).count(), 1);
    assert!(answers.iter().all(|a| a.status == 200 || a.status == 429), "{answers:?}");
    assert_eq!(
        answers.iter().filter(|a| a.json["entity"] == false).count(),
        5,
        "a consumed code counts as a wrong one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_wrong_codes_exactly_5_are_failed_attempts() {
    let (table, service) = demo().await;
    service.issue().await;
    let work = |service: TestService, i: usize| async move { service.validate(&format!("WRONG{i}")).await };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(answers.iter().filter(|a| a.json["entity"] == false).count(), 5);
    assert_eq!(answers.iter().filter(|a| a.status == 429).count(), 35);
}

#[tokio::test(flavor = "multi_thread")]
async fn among_concurrent_codes_the_right_one_is_true_at_most_once_and_5_are_failed_attempts() {
    for _ in 0..5 {
        let (table, service) = demo().await;
        service.issue().await;
        let right = service.code().await;
        let work = move |service: TestService, i: usize| {
            let code = if i.is_multiple_of(4) { right.clone() } else { format!("WRONG{i}") };
            async move { service.validate(&code).await }
        };
        let answers = all_at_once(&processes(&table), 40, work).await;
        assert!(answers.iter().filter(|a| a.json["entity"] == true).count() <= 1);
        assert_eq!(answers.iter().filter(|a| a.json["entity"] == false).count(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_20_concurrent_registrations_of_one_mobile_exactly_one_succeeds() {
    let (table, service) = demo().await;
    let work = |service: TestService, i: usize| async move {
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [
            {"type": "mobile", "value": "9010000022"}, {"type": "wechat", "value": format!("w{i}")},
        ]}]});
        service.post("/v2/customers", &body).await
    };
    let answers = all_at_once(&processes(&table), 20, work).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 19);
    let mut known = 0;
    for i in 0..20 {
        let url = format!("/v2/otp?source=INSTORE&wechat=w{i}&scope=POINTS");
        known += usize::from(service.get(&url).await.refusal().1 == [9001]);
    }
    assert_eq!(known, 1, "the refused registrations must leave nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_registrations_get_different_users_and_numbers() {
    let (table, service) = demo().await;
    let work = |service: TestService, i: usize| async move {
        let mobile = format!("90100000{i:02}");
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": mobile}]}]});
        let answer = service.post("/v2/customers", &body).await;
        answer.json["createdId"].as_u64().unwrap()
    };
    let users: HashSet<u64> = all_at_once(&processes(&table), 40, work).await.into_iter().collect();
    assert_eq!(users, (USER + 1..=USER + 40).collect());
    assert_eq!(service.card_number().await, "1000000050");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_registrations_that_join_in_one_account_exactly_one_succeeds() {
    let (table, service) = demo().await;
    for round in 0..15 {
        let email = format!("ann{round}@example.com");
        let body = |account: &str, cuid: Option<String>| {
            let mut identifiers = vec![json!({"type": "email", "value": email})];
            identifiers.extend(cuid.map(|cuid| json!({"type": "cuid", "value": cuid})));
            let (source, id) = account.split_once(':').unwrap();
            json!({"profiles": [{"source": source, "accountId": id, "identifiers": identifiers}]})
        };
        let known = service.post("/v2/customers", &body("INSTORE:", None)).await;
        let user = known.json["createdId"].as_u64().unwrap();
        // Half of the registrations are in one account, the others in another one.
        let accounts = ["WECHAT:WECHAT-API1", "MARTJACK:SHOP"];
        let bodies: Vec<_> = (0..8).map(|i| body(accounts[i % 2], Some(format!("{round}-{i}")))).collect();
        let work = move |service: TestService, i: usize| {
            let body = bodies[i].clone();
            async move { service.post("/v2/customers", &body).await }
        };
        let answers = all_at_once(&processes(&table), 8, work).await;
        let joined = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(joined, accounts.len(), "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(answer.refusal(), (409, vec![8006]), "{answer:?}");
        }
        let profiles = profiles(&service, user).await;
        let cuids = profiles.values().flatten().filter(|identifier| identifier.starts_with("cuid="));
        assert_eq!(cuids.count(), accounts.len(), "{profiles:?}");
    }
    assert_consistent(&table).await;
}
