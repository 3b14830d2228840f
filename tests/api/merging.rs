//! Customers who are merged into others.

use chrono::TimeDelta;
use loyalty_codes::{
    model::{customer::UserId, org::OrgId},
    store::{Merge, MergeRefusal, MergedUsers, UpgradeOptions},
};
use serde_json::json;

use crate::{
    common::{MOBILE, TestService, USER, demo, faults::killed_after_writes},
    erasure::{erase, org, written_after_the_tombstone},
    guard::sending,
    joining::{INSTORE, WECHAT, assert_consistent, new_customer, profiles, register, unmark},
    races::{all_at_once, processes},
};

pub async fn merge(service: &TestService, kept: u64, merged: u64, as_card_number: bool) -> Merge {
    let users = MergedUsers { kept: UserId(kept), merged: UserId(merged) };
    let now = service.clock.now();
    service.store.merge_customers(&org(service).await, users, as_card_number, now).await.unwrap()
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
    let Merge::Refused(MergeRefusal::Combine(_)) = refusal else { panic!("{refusal:?}") };
    assert_eq!(service.get(&format!("/v2/customers/{b}")).await.status, 200, "nothing was written");

    assert_eq!(merge(&service, a, b, true).await, Merge::Done { identifiers: 3, names_kept: Vec::new() });
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
    assert_eq!(merge(&service, a, b, true).await, Merge::DoneBefore(service.clock.now()));
    assert_eq!(merge(&service, b, a, true).await, Merge::Refused(MergeRefusal::Merged(UserId(b), UserId(a))));
    assert_eq!(merge(&service, a, a, true).await, Merge::Refused(MergeRefusal::Same));
    assert_eq!(merge(&service, a, 5, true).await, Merge::Refused(MergeRefusal::Unknown(UserId(5))));
    erase(&service, a).await;
    let again = new_customer(&service, INSTORE, &both).await;
    assert_eq!(merge(&service, a, again, false).await, Merge::Refused(MergeRefusal::Erased(UserId(a))));
}

#[tokio::test]
async fn the_otps_of_a_merged_customer_are_deleted_and_the_tills_issue_to_the_other_one() {
    let (table, service) = sending("").await;
    service.issue().await;
    let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    assert!(matches!(merge(&service, a, USER, true).await, Merge::Done { .. }));
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
        service.issue().await;
        service.issue().await;
        assert!(!service.is_right("WRONG").await);
        let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
        let completed = killed_after_writes(&table, position, |process| async move {
            assert!(matches!(merge(&process, a, USER, true).await, Merge::Done { .. }));
        })
        .await;
        assert_eq!(service.fetch().await.refusal(), (404, vec![9001]), "no old OTP is the other one's");
        assert_eq!(merge(&service, a, USER, true).await, Merge::DoneBefore(service.clock.now()));
        assert_eq!(table.items("MESSAGE#").await.len(), 0);
        assert_eq!(written_after_the_tombstone(&table, USER).await, []);
        assert_consistent(&table).await;
        assert_eq!(profiles(&service, a).await[INSTORE].len(), 5, "all identifiers");
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
    assert!(matches!(merge(&service, a, b, true).await, Merge::Done { .. }));
    let report = service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    assert_eq!((report.undecided.len(), report.unreadable.len(), report.org_wide), (0, 0, 0));
    assert_consistent(&table).await;
    let joined = register(&service.another_process(), "MARTJACK:SHOP", &[mobile]).await;
    assert_eq!(joined.json["createdId"], a);
    assert_eq!(service.store.org(OrgId(966)).await.unwrap().unwrap().id(), OrgId(966));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_merged_customer_take_effect_before_or_reach_the_other_one() {
    for _ in 0..10 {
        let (table, service) = sending("CONF_OTP_DAILY_LIMIT = 100").await;
        let a = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
        let work = |service: TestService, i: usize| async move {
            if i.is_multiple_of(2) {
                let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS"});
                service.post("/v2/otp/generate", &body).await
            } else {
                register(&service, "WECHAT:WECHAT-API2", &[("mobile", MOBILE), ("cuid", &format!("C{i}"))])
                    .await
            }
        };
        let processes = processes(&table);
        let (merged, answers) =
            tokio::join!(merge(&service, a, USER, true), all_at_once(&processes, 12, work));
        assert!(matches!(merged, Merge::Done { .. }), "{merged:?}");
        let mut users = Vec::new();
        for answer in answers {
            assert!(answer.status == 200 || answer.refusal() == (409, vec![8006]), "{answer:?}");
            users.extend(answer.json["createdId"].as_u64().filter(|id| *id < 1 << 40));
        }
        assert!(users.iter().all(|user| [a, USER].contains(user)), "{users:?}");
        assert_consistent(&table).await;
        assert_eq!(written_after_the_tombstone(&table, USER).await, []);
    }
}

#[tokio::test]
async fn names_that_differ_in_one_account_are_those_of_the_customer_who_stays() {
    let (_table, service) = demo().await;
    let profile = |name: &str, mobile: &str| json!({"profiles": [{"source": "INSTORE", "firstName": name, "identifiers": [{"type": "mobile", "value": mobile}]}]});
    let new = async |body| service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap();
    let a = new(profile("Ann", "9010000022")).await;
    let b = new(profile("Anna", "9010000033")).await;
    service.clock.advance(TimeDelta::seconds(1));
    let Merge::Done { names_kept, .. } = merge(&service, a, b, true).await else { panic!() };
    assert_eq!(names_kept.len(), 1);
    let details = service.get(&format!("/v2/customers/{a}")).await.json;
    assert_eq!(details["profiles"][0]["firstName"], "Ann");
}
