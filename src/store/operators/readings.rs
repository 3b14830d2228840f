//! Readings of an org's counter of card numbers: the rate at which numbers are given. Operators'
//! commands write them, at most one a day, because a request must not write more than its number.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Item, Store, StoreError,
    item::{NewItem, json, millis, n, ttl},
    keys,
};
use crate::model::{
    card_number::{history::IssuedRange, rate::Reading},
    org::OrgId,
};

const AT: &str = "at";
const PLAN: &str = "plan";
const NEXT: &str = "next";

/// How long a reading is kept.
const KEPT: TimeDelta = TimeDelta::days(400);

impl Store {
    /// Writes down the state of an org's counter at `now`. The last reading of a day counts.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn write_reading(
        &self,
        org: OrgId,
        counter: &IssuedRange,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let item = NewItem::new(&keys::reading(org, now.date_naive()))
            .with(AT, millis(now))
            .with(PLAN, json(&counter.plan)?)
            .with(NEXT, n(counter.next))
            .with(keys::EXPIRES_AT, ttl(now + KEPT));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item.into_attributes()));
        put.send().await.map(|_| ()).map_err(StoreError::from_sdk)
    }

    /// The readings of an org's counter, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn readings(&self, org: OrgId) -> Result<Vec<Reading>, StoreError> {
        let items = self.query(&keys::readings(org), "0", "9999").await?;
        let read = |attributes| {
            let item = Item(attributes);
            Ok(Reading { at: item.millis(AT)?, plan: item.json(PLAN)?, next: item.n(NEXT)? })
        };
        items.iter().map(read).collect()
    }
}
