//! The writes of a transaction that changes a customer and everything that points at it.
//!
//! Each identifier of a customer has an identity item, by which requests find the customer in the
//! identifier's account. A mobile or an e-mail address has a second one without account, the
//! org-wide identity: by it, a registration in another account finds the customer. It contains the
//! accounts in which the customer has the identifier, and is deleted with the last of them.
//!
//! Every transaction that changes identity items of a customer also changes the customer's item, on
//! the condition that its list of identifiers is the one that was read. So the list decides which
//! items exist, and concurrent changes of one customer cannot mix. Two customers who want the same
//! identifier meet at its identity item, whose condition is that it is free or the customer's own.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem};
use chrono::{DateTime, Utc};

use super::{
    Attributes, Item, ResponseToStore, Store, StoreError, StoredResponse,
    item::{NewItem, json, millis, n, s},
    keys,
    transaction::Outcome,
};
use crate::model::{
    customer::UserId,
    org::OrgId,
    profile::{Customer, Owners, StoredIdentifier},
};

pub(super) const USER_ID: &str = "user_id";
/// On an org-wide identity: the accounts in which the customer has the identifier.
pub(super) const ACCOUNTS: &str = "accounts";
/// On a customer's item: a list of account, kind and value.
pub(super) const IDENTIFIERS: &str = "identifiers";
/// On a customer's item.
pub(super) const PROFILES: &str = "profiles";
/// On a customer's item.
pub(super) const REGISTERED_AT: &str = "registered_at";

/// The condition that an identity is free or belongs to the customer `:user`.
fn free_or_own() -> String {
    format!("attribute_not_exists({USER_ID}) OR {USER_ID} = :user")
}

/// A customer as it was read, with the stored texts for the condition that they are unchanged.
pub(super) struct StoredCustomer {
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the upgrade of a table reads it"))]
    pub org: OrgId,
    pub customer: Customer,
    pub identifiers: String,
    pub profiles: String,
}

impl StoredCustomer {
    pub fn read(attributes: &Attributes) -> Result<Self, StoreError> {
        let item = Item(attributes);
        let (org, user) = keys::profile_owner(item.s(keys::PK)?)
            .ok_or_else(|| StoreError::corrupt("a customer's item has an invalid key"))?;
        let customer =
            Customer { user, profiles: item.json(PROFILES)?, identifiers: item.json(IDENTIFIERS)? };
        let (identifiers, profiles) = (item.s(IDENTIFIERS)?.to_owned(), item.s(PROFILES)?.to_owned());
        Ok(Self { org, customer, identifiers, profiles })
    }
}

/// The item of a user id.
pub(super) enum ProfileItem {
    Absent,
    /// The customer was erased, or merged into another one.
    Gone,
    Customer(StoredCustomer),
}

/// What a write is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The customer's own item.
    Customer,
    /// The identity item of an added identifier.
    Added(StoredIdentifier),
    /// The identity item of a removed identifier.
    Removed,
    /// An org-wide identity.
    OrgWide,
}

/// How the transaction of a change ended.
pub(super) enum Written {
    Done,
    /// A response is stored under the request's key. Nothing was written.
    Replay(StoredResponse),
    /// The conditions of these writes failed. Nothing was written.
    Refused(Vec<Part>),
}

/// A customer before a change.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// The customer is registered at this time.
    New(DateTime<Utc>),
    Stored(&'a StoredCustomer),
}

/// A customer before and after a change.
pub(super) struct CustomerWrites<'a> {
    pub before: Before<'a>,
    pub after: &'a Customer,
    /// The owners of the org-wide identities of all added and removed identifiers.
    pub owners: &'a Owners,
}

impl Store {
    /// The customer with that user id.
    pub(super) async fn stored_customer(
        &self,
        org: OrgId,
        user: UserId,
    ) -> Result<Option<StoredCustomer>, StoreError> {
        Ok(match self.profile_item(org, user).await? {
            ProfileItem::Customer(stored) => Some(stored),
            ProfileItem::Absent | ProfileItem::Gone => None,
        })
    }

    /// What the item of a user id is.
    pub(super) async fn profile_item(&self, org: OrgId, user: UserId) -> Result<ProfileItem, StoreError> {
        Ok(match self.get(&keys::profile(org, user)).await? {
            None => ProfileItem::Absent,
            Some(attributes) if Item(&attributes).is_gone() => ProfileItem::Gone,
            Some(attributes) => ProfileItem::Customer(StoredCustomer::read(&attributes)?),
        })
    }

    /// The writes of a change, each with what it is about. The first one is about the customer's
    /// own item.
    fn customer_writes(
        &self,
        org: OrgId,
        change: &CustomerWrites<'_>,
    ) -> Result<Vec<(Part, TransactWriteItem)>, StoreError> {
        let CustomerWrites { before, after, owners } = *change;
        let user = after.user;
        let (own, old) = match before {
            Before::Stored(stored) => {
                (self.update_customer(org, stored, after)?, stored.customer.identifiers.as_slice())
            }
            Before::New(registered_at) => {
                let item = NewItem::new(&keys::profile(org, user))
                    .with(USER_ID, n(user))
                    .with(PROFILES, json(&after.profiles)?)
                    .with(IDENTIFIERS, json(&after.identifiers)?)
                    .with(REGISTERED_AT, millis(registered_at));
                (self.put_new(item)?, &[][..])
            }
        };
        let mut writes = vec![(Part::Customer, own)];
        let keys_of = |list: &[StoredIdentifier]| -> BTreeSet<StoredIdentifier> {
            list.iter().map(StoredIdentifier::key).collect()
        };
        let (old_keys, new_keys) = (keys_of(old), keys_of(&after.identifiers));
        for key in &new_keys - &old_keys {
            let item = NewItem::new(&keys::owner(org, &key)).with(USER_ID, n(user));
            writes.push((Part::Added(key), self.put_owner(item, user)?));
        }
        for key in &old_keys - &new_keys {
            writes.push((Part::Removed, self.delete_owner(org, &key, user)?));
        }
        let added = after.identifiers.iter().filter(|listed| !old.contains(listed));
        let removed = old.iter().filter(|listed| !after.identifiers.contains(listed));
        let persons: BTreeSet<_> = added.chain(removed).filter_map(StoredIdentifier::person).collect();
        for person in persons {
            let write = match owners.get(&person).filter(|owner| *owner != user) {
                // It stays with its owner. Without the condition, an upgrade could give it to this
                // customer after the owner was read.
                Some(owner) => self.check_owner(org, &person, owner)?,
                None if after.accounts_of(&person).is_empty() => self.delete_owner(org, &person, user)?,
                None => self.put_owner(org_wide_identity(org, after, &person), user)?,
            };
            writes.push((Part::OrgWide, write));
        }
        Ok(writes)
    }

    /// Writes a change and the response to its request: all or nothing.
    pub(super) async fn write_customer(
        &self,
        org: OrgId,
        change: &CustomerWrites<'_>,
        response: Option<ResponseToStore<'_>>,
    ) -> Result<Written, StoreError> {
        let (parts, mut writes): (Vec<_>, Vec<_>) = self.customer_writes(org, change)?.into_iter().unzip();
        if let Some(response) = &response {
            writes.push(self.put_response(response)?);
        }
        let refused = match self.transact(writes).await? {
            Outcome::Done => return Ok(Written::Done),
            Outcome::Refused(refused) => refused,
        };
        let request = response.map(|response| response.request);
        if let Some(earlier) = self.earlier_response(request, parts.len(), &refused).await? {
            return Ok(Written::Replay(earlier));
        }
        let refused = refused.keys().filter_map(|position| parts.get(*position).cloned()).collect();
        Ok(Written::Refused(refused))
    }

    pub(super) fn update_customer(
        &self,
        org: OrgId,
        before: &StoredCustomer,
        after: &Customer,
    ) -> Result<TransactWriteItem, StoreError> {
        let (identifiers, profiles) = (json(&after.identifiers)?, json(&after.profiles)?);
        self.update(&keys::profile(org, after.user), |update| {
            update
                .update_expression(format!("SET {IDENTIFIERS} = :identifiers, {PROFILES} = :profiles"))
                .condition_expression(format!(
                    "{IDENTIFIERS} = :old_identifiers AND {PROFILES} = :old_profiles"
                ))
                .expression_attribute_values(":identifiers", identifiers)
                .expression_attribute_values(":profiles", profiles)
                .expression_attribute_values(":old_identifiers", s(&before.identifiers))
                .expression_attribute_values(":old_profiles", s(&before.profiles))
        })
    }

    /// The write of an identity item that points at `user`, if it is free or the customer's own.
    pub(super) fn put_owner(&self, item: NewItem, user: UserId) -> Result<TransactWriteItem, StoreError> {
        self.put_if(item, |put| {
            put.condition_expression(free_or_own()).expression_attribute_values(":user", n(user))
        })
    }

    /// The deletion of an identity item of `user`, which need not exist.
    pub(super) fn delete_owner(
        &self,
        org: OrgId,
        key: &StoredIdentifier,
        user: UserId,
    ) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(keys::owner(org, key).attributes()))
            .condition_expression(free_or_own())
            .expression_attribute_values(":user", n(user))
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// The condition that an identity item points at `owner`.
    fn check_owner(
        &self,
        org: OrgId,
        key: &StoredIdentifier,
        owner: UserId,
    ) -> Result<TransactWriteItem, StoreError> {
        self.condition_check(&keys::owner(org, key), |check| {
            check
                .condition_expression(format!("{USER_ID} = :owner"))
                .expression_attribute_values(":owner", n(owner))
        })
    }
}

/// The org-wide identity by which other accounts find `customer`.
pub(super) fn org_wide_identity(org: OrgId, customer: &Customer, person: &StoredIdentifier) -> NewItem {
    let accounts = customer.accounts_of(person).into_iter().map(ToString::to_string).collect();
    NewItem::new(&keys::owner(org, person))
        .with(USER_ID, n(customer.user))
        .with(ACCOUNTS, AttributeValue::Ss(accounts))
}
