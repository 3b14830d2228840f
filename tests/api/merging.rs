//! Customers who are merged into others.

use std::time::Duration;

use chrono::TimeDelta;
use loyalty_codes::{
    model::{customer::UserId, org::OrgId},
    secret::os_rng,
    store::{Merge, MergeError, MergeRefusal, MergedUsers, UpgradeOptions},
};
use rand::RngExt;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    common::{MOBILE, TestService, USER, demo, faults::killed_after_writes},
    erasure::{LATER, RACING, ROUNDS, act_while, erase, org, written_after_the_tombstone},
    guard::{request_for, sending},
    joining::{INSTORE, WECHAT, assert_consistent, new_customer, profiles, register, unmark},
};

pub async fn merge(
    service: &TestService,
    kept: u64,
    merged: u64,
    as_card_number: bool,
) -> Result<Merge, MergeRefusal> {
    let users = MergedUsers { kept: UserId(kept), merged: UserId(merged) };
    let now = service.clock.now();
    match service.store.merge_customers(&org(service).await, users, as_card_number, now).await {
        Ok(merged) => Ok(merged),
        Err(MergeError::Refused(refusal)) => Err(refusal),
        Err(MergeError::Store(error)) => panic!("{error:?}"),
    }
}

async fn issue_with_message(service: &TestService) {
    let body = request_for("MOBILE", MOBILE, "POINTS", &[("SMS", MOBILE)]);
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
}

#[tokio::test]
async fn a_merged_customer_is_found_as_the_one_who_stays() {
    let (table, service) = demo().await;
    let a = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("externalId", "X1")]).await;
    let b = new_customer(
        &service,
        WECHAT,
        &[("email", "b@example.com"), ("wechat", "o-1"), ("externalId", "X2")],
    )
    .await;
    // Of these two, 8053 says that they are different customers.
    let both = [("mobile", "9010000022"), ("email", "b@example.com")];
    assert_eq!(register(&service, "WECHAT:WECHAT-API2", &both).await.refusal(), (409, vec![8053]));
    let refusal = merge(&service, a, b, false).await;
    let Err(MergeRefusal::Combine(_)) = refusal else { panic!("{refusal:?}") };
    assert_eq!(service.get(&format!("/v2/customers/{b}")).await.status, 200, "nothing was written");

    assert_eq!(merge(&service, a, b, true).await, Ok(Merge::Done { identifiers: 3, names_kept: Vec::new() }));
    let found = profiles(&service, a).await;
    let cards = ["cardnumber=X2".to_owned(), "externalId=X1".to_owned()];
    assert_eq!(found[INSTORE], [&cards[..], &["mobile=919010000022".to_owned()]].concat());
    let wechat = ["email=b@example.com".to_owned(), "wechat=o-1".to_owned()];
    assert_eq!(found[WECHAT], [&cards[..1], &wechat[..1], &cards[1..], &wechat[1..]].concat());
    assert_eq!(service.get(&format!("/v2/customers/{b}")).await.refusal(), (404, vec![8009]));
    let lookup = "/v2/customers/lookup?source=ALL&identifierName=externalId&identifierValue=X2";
    assert_eq!(service.get(lookup).await.json["entity"], a);
    assert_eq!(register(&service, "WECHAT:WECHAT-API2", &both).await.json["createdId"], a);
    assert_consistent(&table).await;
    assert_eq!(merge(&service, a, b, true).await, Ok(Merge::DoneBefore(service.clock.now())));
    assert_eq!(merge(&service, b, a, true).await, Err(MergeRefusal::Merged(UserId(b), UserId(a))));
    assert_eq!(merge(&service, a, a, true).await, Err(MergeRefusal::Same));
    assert_eq!(merge(&service, a, 5, true).await, Err(MergeRefusal::Unknown(UserId(5))));
    erase(&service, a).await;
    let again = new_customer(&service, INSTORE, &both).await;
    assert_eq!(merge(&service, a, again, false).await, Err(MergeRefusal::Erased(UserId(a))));
}

#[tokio::test]
async fn the_otps_of_a_merged_customer_are_deleted_and_the_tills_issue_to_the_other_one() {
    let (table, service) = sending("").await;
    issue_with_message(&service).await;
    let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    assert!(matches!(merge(&service, a, USER, true).await, Ok(Merge::Done { .. })));
    assert_eq!(service.fetch().await.refusal().0, 404);
    assert_eq!(table.items("MESSAGE#").await.len(), 0);
    service.issue().await;
    assert_eq!(service.fetch().await.json["userId"], a);
    assert_eq!(service.fetch().await.json["code"].as_str().map(str::len), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_killed_at_any_write_is_finished_by_the_next_one() {
    let mut killed_at = Vec::new();
    for position in 0.. {
        let (table, service) = sending("").await;
        issue_with_message(&service).await;
        issue_with_message(&service).await;
        assert!(!service.is_right("WRONG").await);
        let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
        let completed = killed_after_writes(&table, position, |process| async move {
            assert!(matches!(merge(&process, a, USER, true).await, Ok(Merge::Done { .. })));
        })
        .await;
        assert_eq!(service.fetch().await.refusal(), (404, vec![9001]), "no old OTP is the other one's");
        assert_eq!(merge(&service, a, USER, true).await, Ok(Merge::DoneBefore(service.clock.now())));
        assert_eq!(table.items("MESSAGE#").await.len(), 0);
        assert_eq!(written_after_the_tombstone(&table, USER).await, []);
        assert_consistent(&table).await;
        // Two mobiles, an e-mail address, a WeChat id, the number that was generated, and CARD-1.
        assert_eq!(profiles(&service, a).await[INSTORE].len(), 6, "all identifiers");
        if completed {
            break;
        }
        killed_at.push(position);
    }
    assert!(killed_at.len() > 4, "{killed_at:?}");
}

#[tokio::test]
async fn customers_whom_an_upgrade_lists_are_merged() {
    let (table, service) = demo().await;
    unmark(&table).await;
    let service = service.another_process();
    let mobile = ("mobile", "9010000022");
    let a = new_customer(&service, INSTORE, &[mobile]).await;
    let b = new_customer(&service, WECHAT, &[mobile, ("externalId", "X2")]).await;
    let report = service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    assert_eq!(report.undecided.len(), 1, "{report:?}");
    assert!(matches!(merge(&service, a, b, true).await, Ok(Merge::Done { .. })));
    let report = service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    assert_eq!((report.undecided.len(), report.unreadable.len(), report.org_wide), (0, 0, 0));
    assert_consistent(&table).await;
    let joined = register(&service.another_process(), "MARTJACK:SHOP", &[mobile]).await;
    assert_eq!(joined.json["createdId"], a);
    assert_eq!(service.store.org(OrgId(966)).await.unwrap().unwrap().id(), OrgId(966));
}

#[tokio::test(flavor = "multi_thread")]
async fn otps_for_a_merged_customer_are_issued_before_or_reach_the_other_one() {
    let (mut before, mut after) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = sending("CONF_OTP_DAILY_LIMIT = 100").await;
        let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
        let generate = |service: TestService, _| async move {
            let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
            service.post("/v2/otp/generate", &body).await
        };
        let merging = Box::pin(merge(&service, a, USER, true));
        let (merged, answers) = act_while(&table, merging, generate).await;
        assert!(matches!(merged, Ok(Merge::Done { .. })), "{merged:?}");
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(written_after_the_tombstone(&table, USER).await, []);
        // Those that are stored were issued to the other one, and can be used.
        let mut reached = 0;
        loop {
            let found = service.fetch().await;
            if found.status != 200 {
                break;
            }
            assert_eq!(found.json["userId"], a);
            assert!(service.is_right(found.json["code"].as_str().unwrap()).await);
            reached += 1;
        }
        assert!(reached >= LATER, "{reached} of those after the merge");
        after += reached;
        before += answers.len() - reached;
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_that_race_a_merge_join_one_of_the_two() {
    let (mut before, mut after) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
        // The first one that joins is the only one, so a single one races the merge.
        let join = |service: TestService, i: usize| async move {
            if (1..RACING).contains(&i) {
                return None;
            }
            if i == 0 {
                sleep(Duration::from_micros(os_rng().random_range(0..40_000))).await;
            }
            let own = format!("C{i}");
            let answer =
                register(&service, "WECHAT:WECHAT-API2", &[("mobile", MOBILE), ("cuid", &own)]).await;
            Some((own, answer))
        };
        let merging = Box::pin(merge(&service, a, USER, true));
        let (merged, answers) = act_while(&table, merging, join).await;
        assert!(matches!(merged, Ok(Merge::Done { .. })), "{merged:?}");
        let own = profiles(&service, a).await;
        for (cuid, answer) in answers.into_iter().flatten() {
            match answer.json["createdId"].as_u64() {
                Some(user) if user == USER => before += 1,
                Some(user) if user == a => after += 1,
                // Another one of them was registered in that account before.
                None => {
                    assert_eq!(answer.refusal(), (409, vec![8006]), "{answer:?}");
                    continue;
                }
                user => panic!("{user:?} is neither"),
            }
            let listed = own.values().flatten().any(|listed| *listed == format!("cuid={cuid}"));
            assert!(listed, "{cuid} is the other one's now: {own:?}");
        }
        assert_consistent(&table).await;
        assert_eq!(written_after_the_tombstone(&table, USER).await, []);
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[tokio::test]
async fn names_that_differ_in_one_account_are_those_of_the_customer_who_stays() {
    let (_table, service) = demo().await;
    let profile = |name: &str, mobile: &str| json!({"profiles": [{"source": "INSTORE", "firstName": name, "identifiers": [{"type": "mobile", "value": mobile}]}]});
    let new = async |body| service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap();
    let a = new(profile("Ann", "9010000022")).await;
    let b = new(profile("Anna", "9010000033")).await;
    service.clock.advance(TimeDelta::seconds(1));
    let Ok(Merge::Done { names_kept, .. }) = merge(&service, a, b, true).await else { panic!() };
    assert_eq!(names_kept.len(), 1);
    let details = service.get(&format!("/v2/customers/{a}")).await.json;
    assert_eq!(details["profiles"][0]["firstName"], "Ann");
}
