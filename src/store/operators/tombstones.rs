//! What stays of a customer who was erased or merged into another one.
//!
//! The customer's item becomes a tombstone, so that the user id is never given again and nobody can
//! join the customer. An identity of an erased customer becomes a tombstone if a numbering plan of
//! the org could make its number. All tombstones have the attribute [`GONE_AT`].
//!
//! A request that found the customer just before must not write into the customer's partition
//! afterwards. No request reads the customer's item for that. Instead, the transaction that writes
//! the tombstone also marks items on which such requests have conditions: it uses up the quotas of
//! the day, and gives the failed attempts of each scope another version. So issuing fails at the
//! quota, and a validation at the failed attempts, and both look the customer up again. The marks
//! expire after two days, and hold nothing but the time.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, builders::UpdateBuilder};
use chrono::{DateTime, Days, TimeDelta, Utc};

use super::{
    Item, Store, StoreError,
    customer_writes::{IDENTIFIERS, PROFILES, StoredCustomer, USER_ID},
    issuing::ISSUED,
    item::{GONE_AT, NewItem, json, millis, n, s, ttl},
    keys,
    otps::{TIMES, VERSION},
};
use crate::model::{
    customer::UserId,
    org::Org,
    otp::{OrgDay, OtpOwner, OtpSeries, Scope, ScopeOwner},
    profile::StoredIdentifier,
};

/// On the tombstone of a merged customer: the user id of the customer who has the identifiers.
const MERGED_INTO: &str = "merged_into";
/// On the tombstone of a customer whose erasure has not ended: the identifiers, by which the rest
/// of it finds what is to be deleted.
pub(super) const PENDING: &str = "pending";

/// How long marks stay: longer than any request that was under way.
const MARKS_KEPT: TimeDelta = TimeDelta::days(2);
/// Added to the version of failed attempts. No validation has read such a version.
const VERSION_LEAP: u64 = 1_000_000;

/// The tombstone of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub gone_at: DateTime<Utc>,
    /// `None` if the customer was erased.
    pub merged_into: Option<UserId>,
    /// The identifiers of a customer whose erasure has not ended.
    pub pending: Option<Vec<StoredIdentifier>>,
}

impl Tombstone {
    /// The tombstone of a customer's item. `None` if the item is that of a customer.
    pub(super) fn read(item: &Item<'_>) -> Result<Option<Self>, StoreError> {
        if !item.is_gone() {
            return Ok(None);
        }
        Ok(Some(Self {
            gone_at: item.millis(GONE_AT)?,
            merged_into: item.has(MERGED_INTO).then(|| item.n(MERGED_INTO).map(UserId)).transpose()?,
            pending: item.has(PENDING).then(|| item.json(PENDING)).transpose()?,
        }))
    }
}

impl Store {
    /// The writes that replace a customer by `tombstone` and mark the items on which requests that
    /// are under way have conditions. The first one is the customer's item, on the condition that
    /// the customer is unchanged.
    pub(super) fn replace_by_tombstone(
        &self,
        org: &Org,
        stored: &StoredCustomer,
        tombstone: &Tombstone,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let (user, at) = (stored.customer.user, tombstone.gone_at);
        let mut item =
            NewItem::new(&keys::profile(org.id(), user)).with(USER_ID, n(user)).with(GONE_AT, millis(at));
        if let Some(into) = tombstone.merged_into {
            item = item.with(MERGED_INTO, n(into));
        }
        if let Some(pending) = &tombstone.pending {
            item = item.with(PENDING, json(pending)?);
        }
        let mut writes = vec![self.put_if(item, |put| {
            put.condition_expression("#identifiers = :identifiers AND #profiles = :profiles")
                .expression_attribute_names("#identifiers", IDENTIFIERS)
                .expression_attribute_names("#profiles", PROFILES)
                .expression_attribute_values(":identifiers", s(&stored.identifiers))
                .expression_attribute_values(":profiles", s(&stored.profiles))
        })?];
        let series = |scope| OtpSeries { org: org.id(), owner: OtpOwner::Customer(user), scope };
        // The clock of the process that issues may be in another day.
        let today = OrgDay::of(at, &org.timezone).date;
        let days = [today.checked_sub_days(Days::new(1)), Some(today), today.checked_add_days(Days::new(1))];
        for day in days.into_iter().flatten() {
            let key = keys::daily_quota(&series(Scope::Points), day);
            writes.push(self.update(&key, |update| {
                mark(update, at)
                    .update_expression("SET #count = :all, #gone = :at, #expires = :expires")
                    .expression_attribute_names("#count", ISSUED)
                    .expression_attribute_values(":all", n(i64::MAX))
            })?);
        }
        for scope in Scope::ALL.iter().filter(|scope| scope.owner() != ScopeOwner::Contact) {
            writes.push(self.update(&keys::failed_attempts(&series(*scope)), |update| {
                mark(update, at)
                    .update_expression(
                        "SET #times = :none, #gone = :at, #expires = :expires ADD #version :leap",
                    )
                    .expression_attribute_names("#times", TIMES)
                    .expression_attribute_names("#version", VERSION)
                    .expression_attribute_values(":none", AttributeValue::L(Vec::new()))
                    .expression_attribute_values(":leap", n(VERSION_LEAP))
            })?);
        }
        Ok(writes)
    }

    /// The write that makes an identity of `user` a tombstone, which nobody can have again.
    pub(super) fn retire_number(
        &self,
        org: &Org,
        number: &StoredIdentifier,
        user: UserId,
        at: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        let item =
            NewItem::new(&keys::owner(org.id(), number)).with(USER_ID, n(user)).with(GONE_AT, millis(at));
        self.put_owner(item, user)
    }
}

/// Adds to an update what its expression needs to mark the item.
fn mark(update: UpdateBuilder, at: DateTime<Utc>) -> UpdateBuilder {
    update
        .expression_attribute_names("#gone", GONE_AT)
        .expression_attribute_names("#expires", keys::EXPIRES_AT)
        .expression_attribute_values(":at", millis(at))
        .expression_attribute_values(":expires", ttl(at + MARKS_KEPT))
}
