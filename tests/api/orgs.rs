//! Applying an org's definition, and its effect on card numbers.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{Client, config::timeout::TimeoutConfig, types::AttributeValue};
use chrono::TimeDelta;
use loyalty_codes::{
    model::org::{Definition, OrgId},
    store::{Applied, ApplyError, Store, TakeError},
};
use tokio::time::timeout;

use crate::{
    common::{
        TestService, TestTable, demo, demo_org, demo_org_with, demo_with,
        faults::{Fault, with_fault_proxy},
        runtime_api::HANG_TIMEOUT,
    },
    idempotency::while_held,
};

async fn reason(service: &TestService, definition: &Definition) -> String {
    match service.apply(definition).await {
        Err(error @ (ApplyError::Invalid(_) | ApplyError::PossibleDuplicate(_))) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// Whether a number belongs to a plan.
type IsOfPlan = fn(&str) -> bool;

#[tokio::test]
async fn applying_creates_then_updates_then_changes_nothing() {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    assert_eq!(service.apply(&demo_org()).await.unwrap(), Applied::Created);
    assert_eq!(service.apply(&demo_org()).await.unwrap(), Applied::Unchanged);
    let mut renamed = demo_org();
    renamed.name = "Other Stores".to_owned();
    assert_eq!(service.apply(&renamed).await.unwrap(), Applied::Updated(Box::new(demo_org())));
    let stored = service.store.org(OrgId(966)).await.unwrap().unwrap();
    assert_eq!(stored.definition, renamed);
}

#[tokio::test]
async fn orgs_are_listed_by_number() {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    for id in [1000, 966, 2] {
        service.apply(&Definition { id: OrgId(id), ..demo_org() }).await.unwrap();
    }
    let ids: Vec<u32> = service.store.orgs().await.unwrap().iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [2, 966, 1000]);
}

#[tokio::test]
async fn an_invalid_definition_is_refused_with_every_reason() {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    let wrong = demo_org_with("CONF_OTP_LENGTH = 3\nCONF_CARD_NUMBER_LENGTH = 51");
    let reason = reason(&service, &wrong).await;
    assert!(reason.contains("CONF_OTP_LENGTH") && reason.contains("CONF_CARD_NUMBER_LENGTH"), "{reason}");
    assert!(service.store.org(OrgId(966)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_plan_that_could_repeat_a_number_is_refused_with_the_reason() {
    let (_table, service) = demo().await;
    for _ in 0..5 {
        service.card_number().await;
    }
    let lower = reason(&service, &demo_org_with("CONF_CARD_NUMBER_OFFSET = 1000000014")).await;
    assert!(lower.contains("must be 1000000015 or higher"), "{lower}");
    let overlapping = demo_org_with("CONF_CARD_NUMBER_PREFIX = \"1\"\nCONF_CARD_NUMBER_OFFSET = 0");
    assert!(reason(&service, &overlapping).await.contains("could equal"));
    let random = demo_org_with("CONF_CARD_CHECKSUM_DIGIT_ALGO = \"RANDOM\"");
    assert!(reason(&service, &random).await.contains("could equal"));
    assert_eq!(service.card_number().await, "1000000015", "nothing was changed");
}

#[tokio::test]
async fn plans_can_be_changed_and_issued_numbers_stay_excluded() {
    let (_table, service) = demo().await;
    assert_eq!(service.card_number().await, "1000000010");
    service.apply(&demo_org_with("CONF_CARD_NUMBER_OFFSET = 2000000000")).await.unwrap();
    assert_eq!(service.card_number().await, "2000000000", "the plan starts at another number");
    service.apply(&demo_org_with("CONF_CARD_NUMBER_LENGTH = 12")).await.unwrap();
    assert_eq!(service.card_number().await, "001000000010", "another length");
    let back = reason(&service, &demo_org_with("CONF_CARD_NUMBER_OFFSET = 1500000000")).await;
    assert!(back.contains("must be 2000000001 or higher"), "{back}");
    service.apply(&demo_org_with("CONF_CARD_NUMBER_OFFSET = 2000000001")).await.unwrap();
    assert_eq!(
        service.card_number().await,
        "2000000001",
        "the earlier plan continues after the issued numbers"
    );
}

#[tokio::test]
async fn removing_the_settings_keeps_the_sequence() {
    let (_table, service) = demo().await;
    service.card_number().await;
    let mut without = demo_org_with("CONF_CARD_NUMBER_GENERATION_ENABLED = false");
    without.config.card_numbers = loyalty_codes::model::card_number::CardNumberSettings::default();
    service.apply(&without).await.unwrap();
    service.apply(&demo_org()).await.unwrap();
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(service.card_number().await, "1000000011");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_is_given_twice_while_the_plan_changes_under_load() {
    let (table, service) = demo().await;
    let (numbers, enough) = (Arc::new(Mutex::new(Vec::<String>::new())), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let caller = table.service("store.server");
        let (numbers, enough) = (Arc::clone(&numbers), Arc::clone(&enough));
        callers.spawn(async move {
            while !enough.load(Ordering::SeqCst) {
                let number = caller.card_number().await;
                numbers.lock().unwrap().push(number);
            }
        });
    }
    // Operators take numbers for printing meanwhile.
    for _ in 0..2 {
        let operator = table.service("store.server");
        let (numbers, enough) = (Arc::clone(&numbers), Arc::clone(&enough));
        callers.spawn(async move {
            while !enough.load(Ordering::SeqCst) {
                let org = operator.store.org(OrgId(966)).await.unwrap().unwrap();
                let taken = operator.store.take_card_numbers(org, 7).await.unwrap().unwrap();
                let values = taken.range.first..taken.range.next;
                assert_eq!(values.end - values.start, 7);
                let taken_numbers = values.map(|value| taken.number(value));
                numbers.lock().unwrap().extend(taken_numbers);
            }
        });
    }
    // Each plan stays in force until callers have numbers of it.
    let given = async |is_of_the_plan: fn(&str) -> bool| {
        while numbers.lock().unwrap().iter().filter(|number| is_of_the_plan(number)).count() < 40 {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG_TIMEOUT, given(|number| number.len() == 10)).await.expect("numbers of the first plan");
    let plans: [(&str, IsOfPlan); 3] = [
        ("CONF_CARD_NUMBER_LENGTH = 11", |number| number.len() == 11),
        ("CONF_CARD_NUMBER_LENGTH = 12", |number| number.len() == 12),
        ("CONF_CARD_NUMBER_OFFSET = 3000000000", |number| number.len() == 10 && number.starts_with('3')),
    ];
    for (config, is_of_the_plan) in plans {
        let applied = service.apply(&demo_org_with(config)).await.unwrap();
        assert!(matches!(applied, Applied::Updated(_)), "{config}: {applied:?}");
        timeout(HANG_TIMEOUT, given(is_of_the_plan)).await.expect(config);
    }
    enough.store(true, Ordering::SeqCst);
    callers.join_all().await;
    let numbers = numbers.lock().unwrap();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
}

#[tokio::test]
async fn a_number_taken_during_a_change_of_the_plan_counts_as_issued() {
    let (table, plain) = demo().await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let competitor = async { assert_eq!(plain.card_number().await, "1000000010") };
    let longer = demo_org_with("CONF_CARD_NUMBER_LENGTH = 12");
    Box::pin(while_held(&faults, "TransactWriteItems", service.apply(&longer), competitor)).await.unwrap();
    assert!(reason(&service, &demo_org()).await.contains("must be 1000000011 or higher"));
}

/// The first value that the demo org gives next.
async fn next_value(table: &TestTable) -> u64 {
    table.store().issued_card_numbers(OrgId(966)).await.unwrap().unwrap().next
}

/// A take through a process whose calls end after half a second, and how many updates it sent.
async fn take_with(
    table: &TestTable,
    count: u64,
    mut fault: impl FnMut(usize) -> Option<Fault> + Send + 'static,
) -> (Result<Option<u64>, TakeError>, usize) {
    let (process, faults) = with_fault_proxy(table, "store.server").await;
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(500)).build();
    let config = process.client.config().to_builder().timeout_config(timeouts).build();
    let store = Store::new(Client::from_conf(config), table.name().to_owned());
    let org = store.org(OrgId(966)).await.unwrap().unwrap();
    let updates = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&updates);
    faults.inject(move |operation, _| match operation {
        "UpdateItem" => fault(counted.fetch_add(1, Ordering::SeqCst)),
        _ => None,
    });
    let taken = store.take_card_numbers(org, count).await;
    (taken.map(|taken| taken.map(|taken| taken.range.first)), updates.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_take_whose_end_is_not_known_is_sent_once_and_says_so() {
    // A repetition would find too few numbers, and report that none was taken.
    let (table, _service) = demo_with("CONF_CARD_NUMBER_OFFSET = 9999999900").await;
    let mut next = 9_999_999_900;
    for (fault, takes) in [
        (Fault::ResetBeforeAnswer, true),
        (Fault::ResetWithinAnswer, true),
        (Fault::Unanswered, true),
        (Fault::Reset, false),
        (Fault::error("InternalServerError"), false),
        (Fault::Answer(408, "a proxy's answer".to_owned()), false),
    ] {
        let what = format!("{fault:?}");
        let count = (9_999_999_999 - next) / 2 + 2;
        let (taken, updates) = take_with(&table, count, move |at| (at == 0).then(|| fault.clone())).await;
        assert!(matches!(taken, Err(TakeError::Uncertain(_))), "{what}: {taken:?}");
        next += if takes { count } else { 0 };
        assert_eq!((updates, next_value(&table).await), (1, next), "{what}");
    }
}

#[tokio::test]
async fn a_take_that_was_refused_is_tried_again_and_takes_once() {
    let (table, _service) = demo().await;
    for (at, code) in
        ["ProvisionedThroughputExceededException", "ThrottlingException", "TransactionConflictException"]
            .into_iter()
            .enumerate()
    {
        let first = 1_000_000_010 + 7 * at as u64;
        let (taken, updates) = take_with(&table, 7, move |at| (at < 2).then(|| Fault::error(code))).await;
        assert_eq!((taken.unwrap(), updates), (Some(first), 3), "{code}");
        assert_eq!(next_value(&table).await, first + 7, "{code}");
    }
    let (taken, updates) = take_with(&table, 7, |_| Some(Fault::error("AccessDeniedException"))).await;
    assert!(matches!(taken, Err(TakeError::NotTaken(_))), "{taken:?}");
    assert_eq!((updates, next_value(&table).await), (1, 1_000_000_031));
    // What is refused first may be lost after that.
    let (taken, updates) = take_with(&table, 7, |at| {
        Some(if at == 0 { Fault::error("ThrottlingException") } else { Fault::ResetWithinAnswer })
    })
    .await;
    assert!(matches!(taken, Err(TakeError::Uncertain(_))), "{taken:?}");
    assert_eq!((updates, next_value(&table).await), (2, 1_000_000_038));
}

#[tokio::test]
async fn a_plan_can_be_changed_while_numbers_are_taken_faster() {
    let (table, plain) = demo().await;
    assert_eq!(plain.card_number().await, "1000000010");
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    let mut faster = 3;
    faults.inject(move |operation, _| {
        let refused = operation == "TransactWriteItems" && faster > 0;
        faster -= i32::from(refused);
        refused.then(|| Fault::cancelled(&["ConditionalCheckFailed", "None", "None"]))
    });
    service.apply(&demo_org_with("CONF_CARD_NUMBER_LENGTH = 12")).await.unwrap();
    faults.clear();
    // The fourth attempt treats four more numbers as taken, because concurrent requests may have
    // taken them.
    let again = |offset: &str| demo_org_with(&format!("CONF_CARD_NUMBER_OFFSET = {offset}"));
    let refused = service.apply(&again("1000000014")).await.unwrap_err();
    assert!(refused.to_string().contains("must be 1000000015 or higher"), "{refused}");
    service.apply(&again("1000000015")).await.unwrap();
    assert_eq!(plain.card_number().await, "1000000015");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_do_not_overwrite_each_other() {
    let (table, service) = demo().await;
    let mut operators = tokio::task::JoinSet::new();
    for length in 8..24 {
        let operator = table.service("store.server");
        operators.spawn(async move {
            operator.apply(&demo_org_with(&format!("CONF_OTP_LENGTH = {length}"))).await
        });
    }
    let results = operators.join_all().await;
    // Each successful change replaced a definition that no other change replaced.
    let replaced: Vec<i64> = results
        .iter()
        .filter_map(|result| match result {
            Ok(Applied::Updated(before)) => Some(before.config.otp_length),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(matches!(error, ApplyError::Concurrent), "{error}");
                None
            }
        })
        .collect();
    let different: HashSet<&i64> = replaced.iter().collect();
    assert_eq!(different.len(), replaced.len(), "{replaced:?}");
    assert!(replaced.len() < results.len(), "some changes must be refused");
    let stored = service.store.org(OrgId(966)).await.unwrap().unwrap();
    assert!(
        !different.contains(&stored.config().otp_length),
        "the stored definition must not have been replaced"
    );
}

/// Edits the org's item directly, as a user of the AWS console could.
async fn edit_definition(table: &TestTable, edit: impl FnOnce(&mut serde_json::Value)) {
    let client = table.client();
    let key =
        [("PK", "ORG#966"), ("SK", "ORG")].map(|(n, v)| (n.to_owned(), AttributeValue::S(v.to_owned())));
    let item =
        client.get_item().table_name(table.name()).set_key(Some(key.clone().into())).send().await.unwrap();
    let mut item = item.item.unwrap();
    let mut definition = serde_json::from_str(item["definition"].as_s().unwrap()).unwrap();
    edit(&mut definition);
    item.insert("definition".to_owned(), AttributeValue::S(definition.to_string()));
    client.put_item().table_name(table.name()).set_item(Some(item)).send().await.unwrap();
}

#[tokio::test]
async fn settings_that_were_corrupted_in_the_table_stop_card_numbers_but_not_otps() {
    let (table, service) = demo().await;
    for (member, value, code) in [
        ("CONF_CARD_NUMBER_LENGTH", serde_json::json!(51), 704),
        ("CONF_CARD_NUMBER_LENGTH", serde_json::json!(10), 200),
        ("CONF_CARD_NUMBER_PREFIX", serde_json::json!("1-2"), 701),
        ("CONF_CARD_NUMBER_PREFIX", serde_json::json!("1"), 701),
    ] {
        edit_definition(&table, |definition| definition["config"][member] = value).await;
        service.clock.advance(TimeDelta::seconds(60));
        let answer = service.get("/v2/cardNumber").await;
        if code == 200 {
            assert_eq!(answer.status, 200);
        } else {
            assert_eq!(answer.refusal(), (500, vec![code]));
        }
        service.issue().await;
        assert_eq!(service.fetch().await.status, 200);
    }
}

#[tokio::test]
async fn an_unreadable_org_is_an_internal_error_without_details() {
    let (table, service) = demo().await;
    edit_definition(&table, |definition| definition["timezone"] = "Nowhere".into()).await;
    service.clock.advance(TimeDelta::seconds(60));
    let answer = service.get("/v2/cardNumber").await;
    assert_eq!(answer.refusal(), (500, vec![500]));
    assert_eq!(answer.json["errors"][0]["message"], "Internal error");
}
