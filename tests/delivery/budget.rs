//! `CONF_OTP_MESSAGES_PER_HOUR`.

use chrono::TimeDelta;
use serde_json::json;

use crate::{
    providers::Reply,
    world::{BY_AWS, EMAIL, MOBILE, World, shown},
};

#[tokio::test]
async fn beyond_the_hourly_budget_nothing_is_sent() {
    let world = World::with_config(BY_AWS, "CONF_OTP_MESSAGES_PER_HOUR = 3").await;
    let both = json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}]);
    let first = world.put_for(1, &both).await;
    let second = world.put_for(2, &both).await;
    let third = world.put_for(3, &both).await;
    assert!(shown(&world.deliver(&first).await).iter().all(|state| state.starts_with("sent")));
    let partly = shown(&world.deliver(&second).await);
    assert_eq!(partly.iter().filter(|state| *state == "over_budget").count(), 1, "{partly:?}");
    assert_eq!(shown(&world.deliver(&third).await), ["over_budget", "over_budget"]);
    assert_eq!(world.states(&third).await, ["over_budget", "over_budget"]);
    assert_eq!(world.providers.taken().len(), 3);
    // Half past the hour in UTC.
    world.clock().advance(TimeDelta::minutes(29));
    assert_eq!(shown(&world.deliver(&world.put_for(4, &both).await).await), ["over_budget", "over_budget"]);
    world.clock().advance(TimeDelta::minutes(1));
    let next_hour = world.deliver(&world.put_for(4, &both).await).await;
    assert!(shown(&next_hour).iter().all(|state| state.starts_with("sent")), "{next_hour:?}");
}

#[tokio::test]
async fn deliveries_at_the_same_time_stay_within_the_budget() {
    let world = World::with_config(BY_AWS, "CONF_OTP_MESSAGES_PER_HOUR = 7").await;
    let mut keys = Vec::new();
    for user in 0..20 {
        keys.push(world.put_for(user, &json!([{"type": "SMS", "value": MOBILE}])).await);
    }
    assert!(world.deliverer.deliver_all(&keys, None).await.is_empty());
    assert_eq!(world.providers.taken().len(), 7);
}

#[tokio::test]
async fn a_message_that_is_sent_once_more_is_not_counted_again() {
    let world = World::with_config(BY_AWS, "CONF_OTP_MESSAGES_PER_HOUR = 1").await;
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}])).await;
    world.providers.reply(|_, _| Reply::Silent);
    let started = tokio::spawn({
        let (deliverer, key) = (world.deliverer.clone(), key.clone());
        async move { deliverer.deliver(&key).await }
    });
    while world.providers.received().is_empty() {
        tokio::task::yield_now().await;
    }
    started.abort();
    world.providers.reply(|_, _| Reply::Taken);
    assert_eq!(shown(&world.deliver(&key).await), ["sent: id-1"]);
}
