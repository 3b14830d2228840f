//! Blocks of card numbers, which a process takes at once: `CONF_CARD_NUMBER_BLOCK_SIZE`.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use loyalty_codes::model::{card_number::history::IssuedRange, org::OrgId};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    common::{
        TestService, demo_org_with, demo_with,
        faults::{Fault, with_fault_proxy},
    },
    idempotency,
    races::{all_at_once, processes},
};

/// The range of numbers that the counter has issued.
async fn issued(service: &TestService) -> IssuedRange {
    service.store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap()
}

fn number(n: u64) -> String {
    (1_000_000_010 + n).to_string()
}

#[tokio::test]
async fn a_process_takes_a_block_in_one_write_and_issues_its_numbers_in_order() {
    let (table, plain) = demo_with("CONF_CARD_NUMBER_BLOCK_SIZE = 10").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    service.fetch().await;
    faults.clear();
    for n in 0..25 {
        assert_eq!(service.card_number().await, number(n));
    }
    assert_eq!(faults.calls(), 3);
    assert_eq!(plain.card_number().await, number(30), "another process has its own block");
    assert_eq!(service.card_number().await, number(25));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_callers_share_blocks_and_leave_less_than_one_block_unused() {
    for (size, callers) in [(2, 64), (10, 64), (100, 64), (64, 64), (3, 1), (1, 64)] {
        let (table, _plain) = demo_with(&format!("CONF_CARD_NUMBER_BLOCK_SIZE = {size}")).await;
        let (service, faults) = with_fault_proxy(&table, "store.server").await;
        service.fetch().await;
        faults.clear();
        let work = |service: TestService, _| async move { service.card_number().await };
        let numbers: HashSet<String> = all_at_once(&[service], callers, work).await.into_iter().collect();
        assert_eq!(numbers.len(), callers, "{size}");
        let blocks = callers.div_ceil(size);
        assert!(numbers.into_iter().max() < Some(number((blocks * size) as u64)), "{size}");
        assert_eq!(faults.calls(), blocks, "{size}");
    }
}

/// Takes card numbers with and without idempotency keys, until it is stopped.
async fn take_until(
    end: Arc<AtomicBool>,
    given: Arc<AtomicUsize>,
    service: TestService,
    caller: usize,
) -> Vec<String> {
    let mut numbers = Vec::new();
    while !end.load(Ordering::SeqCst) {
        let n = numbers.len();
        numbers.push(if (caller + n).is_multiple_of(3) {
            let key = format!("key-{caller}-{n}");
            let answer = idempotency::send(&service, "/v2/cardNumber", &key, &json!({})).await;
            answer.json["entity"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
        } else {
            service.card_number().await
        });
        given.fetch_add(1, Ordering::SeqCst);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_is_given_twice_by_4_processes_of_64_callers_while_the_plan_changes() {
    for size in [7, 100] {
        // The plan gets another prefix or another length, or jumps within the same plan. Later an
        // earlier plan comes back.
        let plans = [("", 10), ("", 10), ("A", 11), ("", 10), ("B", 12)];
        let config = |plan: usize| {
            let ((prefix, length), offset) = (plans[plan], 1_000_000_010 + 1_000_000 * plan);
            format!(
                "CONF_CARD_NUMBER_BLOCK_SIZE = {size}\nCONF_CARD_NUMBER_OFFSET = {offset}\n\
                 CONF_CARD_NUMBER_PREFIX = \"{prefix}\"\nCONF_CARD_NUMBER_LENGTH = {length}"
            )
        };
        let (table, operator) = demo_with(&config(0)).await;
        let (end, given, mut callers) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), JoinSet::new());
        let processes = processes(&table);
        for caller in 0..4 * 64 {
            let service = processes[caller % 4].clone();
            callers.spawn(take_until(Arc::clone(&end), Arc::clone(&given), service, caller));
        }
        let some_more = async |count| {
            let enough = given.load(Ordering::SeqCst) + count;
            while given.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        for plan in 1..plans.len() {
            some_more(100).await;
            operator.apply(&demo_org_with(&config(plan))).await.unwrap();
            // For half of the changes, a process that has a block left notices the change late.
            operator.clock.advance(TimeDelta::seconds(if plan.is_multiple_of(2) { 61 } else { 1 }));
        }
        some_more(300).await;
        end.store(true, Ordering::SeqCst);
        let numbers = callers.join_all().await.concat();
        assert_eq!(
            numbers.iter().collect::<HashSet<_>>().len(),
            numbers.len(),
            "{size}: a card number was given twice"
        );
        for prefix in ["A", "B"] {
            assert!(numbers.iter().any(|number| number.starts_with(prefix)), "{size}: the plan has changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_skips_at_most_one_block() {
    const SIZE: u64 = 50;
    let (table, operator) = demo_with(&format!("CONF_CARD_NUMBER_BLOCK_SIZE = {SIZE}")).await;
    let mut given = HashSet::new();
    for round in 1..=12 {
        let process = table.service("store.server");
        let work = |service: TestService, _| async move { service.card_number().await };
        for number in all_at_once(&[process], 7 * round, work).await {
            assert!(given.insert(number));
        }
        let taken = issued(&operator).await;
        let skipped = taken.next - taken.first - given.len() as u64;
        assert!(skipped < SIZE * round as u64, "{skipped} after {round} rounds");
    }
}

#[tokio::test]
async fn near_the_end_of_a_range_numbers_are_taken_one_by_one() {
    let config = "CONF_CARD_NUMBER_BLOCK_SIZE = 10\nCONF_CARD_NUMBER_LENGTH = 5\nCONF_CARD_NUMBER_OFFSET = ";
    let (_table, service) = demo_with(&format!("{config}89995")).await;
    assert_eq!(service.card_number().await, "89995");
    assert_eq!(issued(&service).await.next, 90_005);
    for n in 89_996..90_010 {
        assert_eq!(service.card_number().await, n.to_string());
    }
    assert_eq!(issued(&service).await.next, 90_010, "near the end, numbers are taken one by one");

    for size in [2, 10, 1000] {
        let short = format!(
            "CONF_CARD_NUMBER_BLOCK_SIZE = {size}\nCONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 0"
        );
        let (_table, service) = demo_with(&short).await;
        for n in 0..100 {
            assert_eq!(service.card_number().await, format!("{n:02}"));
        }
        assert_eq!(service.get("/v2/cardNumber").await.refusal(), (409, vec![702]));
    }
}

#[tokio::test]
async fn numbers_of_an_old_plan_are_given_for_at_most_a_minute_and_never_again() {
    let block = "CONF_CARD_NUMBER_BLOCK_SIZE = 10\n";
    let (table, operator) = demo_with(block).await;
    let service = table.service("store.server");
    assert_eq!(service.card_number().await, number(0));
    let within_the_block = demo_org_with(&format!("{block}CONF_CARD_NUMBER_OFFSET = 1000000019"));
    let refused = operator.apply(&within_the_block).await.unwrap_err();
    assert!(refused.to_string().contains("must be 1000000020 or higher"), "{refused}");
    operator.apply(&demo_org_with(&format!("{block}CONF_CARD_NUMBER_OFFSET = 1000000020"))).await.unwrap();
    assert_eq!(service.card_number().await, number(1), "the process still has the old org in its cache");
    assert_eq!(table.service("store.server").card_number().await, number(10));
    service.clock.advance(TimeDelta::seconds(60));
    assert_eq!(service.card_number().await, number(20), "the rest of the block is skipped");
}

#[tokio::test]
async fn a_plan_of_another_format_ends_blocks_within_a_minute() {
    let block = "CONF_CARD_NUMBER_BLOCK_SIZE = 3\n";
    let (table, operator) = demo_with(block).await;
    let service = table.service("store.server");
    assert_eq!(service.card_number().await, number(0));
    operator
        .apply(&demo_org_with(&format!(
            "{block}CONF_CARD_NUMBER_PREFIX = \"A\"\nCONF_CARD_NUMBER_LENGTH = 12"
        )))
        .await
        .unwrap();
    let numbers = [service.card_number().await, service.card_number().await, service.card_number().await];
    assert_eq!(
        numbers,
        [number(1), number(2), "A01000000010".to_owned()],
        "the next block belongs to the new plan"
    );
    service.clock.advance(TimeDelta::seconds(61));
    assert_eq!(service.card_number().await, "A01000000011", "the process keeps the new block");
}

/// A caller may be dropped while it waits for the block that it asked for.
#[tokio::test]
async fn a_dropped_caller_does_not_block_other_callers() {
    let (table, _plain) = demo_with("CONF_CARD_NUMBER_BLOCK_SIZE = 10").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    service.fetch().await;
    let mut dropped = Some(Fault::Dropped);
    faults.inject(move |operation, _| dropped.take_if(|_| operation == "UpdateItem"));
    let hasty = TestService { time_limit: Duration::from_millis(200), ..service.clone() };
    let (broken_off, others) = tokio::join!(hasty.get("/v2/cardNumber"), async {
        let work = |service: TestService, _| async move { service.card_number().await };
        all_at_once(std::slice::from_ref(&service), 9, work).await
    });
    assert_eq!(broken_off.status, 503);
    assert_eq!(others.into_iter().collect::<HashSet<_>>().len(), 9);
}

#[tokio::test]
async fn a_failed_block_allocation_is_tried_again() {
    let (table, _plain) = demo_with("CONF_CARD_NUMBER_BLOCK_SIZE = 10").await;
    let (service, faults) = with_fault_proxy(&table, "store.server").await;
    service.fetch().await;
    faults.inject(|_, _| Some(Fault::error("ProvisionedThroughputExceededException")));
    assert_eq!(service.get("/v2/cardNumber").await.status, 503);
    faults.clear();
    assert_eq!(service.card_number().await, number(1), "the number of the refused request is skipped");
}

#[tokio::test]
async fn the_rest_of_a_block_is_dropped_with_an_unused_org() {
    let (table, operator) = demo_with("CONF_CARD_NUMBER_BLOCK_SIZE = 10").await;
    let mut other = demo_org_with("");
    other.id = OrgId(967);
    operator.apply(&other).await.unwrap();
    operator.create_till("other.till", 967, loyalty_codes::model::till::Permission::ALL).await;
    let service = table.service("store.server");
    let other = service.as_till("other.till", crate::common::PASSWORD);
    assert_eq!(service.card_number().await, number(0));
    service.clock.advance(TimeDelta::minutes(59));
    other.card_number().await;
    assert_eq!(service.card_number().await, number(1));
    service.clock.advance(TimeDelta::minutes(60));
    other.card_number().await;
    assert_eq!(
        service.card_number().await,
        number(10),
        "after an hour without a request, the rest of the block is dropped"
    );
}
