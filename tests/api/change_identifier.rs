//! Changing the identifiers of customers.

use serde_json::{Value, json};

use crate::{
    common::{Answer, TestService, USER, demo},
    idempotency,
    joining::{INSTORE, WECHAT, assert_consistent, list, new_customer, profiles, register},
    races::{all_at_once, processes},
};

type Identifiers<'a> = &'a [(&'a str, &'a str)];

fn url(user: u64, account: &str) -> String {
    let (source, id) = account.split_once(':').unwrap();
    format!("/v2/customers/{user}/changeIdentifier?source={source}&accountId={id}")
}

/// Changes a customer's identifiers in an account, such as `INSTORE:`.
async fn change(
    service: &TestService,
    user: u64,
    account: &str,
    add: Identifiers<'_>,
    remove: Identifiers<'_>,
) -> Answer {
    service.post(&url(user, account), &json!({"add": list(add), "remove": list(remove)})).await
}

/// Panics unless a change was carried out with that many warnings.
fn assert_changed(answer: &Answer, user: u64, warnings: usize) {
    let warning = json!({"status": false, "code": 8007, "message": "The identifier is as requested already"});
    assert_eq!(answer.json, json!({"createdId": user, "warnings": vec![warning; warnings]}), "{answer:?}");
}

async fn instore(service: &TestService, user: u64) -> Vec<String> {
    profiles(service, user).await[INSTORE].clone()
}

#[tokio::test]
async fn identifiers_are_added_and_removed_together() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("externalId", "X1")]).await;
    let (add, remove) = ([("mobile", "9010000033"), ("cuid", "C1")], [("mobile", "9010000022")]);
    assert_changed(&change(&service, user, INSTORE, &add, &remove).await, user, 0);
    assert_eq!(instore(&service, user).await, ["cuid=C1", "externalId=X1", "mobile=919010000033"]);
    let fetch = |mobile: &str| format!("/v2/otp?source=INSTORE&mobile={mobile}&scope=POINTS");
    assert_eq!(service.get(&fetch("9010000033")).await.refusal(), (404, vec![9001]));
    assert_eq!(service.get(&fetch("9010000022")).await.refusal(), (404, vec![8015]));
    assert_consistent(&table).await;
    // What was removed is free for another customer, in every account.
    assert_eq!(new_customer(&service, WECHAT, &[("mobile", "9010000022")]).await, user + 1);
    assert_consistent(&table).await;
}

#[tokio::test]
async fn an_external_id_is_replaced_by_removing_it() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("externalId", "X1")]).await;
    let only = change(&service, user, INSTORE, &[("externalId", "X2")], &[]).await;
    assert_eq!(only.refusal(), (409, vec![8008]));
    let both = change(&service, user, INSTORE, &[("externalId", "X2")], &[("externalId", "X1")]).await;
    assert_changed(&both, user, 0);
    assert_eq!(instore(&service, user).await, ["externalId=X2", "mobile=919010000022"]);
    assert_consistent(&table).await;
    // The same text as external ID and as card number is one identity, which goes with the last.
    assert_changed(&change(&service, user, INSTORE, &[("cardnumber", "X2")], &[]).await, user, 0);
    assert_changed(&change(&service, user, INSTORE, &[], &[("externalId", "X2")]).await, user, 0);
    assert_eq!(instore(&service, user).await, ["cardnumber=X2", "mobile=919010000022"]);
    assert_consistent(&table).await;
    // Either kind removes the other.
    assert_changed(&change(&service, user, INSTORE, &[], &[("externalId", "X2")]).await, user, 0);
    assert_eq!(instore(&service, user).await, ["mobile=919010000022"]);
    assert_consistent(&table).await;
    assert_eq!(new_customer(&service, INSTORE, &[("cardnumber", "X2")]).await, user + 1);
}

#[tokio::test]
async fn an_identifier_in_another_account_makes_a_profile_there() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    assert_changed(&change(&service, user, WECHAT, &[("mobile", "9010000022")], &[]).await, user, 0);
    assert_eq!(profiles(&service, user).await[WECHAT], ["externalId=1000000010", "mobile=919010000022"]);
    assert_consistent(&table).await;
    // The org-wide identity stays until the mobile is removed from the last account.
    assert_changed(&change(&service, user, INSTORE, &[], &[("mobile", "9010000022")]).await, user, 0);
    assert_consistent(&table).await;
    let taken = change(&service, USER, INSTORE, &[("mobile", "9010000022")], &[]).await;
    assert_eq!(taken.refusal(), (409, vec![8008]));
    assert_changed(&change(&service, user, WECHAT, &[], &[("mobile", "9010000022")]).await, user, 0);
    assert_changed(&change(&service, USER, INSTORE, &[("mobile", "9010000022")], &[]).await, USER, 0);
    assert_consistent(&table).await;
}

#[tokio::test]
async fn what_is_done_already_is_a_warning_so_that_a_retry_works() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    let (add, remove) = ([("email", "a@example.com"), ("cuid", "C1")], [("mobile", "9010000022")]);
    assert_changed(&change(&service, user, INSTORE, &add, &remove).await, user, 0);
    assert_changed(&change(&service, user, INSTORE, &add, &remove).await, user, 3);
    assert_changed(&change(&service, user, INSTORE, &[("cuid", "C1")], &[("cuid", "C1")]).await, user, 1);
    let spelled_twice = [("cuid", "C1"), ("CUID", " C1 ")];
    assert_changed(&change(&service, user, INSTORE, &spelled_twice, &[]).await, user, 1);
    assert_consistent(&table).await;

    let body = json!({"add": [{"type": "cuid", "value": "C2"}]});
    let keyed = async |user: u64| idempotency::send(&service, &url(user, INSTORE), "key", &body).await;
    assert_changed(&keyed(user).await, user, 0);
    assert_changed(&keyed(user).await, user, 0);
    assert_eq!(keyed(USER).await.refusal(), (422, vec![422]), "another customer is another request");
    let body = json!({"add": [{"type": "cuid", "value": "C2"}]});
    let unchanged = async || idempotency::send(&service, &url(user, INSTORE), "another-key", &body).await;
    assert_changed(&unchanged().await, user, 1);
    assert_changed(&change(&service, user, INSTORE, &[], &[("cuid", "C2")]).await, user, 0);
    assert_changed(&unchanged().await, user, 1);
}

#[tokio::test]
async fn identifiers_of_others_are_neither_taken_nor_removed() {
    let (table, service) = demo().await;
    let a = new_customer(&service, INSTORE, &[("mobile", "9010000022"), ("cuid", "C1")]).await;
    let b = new_customer(&service, WECHAT, &[("email", "b@example.com"), ("wechat", "o-1")]).await;
    let before = assert_consistent(&table).await;
    for (account, add, remove, expected) in [
        (INSTORE, vec![("cuid", "C9"), ("email", "b@example.com")], vec![], (409, 8008)),
        (WECHAT, vec![("wechat", "o-1")], vec![("cuid", "C1")], (409, 8008)),
        (INSTORE, vec![("cardnumber", "CARD-1")], vec![], (409, 8008)),
        (WECHAT, vec![("cuid", "C9")], vec![("wechat", "o-1")], (400, 8013)),
        (INSTORE, vec![], vec![("externalId", "CARD-1")], (400, 8013)),
    ] {
        let answer = change(&service, a, account, &add, &remove).await;
        assert_eq!(answer.refusal(), (expected.0, vec![expected.1]), "{add:?} {remove:?}");
    }
    assert_eq!(assert_consistent(&table).await, before);
    // The same id in another account is another id. A removed one that somebody else has in another
    // account only is not there.
    assert_changed(
        &change(&service, a, INSTORE, &[("wechat", "o-1")], &[("email", "b@example.com")]).await,
        a,
        1,
    );
    assert_eq!(profiles(&service, b).await[WECHAT].len(), 3);
}

#[tokio::test]
async fn a_customer_keeps_at_least_one_identifier() {
    let (table, service) = demo().await;
    let user = new_customer(&service, "WECHAT:WECHAT-API2", &[("wechat", "o-1"), ("cuid", "C1")]).await;
    let all = [("wechat", "o-1"), ("cuid", "C1")];
    let refused = change(&service, user, "WECHAT:WECHAT-API2", &[], &all).await;
    assert_eq!(refused.refusal(), (400, vec![400]));
    assert_changed(&change(&service, user, "WECHAT:WECHAT-API2", &[("cuid", "C2")], &all).await, user, 0);
    assert_consistent(&table).await;
}

#[tokio::test]
async fn each_invalid_part_of_a_change_has_its_code() {
    let (_table, service) = demo().await;
    let own = url(USER, INSTORE);
    let add = |list: Value| json!({"add": list});
    let one = json!([{"type": "cuid", "value": "C1"}]);
    let many: Value = (0..41).map(|i| json!({"type": "cuid", "value": format!("C{i}")})).collect();
    for (url, body, expected) in [
        (url(5, INSTORE), add(one.clone()), (404, vec![8009])),
        ("/v2/customers/Tom/changeIdentifier?source=INSTORE".into(), add(one.clone()), (404, vec![8009])),
        (format!("/v2/customers/{USER}/changeIdentifier"), add(one.clone()), (400, vec![8016])),
        (url(USER, "ALL:"), add(one.clone()), (400, vec![8012])),
        (url(USER, "WECHAT:"), add(one.clone()), (400, vec![8091])),
        (url(USER, "WECHAT:X"), add(one.clone()), (400, vec![8127])),
        (own.clone(), json!({}), (400, vec![400])),
        (own.clone(), json!({"add": [], "remove": null}), (400, vec![400])),
        (own.clone(), json!({"add": one[0]}), (400, vec![400])),
        (own.clone(), json!({"add": one, "remove": "cuid"}), (400, vec![400])),
        (own.clone(), add(many), (400, vec![400])),
        (own.clone(), add(list(&[("externalId", "A"), ("externalId", "B")])), (400, vec![400])),
        (own.clone(), add(list(&[("passport", "A"), ("mobile", "1")])), (400, vec![8013, 8056])),
        (
            own.clone(),
            json!({"add": [{"type": "cuid"}], "remove": [{"value": "1"}]}),
            (400, vec![8093, 8092]),
        ),
    ] {
        assert_eq!(service.post(&url, &body).await.refusal(), expected, "{url} {body}");
    }
    let forty: Value =
        (0..40).map(|i| json!({"type": "email", "value": format!("a{i}@example.com")})).collect();
    let answer = idempotency::send(&service, &own, "key", &add(forty)).await;
    assert_changed(&answer, USER, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_customers_who_race_for_one_identifier_one_gets_it() {
    let (table, service) = demo().await;
    let mut users = Vec::new();
    for i in 0..4 {
        users.push(new_customer(&service, INSTORE, &[("mobile", &format!("901000000{i}"))]).await);
    }
    for (round, name) in ["mobile", "email", "cuid", "cardnumber", "externalId"].into_iter().enumerate() {
        let value = match name {
            "mobile" => "9010000099",
            "email" => "a@example.com",
            _ => name,
        };
        let candidates = users.clone();
        let work = move |service: TestService, i: usize| {
            let user = candidates[i];
            async move {
                // Each one gives something up for it.
                let (old, id) = (format!("own-{}", i + 10 * round), format!("100000001{i}"));
                assert_changed(&change(&service, user, INSTORE, &[("cuid", &old)], &[]).await, user, 0);
                let remove: Vec<(&str, &str)> =
                    if name == "externalId" { vec![("externalId", &id)] } else { vec![("cuid", &old)] };
                let account = if i.is_multiple_of(2) || name == "cuid" { INSTORE } else { WECHAT };
                (user, change(&service, user, account, &[(name, value)], &remove).await.status)
            }
        };
        let statuses = all_at_once(&processes(&table), 4, work).await;
        let winners: Vec<u64> =
            statuses.iter().filter(|(_, status)| *status == 200).map(|(user, _)| *user).collect();
        assert_eq!(winners.len(), 1, "{name}: {statuses:?}");
        assert!(statuses.iter().all(|(_, status)| [200, 409].contains(status)), "{name}: {statuses:?}");
        assert_consistent(&table).await;
        for user in &users {
            let identifiers: Vec<String> = profiles(&service, *user).await.into_values().flatten().collect();
            let won = identifiers.iter().any(|one| one.ends_with(value) && one.starts_with(name));
            assert_eq!(won, winners.contains(user), "{name}: {identifiers:?}");
            assert!(identifiers.iter().any(|one| one.starts_with("mobile=91901000000")), "{identifiers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_that_is_removed_and_registered_at_once_never_points_at_two() {
    let (table, service) = demo().await;
    for round in 0..10 {
        let mobile = format!("90100001{round:02}");
        let user =
            new_customer(&service, INSTORE, &[("mobile", &mobile), ("cuid", &format!("C{round}"))]).await;
        let work = move |service: TestService, i: usize| {
            let mobile = mobile.clone();
            async move {
                let identifiers = [("mobile", mobile.as_str())];
                match i {
                    0 => change(&service, user, INSTORE, &[], &identifiers).await,
                    1 => register(&service, INSTORE, &identifiers).await,
                    2 => register(&service, WECHAT, &identifiers).await,
                    _ => change(&service, USER, WECHAT, &identifiers, &[]).await,
                }
            }
        };
        let answers = all_at_once(&processes(&table), 4, work).await;
        assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)), "{answers:?}");
        assert_consistent(&table).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_concurrent_changes_of_one_customer_every_one_succeeds() {
    let (table, service) = demo().await;
    let user = new_customer(&service, INSTORE, &[("mobile", "9010000022")]).await;
    let work = move |service: TestService, i: usize| async move {
        change(&service, user, INSTORE, &[("cuid", &format!("C{i}"))], &[]).await
    };
    let answers = all_at_once(&processes(&table), 40, work).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(instore(&service, user).await.len(), 42, "with the mobile and the external ID");
    assert_consistent(&table).await;
}

#[tokio::test]
async fn an_id_with_a_leading_zero_is_no_id() {
    let (_table, service) = demo().await;
    for id in [format!("0{USER}"), format!("00{USER}"), "0".to_owned(), format!("+{USER}")] {
        let answer = service.get(&format!("/v2/customers/{id}?source=INSTORE")).await;
        assert_eq!(answer.refusal(), (404, vec![8009]), "{id}");
        let body = json!({"add": [{"type": "cuid", "value": "C1"}]});
        let answer =
            service.post(&format!("/v2/customers/{id}/changeIdentifier?source=INSTORE"), &body).await;
        assert_eq!(answer.refusal(), (404, vec![8009]), "{id}");
    }
}
