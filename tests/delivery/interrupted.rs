//! Processes that end, DynamoDB failures and redeliveries in the middle of a delivery.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use loyalty_codes::{delivery::Deliverer, store::keys::Key};
use serde_json::{Value, json};
use tokio::{
    sync::SetOnce,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    common::faults::{Fault, Faults, with_fault_proxy},
    providers::{Called, Reply},
    world::{BY_AWS, EMAIL, MOBILE, World, shown},
};

fn sms() -> Value {
    json!([{"type": "SMS", "value": MOBILE}])
}

/// The calls to DynamoDB that one delivery makes, in order.
const CALLS: [&str; 4] = ["BatchGetItem", "GetItem", "UpdateItem", "UpdateItem"];
/// The position of the call after the provider's answer.
const OUTCOME: usize = 3;

/// A process whose DynamoDB is behind a fault proxy.
async fn faulty(world: &World) -> (Arc<Deliverer>, Faults) {
    let (service, faults) = with_fault_proxy(&world.table, "store.server").await;
    (world.another_deliverer(service.store), faults)
}

/// Starts a delivery. The cell holds its handle before it makes its first call.
fn start(deliverer: &Arc<Deliverer>, key: &Key, handle: &Arc<OnceLock<AbortHandle>>) -> JoinHandle<()> {
    let (deliverer, key) = (Arc::clone(deliverer), key.clone());
    let delivery = tokio::spawn(async move {
        deliverer.deliver(&key).await.unwrap();
    });
    handle.set(delivery.abort_handle()).unwrap();
    delivery
}

#[tokio::test]
async fn a_delivery_makes_four_calls_to_dynamodb() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let (deliverer, faults) = faulty(&world).await;
    faults.inject(|operation, call| {
        assert_eq!(operation, CALLS[call]);
        None
    });
    assert_eq!(shown(&deliverer.deliver(&key).await.unwrap()), ["sent: id-1"]);
    assert_eq!(faults.calls(), CALLS.len());
    // The org is cached.
    faults.clear();
    deliverer.deliver(&world.put_for(6, &sms()).await).await.unwrap();
    assert_eq!(faults.calls(), CALLS.len() - 1);
}

#[tokio::test]
async fn a_process_killed_at_any_call_to_dynamodb_loses_no_message() {
    for (at, operation) in CALLS.into_iter().enumerate() {
        for executed in [false, true] {
            let case = format!("{operation}, call {at}, executed: {executed}");
            let world = World::new(BY_AWS).await;
            let key = world.put(&sms()).await;
            let (deliverer, faults) = faulty(&world).await;
            let handle = Arc::<OnceLock<AbortHandle>>::default();
            let killed = Arc::clone(&handle);
            faults.inject(move |_, call| {
                let handle = killed.get().unwrap().clone();
                (call == at).then(|| {
                    if executed {
                        return Fault::Killed(handle);
                    }
                    handle.abort();
                    Fault::Dropped
                })
            });
            let delivery = start(&deliverer, &key, &handle);
            assert!(delivery.await.unwrap_err().is_cancelled(), "{case}");

            world.deliver(&key).await;
            let times = if at == OUTCOME && !executed { 2 } else { 1 };
            assert_eq!(world.providers.taken().len(), times, "{case}");
            assert!(world.states(&key).await[0].starts_with("sent: id-"), "{case}");
        }
    }
}

#[tokio::test]
async fn a_process_killed_while_it_waits_for_a_provider_loses_no_message() {
    for taken in [false, true] {
        let world = World::new(BY_AWS).await;
        let key = world.put(&sms()).await;
        let handle = Arc::<OnceLock<AbortHandle>>::default();
        let killed = Arc::clone(&handle);
        world.providers.reply(move |_, before| {
            let handle = killed.get().unwrap().clone();
            match (before, taken) {
                (0, true) => Reply::TakenAndKilled(handle),
                (0, false) => {
                    handle.abort();
                    Reply::Silent
                }
                _ => Reply::Taken,
            }
        });
        assert!(start(&world.deliverer, &key, &handle).await.unwrap_err().is_cancelled());
        assert_eq!(world.states(&key).await, ["sending"]);
        assert!(shown(&world.deliver(&key).await)[0].starts_with("sent"));
        assert_eq!(world.providers.taken().len(), if taken { 2 } else { 1 });
    }
}

#[tokio::test]
async fn only_the_channel_that_was_interrupted_is_sent_again() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}])).await;
    world
        .providers
        .reply(|received, _| if received.called == Called::Text { Reply::Silent } else { Reply::Taken });
    let handle = Arc::<OnceLock<AbortHandle>>::default();
    let delivery = start(&world.deliverer, &key, &handle);
    while world.states(&key).await != ["sending", "sent: id-1"] {
        tokio::task::yield_now().await;
    }
    delivery.abort();
    let sent_by_then = world.providers.taken();
    world.providers.reply(|_, _| Reply::Taken);
    assert_eq!(shown(&world.deliver(&key).await), ["sent: id-1"]);
    assert_eq!(sent_by_then.iter().map(|received| received.called).collect::<Vec<_>>(), [Called::Email]);
    assert_eq!(
        world.providers.taken().iter().map(|received| received.called).collect::<Vec<_>>(),
        [Called::Text]
    );
}

#[tokio::test]
async fn a_failure_of_dynamodb_at_any_call_is_retried_and_sends_nothing_twice() {
    for at in 0..CALLS.len() {
        for fault in [
            Fault::error("ThrottlingException"),
            Fault::error("InternalServerError"),
            Fault::Reset,
            Fault::ResetBeforeAnswer,
            Fault::ResetWithinAnswer,
        ] {
            let world = World::new(BY_AWS).await;
            let key = world.put(&sms()).await;
            let (deliverer, faults) = faulty(&world).await;
            let injected = fault.clone();
            faults.inject(move |_, call| (call == at).then(|| injected.clone()));
            let outcomes = deliverer.deliver(&key).await.unwrap();
            assert_eq!(shown(&outcomes), ["sent: id-1"], "{fault:?} at call {at}");
            assert_eq!(world.states(&key).await, ["sent: id-1"], "{fault:?} at call {at}");
            assert_eq!(world.providers.taken().len(), 1, "{fault:?} at call {at}");
        }
    }
}

#[tokio::test]
async fn an_outage_of_dynamodb_before_the_message_is_sent_is_an_error_and_nothing_is_lost() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let (deliverer, faults) = faulty(&world).await;
    faults.inject(|_, call| (call >= 2).then(|| Fault::error("InternalServerError")));
    let error = deliverer.deliver(&key).await.unwrap_err();
    assert!(error.is_unavailable() && !error.is_corrupt(), "{error:?}");
    assert_eq!((world.providers.received().len(), world.states(&key).await), (0, vec!["-".to_owned()]));
    faults.clear();
    assert_eq!(shown(&deliverer.deliver(&key).await.unwrap()), ["sent: id-1"]);
}

#[tokio::test]
async fn an_outage_after_the_message_was_sent_is_waited_for() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let (service, faults) = with_fault_proxy(&world.table, "store.server").await;
    let limits =
        loyalty_codes::delivery::Limits { store_outcome: Duration::from_secs(30), ..crate::world::SHORT };
    let deliverer = crate::world::deliverer(service.store, world.clock().clock(), &world.providers);
    let deliverer = deliverer.with_limits(limits);
    // More failures than the SDK has attempts.
    faults.inject(|_, call| {
        (OUTCOME..OUTCOME + 10).contains(&call).then(|| Fault::error("InternalServerError"))
    });
    assert_eq!(shown(&deliverer.deliver(&key).await.unwrap()), ["sent: id-1"]);
    assert_eq!(world.states(&key).await, ["sent: id-1"]);
    assert_eq!(world.deliver(&key).await, []);
    assert_eq!(world.providers.taken().len(), 1);
}

#[tokio::test]
async fn of_deliveries_that_begin_at_the_same_time_one_sends() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let (deliverer, faults) = faulty(&world).await;
    let all_have_read = Arc::new(SetOnce::new());
    let held = Arc::clone(&all_have_read);
    let mut claims = 0;
    faults.inject(move |operation, _| {
        if operation != "UpdateItem" || held.initialized() {
            return None;
        }
        claims += 1;
        if claims == 10 {
            held.set(None).unwrap();
            return None;
        }
        Some(Fault::Held(Arc::clone(&held)))
    });
    let keys = vec![key.clone(); 10];
    assert!(deliverer.deliver_all(&keys).await.is_empty());
    assert_eq!(world.providers.taken().len(), 1);
    assert_eq!(world.states(&key).await, ["sent: id-1"]);
}
