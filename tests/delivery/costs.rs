//! The round trips and capacity units of a delivery.

use aws_sdk_dynamodb::Client;
use loyalty_codes::store::Store;
use serde_json::json;

use crate::{
    common::capacity::{Capacity, Consumed},
    world::{BY_AWS, EMAIL, MOBILE, World, deliverer},
};

#[tokio::test]
async fn a_delivery_costs_three_reads_and_a_write_before_and_after_each_channel() {
    let world = World::with_config(BY_AWS, "CONF_OTP_MESSAGES_PER_HOUR = 1000").await;
    let capacity = Capacity::default();
    let config = world.service.client.config().to_builder().interceptor(capacity.clone());
    let store = Store::new(Client::from_conf(config.build()), world.table.name().to_owned());
    let deliverer = deliverer(store, world.clock().clock(), &world.providers);
    let sms = json!([{"type": "SMS", "value": MOBILE}]);
    let both = json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}]);
    let mut costs = Vec::new();
    // The last one is redelivered.
    for (user, channels) in [(1, &sms), (2, &both), (2, &both)] {
        let key = world.put_for(user, channels).await;
        if costs.len() == 2 {
            deliverer.deliver(&key).await.unwrap();
            capacity.take();
        }
        deliverer.deliver(&key).await.unwrap();
        costs.push(capacity.take());
    }
    let row = |round_trips, read_units, write_units| Consumed { round_trips, read_units, write_units };
    assert_eq!(costs, [row(4, 3.0, 3.0), row(5, 3.0, 4.0), row(1, 3.0, 0.0)]);
}
