//! Operators who revoke OTPs and forget wrong guesses while tills validate.

use std::{collections::BTreeSet, sync::Arc};

use loyalty_codes::{
    model::{customer::UserId, org::OrgId, otp::Scope},
    store::{CustomerHistory, OtpEnd},
};

use tokio::sync::Notify;

use crate::{
    common::{TestService, USER, demo},
    erasure::{ROUNDS, act_while, org},
};

async fn history(service: &TestService) -> CustomerHistory {
    service.store.customer_history(&org(service).await, UserId(USER)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_otp_is_validated_or_revoked_and_never_both() {
    let (mut validated, mut revoked) = (0, 0);
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        service.issue().await;
        let code = service.code().await;
        let found = history(&service).await;
        let now = service.clock.now();
        let revoking = async {
            let mut ids = Vec::new();
            service.store.revoke_otps(OrgId(966), &found.own, None, now, &mut ids).await.unwrap();
            ids
        };
        let validate = |service: TestService, i: usize| {
            let code = code.clone();
            // Half of the guesses are wrong, and count.
            async move { service.validate(if i.is_multiple_of(2) { &code } else { "WRONG00" }).await }
        };
        let (ids, answers) = act_while(&table, Box::pin(revoking), validate).await;
        let right = answers.iter().filter(|answer| answer.json["entity"] == true).count();
        assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status)), "{answers:?}");
        assert_eq!(right + ids.len(), 1, "{ids:?}, {answers:?}");
        let end = history(&service).await.own.otps[0].end;
        match end {
            OtpEnd::Validated(_) => validated += right,
            OtpEnd::Revoked(_) => revoked += ids.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(validated + revoked, ROUNDS, "each end is the one that was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlock_gives_as_many_guesses_as_the_limit_and_not_one_more() {
    for _ in 0..ROUNDS {
        let (table, service) = demo().await;
        service.issue().await;
        for _ in 0..5 {
            assert!(!service.is_right("WRONG00").await);
        }
        let found = history(&service).await;
        // One at least comes before the unlock.
        let answered = Arc::new(Notify::new());
        let unlocking = async {
            answered.notified().await;
            let mut scopes = BTreeSet::new();
            service.store.forget_attempts(OrgId(966), &found.own, None, &mut scopes).await.unwrap();
            scopes
        };
        let guess = |service: TestService, i: usize| {
            let answered = Arc::clone(&answered);
            async move {
                let answer = service.validate(&format!("WRONG{i}")).await;
                answered.notify_one();
                answer
            }
        };
        let (scopes, mut answers) = act_while(&table, Box::pin(unlocking), guess).await;
        assert_eq!(scopes, BTreeSet::from([Scope::Points]));
        // More than the limit after it.
        for i in 0..6 {
            answers.push(service.validate(&format!("LATER{i}")).await);
        }
        let judged = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(judged, 5, "{answers:?}");
        assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status)), "{answers:?}");
        assert_eq!(answers[0].status, 429, "the first answer is of the time before");
    }
}
