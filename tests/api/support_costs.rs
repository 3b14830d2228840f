//! What operators ask about a customer costs as much in a table of many customers as in one of ten:
//! the same round trips and the same capacity units. `make test-scale` counts with 100,000.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, PutRequest, WriteRequest},
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use loyalty_codes::{
    model::{
        customer::{IdentifierName, UserId},
        org::OrgId,
    },
    store::{Act, CustomerState, ErasureStart, Store},
};
use serde_json::json;

use crate::{
    common::{
        MOBILE, TestService, TestTable, USER,
        capacity::{Capacity, Consumed},
    },
    erasure::org,
    guard::{request_for, sending},
};

/// The user id of the first of the customers who are written in bulk.
const FIRST: usize = 400_000_000;
/// How many items one batch writes at most.
const BATCH: usize = 25;
const CONCURRENT: usize = 16;

/// The items of a customer with a mobile, as the service writes them.
fn items_of(user: usize) -> [HashMap<String, AttributeValue>; 3] {
    let mobile = format!("91{:010}", 9_200_000_000 + user - FIRST);
    let s = |text: String| AttributeValue::S(text);
    let item = |pk: String, sk: &str, attributes: Vec<(&str, AttributeValue)>| {
        let key = [("PK", s(pk)), ("SK", s(sk.to_owned())), ("user_id", AttributeValue::N(user.to_string()))];
        let all = key.into_iter().chain(attributes);
        all.map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>()
    };
    let profiles = json!([{"account": "INSTORE:", "first_name": "Tom", "last_name": null}]);
    let identifiers = json!([["INSTORE:", "mobile", mobile]]);
    let accounts = AttributeValue::Ss(vec!["INSTORE:".to_owned()]);
    [
        item(
            format!("ORG#966#USER#{user}"),
            "PROFILE",
            vec![("profiles", s(profiles.to_string())), ("identifiers", s(identifiers.to_string()))],
        ),
        item(format!("ORG#966#ID#INSTORE##mobile#{mobile}"), "ID", Vec::new()),
        item(format!("ORG#966#ID###mobile#{mobile}"), "ID", vec![("accounts", accounts)]),
    ]
}

/// Writes customers in batches.
async fn write_customers(table: &TestTable, count: usize) {
    let client = table.client();
    let requests = (FIRST..FIRST + count).flat_map(items_of).map(|item| {
        let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    });
    let requests: Vec<_> = requests.collect();
    let batches: Vec<_> = requests.chunks(BATCH).collect();
    for batches in batches.chunks(CONCURRENT) {
        let writes = batches.iter().map(async |batch| {
            let write = client.batch_write_item().request_items(table.name(), batch.to_vec());
            let written = write.send().await.unwrap();
            assert!(written.unprocessed_items.is_none_or(|items| items.is_empty()));
        });
        join_all(writes).await;
    }
}

/// A process whose consumption is counted.
struct Counted {
    store: Store,
    capacity: Capacity,
}

impl Counted {
    fn new(table: &TestTable) -> Self {
        let capacity = Capacity::default();
        let config = table.client().config().to_builder().interceptor(capacity.clone()).build();
        Self { store: Store::new(Client::from_conf(config), table.name().to_owned()), capacity }
    }

    /// What an operation consumes.
    async fn count<T>(&self, operation: impl AsyncFnOnce(&Store) -> T) -> Consumed {
        self.capacity.take();
        operation(&self.store).await;
        self.capacity.take()
    }
}

/// What finding, showing and erasing the demo customer and listing the audit consume in a table
/// with this many other customers.
async fn consumption(customers: usize) -> Vec<(&'static str, Consumed)> {
    let (table, service) = sending("CONF_OTP_RATE_LIMIT_ONE_HOUR = 20").await;
    write_customers(&table, customers).await;
    for scope in ["POINTS", "REGISTRATION"] {
        let body = request_for("MOBILE", MOBILE, scope, &[("SMS", MOBILE)]);
        assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    }
    assert!(!service.is_right("WRONG").await);
    assert_bulk_is_served(&service, customers).await;
    let org = org(&service).await;
    let now = service.clock.now();
    let act = Act { org: OrgId(966), who: "test".to_owned(), what: "test", detail: json!({}), at: now };
    service.store.begin_act(&act).await.unwrap();

    let counted = Counted::new(&table);
    let mobile = org.identifier(IdentifierName::Mobile, MOBILE).unwrap();
    let nobody = org.identifier(IdentifierName::Mobile, "9010000022").unwrap();
    let user = UserId(USER);
    let mut all = Vec::new();
    let find = async |store: &Store| {
        let found = store.search(&org, &mobile).await.unwrap();
        assert!(found.customers.contains_key(&user));
    };
    all.push(("find", counted.count(find).await));
    let find_nobody = async |store: &Store| {
        let found = store.search(&org, &nobody).await.unwrap();
        assert!(found.customers.is_empty() && found.contacts.is_empty());
    };
    all.push(("find nobody", counted.count(find_nobody).await));
    let show = async |store: &Store| {
        let history = store.customer_history(&org, user).await.unwrap().unwrap();
        assert!(matches!(history.state, CustomerState::Registered { .. }));
        assert_eq!((history.own.otps.len(), history.contacts.len()), (1, 1));
    };
    all.push(("show", counted.count(show).await));
    let audit = async |store: &Store| {
        let entries = store.audit_entries(OrgId(966), now - TimeDelta::days(90), now).await.unwrap();
        assert_eq!(entries.len(), 1);
    };
    all.push(("audit list", counted.count(audit).await));
    let erase = async |store: &Store| {
        let begun = store.begin_erasure(&org, user, now).await.unwrap();
        let ErasureStart::Begun(erasure) = begun else { panic!("{begun:?}") };
        store.finish_erasure(&org, &erasure).await.unwrap();
    };
    all.push(("erase", counted.count(erase).await));
    all
}

/// Panics unless a request finds the last one of the customers that were written in bulk.
async fn assert_bulk_is_served(service: &TestService, customers: usize) {
    let last = 9_200_000_000 + customers - 1;
    let lookup = format!("/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue={last}");
    assert_eq!(service.get(&lookup).await.json["entity"], FIRST + customers - 1);
}

/// How many customers the larger table has, unless `CUSTOMERS` says it. The embedded engine takes a
/// minute to write 100,000 in a build that is not optimized.
const MANY: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn support_and_erasure_cost_the_same_with_ten_customers_and_with_many() {
    // Other engines report no units for some operations, and write customers slowly.
    if std::env::var_os("DYNAMODB_ENDPOINT").is_some() {
        return;
    }
    let many = std::env::var("CUSTOMERS").map_or(MANY, |count| count.parse().unwrap());
    let (few, many) = (consumption(10).await, consumption(many).await);
    assert_eq!(few, many);
    let round_trips = few.iter().map(|(what, consumed)| (*what, consumed.round_trips));
    let expected = [("find", 1), ("find nobody", 5), ("show", 17), ("audit list", 4), ("erase", 51)];
    assert_eq!(round_trips.collect::<Vec<_>>(), expected);
    assert!(few.iter().all(|(_, consumed)| consumed.read_units > 0.0));
}
