//! Processes that end, DynamoDB failures and redeliveries in the middle of a delivery.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use loyalty_codes::{
    delivery::{Deliverer, DeliveryError},
    model::{
        delivery_state::{ChannelState, Claim, Outcome},
        message::ChannelType,
    },
    store::{StateChange, keys::Key},
};
use serde_json::{Value, json};
use tokio::{
    sync::SetOnce,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    common::faults::{Fault, Faults, with_fault_proxy},
    providers::{Called, Received, Reply},
    world::{BY_AWS, EMAIL, MOBILE, World, shown},
};

fn sms() -> Value {
    json!([{"type": "SMS", "value": MOBILE}])
}

/// A message whose delivery is interrupted.
#[derive(Clone, Copy)]
struct Scenario {
    /// Of the org.
    channels: &'static str,
    config: &'static str,
    /// The channels of the message.
    to: &'static [ChannelType],
    /// The calls to DynamoDB that its delivery makes, in order. As many of the last ones as
    /// channels are sent store outcomes.
    calls: &'static [&'static str],
    /// What becomes of each channel, without the provider's id.
    ends: &'static [&'static str],
    /// The messages that are counted in the budget.
    counted: Option<u64>,
}

const ONE_CHANNEL: Scenario = Scenario {
    channels: BY_AWS,
    config: "",
    to: &[ChannelType::Sms],
    calls: &["BatchGetItem", "UpdateItem", "UpdateItem"],
    ends: &["sent"],
    counted: None,
};
/// The second channel is a webhook.
const TWO_CHANNELS: Scenario = Scenario {
    channels: BY_AWS,
    config: "CONF_OTP_MESSAGES_PER_HOUR = 2",
    to: &[ChannelType::Sms, ChannelType::Whatsapp],
    calls: &["BatchGetItem", "UpdateItem", "UpdateItem", "UpdateItem", "UpdateItem"],
    ends: &["sent", "sent"],
    counted: Some(2),
};
/// A process that is killed has counted its messages.
const TWO_CHANNELS_AND_ROOM: Scenario = Scenario { config: "CONF_OTP_MESSAGES_PER_HOUR = 4", ..TWO_CHANNELS };
const ROOM_FOR_ONE: Scenario = Scenario {
    channels: BY_AWS,
    config: "CONF_OTP_MESSAGES_PER_HOUR = 1",
    to: &[ChannelType::Sms, ChannelType::Email],
    calls: &["BatchGetItem", "UpdateItem", "UpdateItem", "UpdateItem"],
    ends: &["sent", "over_budget"],
    counted: Some(1),
};
const ONE_NOT_CONFIGURED: Scenario = Scenario {
    channels: "SMS = \"aws\"",
    config: "",
    to: &[ChannelType::Email, ChannelType::Sms],
    calls: &["BatchGetItem", "UpdateItem", "UpdateItem"],
    ends: &["failed: not_configured", "sent"],
    counted: None,
};

impl Scenario {
    async fn world(&self) -> (World, Key) {
        let world = World::with_config(self.channels, self.config).await;
        let address = |channel: &ChannelType| if *channel == ChannelType::Email { EMAIL } else { MOBILE };
        let channels: Vec<Value> =
            self.to.iter().map(|channel| json!({"type": channel, "value": address(channel)})).collect();
        let key = world.put(&channels.into()).await;
        (world, key)
    }

    /// How many channels are sent.
    fn sent(&self) -> usize {
        self.ends.iter().filter(|end| **end == "sent").count()
    }

    /// The first call that stores an outcome.
    fn first_outcome(&self) -> usize {
        self.calls.len() - self.sent()
    }
}

fn without_ids(states: &[String]) -> Vec<&str> {
    states.iter().map(|state| if state.starts_with("sent: ") { "sent" } else { state }).collect()
}

/// How often a provider has taken each channel's message that was taken.
fn times_taken(world: &World) -> Vec<usize> {
    let mut times: Vec<(Called, usize)> = Vec::new();
    for Received { called, .. } in world.providers.taken() {
        match times.iter_mut().find(|(found, _)| *found == called) {
            Some((_, times)) => *times += 1,
            None => times.push((called, 1)),
        }
    }
    times.into_iter().map(|(_, times)| times).collect()
}

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
async fn a_delivery_makes_these_calls_to_dynamodb() {
    for scenario in [ONE_CHANNEL, TWO_CHANNELS, ROOM_FOR_ONE, ONE_NOT_CONFIGURED] {
        let (world, key) = scenario.world().await;
        let (deliverer, faults) = faulty(&world).await;
        faults.inject(move |operation, call| {
            assert_eq!(operation, scenario.calls[call]);
            None
        });
        deliverer.deliver(&key).await.unwrap();
        assert_eq!(without_ids(&world.states(&key).await), scenario.ends);
        assert_eq!(faults.calls(), scenario.calls.len());
    }
}

#[tokio::test]
async fn a_process_killed_at_any_call_to_dynamodb_loses_no_message() {
    for scenario in [ONE_CHANNEL, TWO_CHANNELS_AND_ROOM, ONE_NOT_CONFIGURED] {
        for (at, operation) in scenario.calls.iter().enumerate() {
            for executed in [false, true] {
                let case = format!("{:?}: {operation}, call {at}, executed: {executed}", scenario.to);
                let (world, key) = scenario.world().await;
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
                assert_eq!(without_ids(&world.states(&key).await), scenario.ends, "{case}");
                let times = times_taken(&world);
                assert_eq!(times.len(), scenario.sent(), "{case}");
                let at_least_twice = usize::from(at >= scenario.first_outcome() && !executed);
                let sent_more: usize = times.iter().map(|times| times - 1).sum();
                // The process may have sent another channel before it was killed, or not.
                let others = if at >= scenario.first_outcome() { scenario.sent() - 1 } else { 0 };
                assert!((at_least_twice..=at_least_twice + others).contains(&sent_more), "{case}: {times:?}");
                assert!(times.iter().all(|times| *times <= 2), "{case}: {times:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_process_killed_while_it_waits_for_a_provider_loses_no_message() {
    for scenario in [ONE_CHANNEL, TWO_CHANNELS, ROOM_FOR_ONE] {
        for (at, taken) in (0..scenario.sent()).flat_map(|at| [(at, false), (at, true)]) {
            let (world, key) = scenario.world().await;
            let handle = Arc::<OnceLock<AbortHandle>>::default();
            let killed = Arc::clone(&handle);
            world.providers.reply(move |_, before| {
                let handle = killed.get().unwrap().clone();
                match (before == at, taken) {
                    (true, true) => Reply::TakenAndKilled(handle),
                    (true, false) => {
                        handle.abort();
                        Reply::Silent
                    }
                    _ => Reply::Taken,
                }
            });
            assert!(start(&world.deliverer, &key, &handle).await.unwrap_err().is_cancelled());
            assert!(world.states(&key).await.contains(&"sending".to_owned()));
            world.deliver(&key).await;
            assert_eq!(without_ids(&world.states(&key).await), scenario.ends);
            let times = times_taken(&world);
            assert_eq!(times.len(), scenario.sent());
            assert!(times.iter().all(|times| *times <= 2), "{times:?}");
            assert!(!taken || times.contains(&2), "{times:?}");
            assert_eq!(world.counted().await, scenario.counted);
        }
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
    for scenario in [ONE_CHANNEL, TWO_CHANNELS, ROOM_FOR_ONE, ONE_NOT_CONFIGURED] {
        for at in 0..scenario.calls.len() {
            for fault in [
                Fault::error("ThrottlingException"),
                Fault::error("InternalServerError"),
                Fault::Reset,
                Fault::ResetBeforeAnswer,
                Fault::ResetWithinAnswer,
            ] {
                let case = format!("{:?}: {fault:?} at call {at}", scenario.to);
                let (world, key) = scenario.world().await;
                let (deliverer, faults) = faulty(&world).await;
                faults.inject(move |_, call| (call == at).then(|| fault.clone()));
                let outcomes = deliverer.deliver(&key).await.unwrap();
                assert_eq!(without_ids(&shown(&outcomes)), scenario.ends, "{case}");
                assert_eq!(without_ids(&world.states(&key).await), scenario.ends, "{case}");
                assert_eq!(world.providers.taken().len(), scenario.sent(), "{case}");
                assert_eq!(world.counted().await, scenario.counted, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_repeated_claim_is_recognised_until_a_channel_has_ended() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}])).await;
    let claim = Claim("1".to_owned());
    let change = |position, from, to| StateChange { position, from, to };
    let claimed = [
        change(0, None, ChannelState::Sending(claim.clone())),
        change(1, None, ChannelState::Done(Outcome::OverBudget)),
    ];
    let rival = [change(0, None, ChannelState::Sending(Claim("2".to_owned())))];
    let sent = Outcome::Sent { provider_id: "id-1".to_owned() };
    let ended = [change(0, Some(claim), ChannelState::Done(sent))];
    let store = &world.service.store;
    // The claims that come last were sent before, and were late on their way.
    for (changes, expected) in [
        (&claimed[..], true),
        (&claimed, true),
        (&rival, false),
        (&ended, true),
        (&ended, true),
        (&claimed, false),
    ] {
        assert_eq!(store.change_states(&key, changes).await.unwrap(), expected, "{changes:?}");
    }
    assert_eq!(world.states(&key).await, ["sent: id-1", "over_budget"]);
}

#[tokio::test]
async fn an_outage_of_dynamodb_before_the_message_is_sent_is_an_error_and_nothing_is_lost() {
    let world = World::new(BY_AWS).await;
    let key = world.put(&sms()).await;
    let (deliverer, faults) = faulty(&world).await;
    faults.inject(|_, call| (call >= 1).then(|| Fault::error("InternalServerError")));
    let error = deliverer.deliver(&key).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Store(error) if error.is_unavailable()), "{error:?}");
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
        let outcome = ONE_CHANNEL.first_outcome();
        (outcome..outcome + 10).contains(&call).then(|| Fault::error("InternalServerError"))
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
    assert!(deliverer.deliver_all(&keys, None).await.is_empty());
    assert_eq!(world.providers.taken().len(), 1);
    assert_eq!(world.states(&key).await, ["sent: id-1"]);
}
