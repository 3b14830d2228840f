//! Concurrent requests for OTPs, at the limits of an org. Each limit is exact.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;

use crate::{
    common::{Answer, MOBILE, TestService, demo_with},
    guard::{messages, request_for, sending},
    idempotency,
    races::{all_at_once, processes},
};

/// How many answers have each status.
fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for answer in answers {
        *statuses.entry(answer.status).or_default() += 1;
    }
    statuses
}

fn ids(answers: &[Answer]) -> HashSet<u64> {
    answers.iter().filter_map(|answer| answer.json["createdId"].as_u64()).collect()
}

async fn generate(service: TestService, action: &str) -> Answer {
    let body = request_for("MOBILE", MOBILE, action, &[("SMS", MOBILE)]);
    service.post("/v2/otp/generate", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_requests_within_a_cooldown_exactly_one_gets_an_otp() {
    for same in ["NEW", "SAME"] {
        let config = format!("CONF_OTP_COOLDOWN_SECONDS = 30\nCONF_OTP_REISSUE = \"{same}\"");
        let (table, service) = sending(&config).await;
        let work = |service: TestService, _| generate(service, "POINTS");
        let answers = all_at_once(&processes(&table), 40, work).await;
        assert_eq!(statuses(&answers), BTreeMap::from([(200, 1), (429, 39)]), "{same}");
        assert_eq!(service.issued_otps().await, 1);
        assert_eq!(messages(&table).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_requests_with_one_key_within_a_cooldown_all_get_the_same_otp() {
    let (table, service) = sending("CONF_OTP_COOLDOWN_SECONDS = 30").await;
    let work = |service: TestService, _| async move {
        let body = request_for("MOBILE", MOBILE, "POINTS", &[("SMS", MOBILE)]);
        idempotency::send(&service, "/v2/otp/generate", "key", &body).await
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 40)]));
    assert_eq!(ids(&answers).len(), 1);
    assert_eq!((service.issued_otps().await, messages(&table).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_hourly_limit_exactly_as_many_as_are_left_succeed() {
    let (table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 9\nCONF_OTP_DAILY_LIMIT = 1000").await;
    for _ in 0..3 {
        assert_eq!(generate(service.clone(), "POINTS").await.status, 200);
    }
    // Customers and contacts, in several scopes.
    let work = |service: TestService, i: usize| {
        generate(service, ["POINTS", "COUPON", "GENERIC", "REGISTRATION"][i % 4])
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 6), (429, 34)]));
    assert_eq!(messages(&table).await.len(), 9);
    assert!(answers.iter().filter(|answer| answer.status == 429).all(|answer| answer.retry_after() == 1800));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mobile_gets_a_days_otps_for_registration_once_and_not_in_each_account() {
    let (table, _service) = sending("").await;
    let accounts = [("INSTORE", ""), ("WECHAT", "WECHAT-API1"), ("WECHAT", "WECHAT-API2")];
    let work = |service: TestService, i: usize| async move {
        let (source, account) = accounts[i % 3];
        let mobile = ["9010000022", "+91 90100 00022"][i % 2];
        let mut body = request_for("MOBILE", mobile, "REGISTRATION", &[("SMS", mobile)]);
        (body["source"], body["accountId"]) = (json!(source), json!(account));
        service.post("/v2/otp/generate", &body).await
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 10), (429, 30)]));
    assert_eq!(messages(&table).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_requests_that_send_the_same_otp_there_is_one_code_and_a_message_for_each_that_is_allowed() {
    let (table, service) = sending("CONF_OTP_REISSUE = \"SAME\"\nCONF_OTP_DAILY_LIMIT = 8").await;
    let work = |service: TestService, _| generate(service, "POINTS");
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert_eq!(statuses(&answers), BTreeMap::from([(200, 8), (429, 32)]));
    let ids = ids(&answers);
    assert_eq!((ids.len(), service.issued_otps().await), (1, 1));
    let code = service.code().await;
    let found = messages(&table).await;
    let keys: Vec<&str> = found.iter().map(|message| message.sk.as_str()).collect();
    let expected: Vec<String> = (1..=8)
        .map(|send| format!("MESSAGE#POINTS#{:0>16}#{send:0>5}", ids.iter().next().unwrap()))
        .collect();
    assert_eq!(keys, expected);
    assert!(found.iter().all(|message| message.text.contains(&code)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_otp_that_is_used_at_the_same_moment_is_right_once_and_not_sent_again_afterwards() {
    for _ in 0..5 {
        let (table, service) = demo_with("CONF_OTP_REISSUE = \"SAME\"\nCONF_OTP_DAILY_LIMIT = 100").await;
        let first = service.issue().await;
        let code = service.code().await;
        let typed = code.clone();
        let work = move |service: TestService, i: usize| {
            let code = typed.clone();
            async move {
                match i % 4 {
                    0 => service.validate(&code).await,
                    _ => generate(service, "POINTS").await,
                }
            }
        };
        let answers = all_at_once(&processes(&table), 20, work).await;
        assert_eq!(answers.iter().filter(|answer| answer.json["entity"] == true).count(), 1);
        let ids = ids(&answers);
        assert!(ids.len() <= 2 && answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let next = service.issue().await;
        assert_ne!(next, first, "the used one");
        assert!(ids.iter().all(|id| [first, next].contains(id)), "{ids:?}, then {next}");
        assert_ne!(service.code().await, code);
    }
}
