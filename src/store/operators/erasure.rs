//! Erasing customers.
//!
//! The first transaction replaces the customer by a tombstone and deletes the identities, so that
//! from then on requests answer as for an unknown customer; see `tombstones`. Then everything is
//! deleted that is stored for the customer, for the customer's contacts and addresses. What
//! requests that were under way have still written is deleted once more later. Until then, the
//! tombstone holds the identifiers. So an erasure that was interrupted continues when it is begun
//! again.
//!
//! What another customer has meanwhile, or had all along in another account, is left alone.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::TransactWriteItem;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::{
    Attributes, Item, Store, StoreError,
    customer_writes::{StoredCustomer, USER_ID},
    customers::owner_keys,
    history::{CONCURRENT, addresses_of, contacts_of},
    keys::{self, Key, OwnedItem},
    messages,
    retries::LostRaces,
    tombstones::{PENDING, Tombstone},
    transaction::Outcome,
};
use crate::model::{
    card_number::NumberingPlan,
    customer::{IdentifierName, UserId},
    org::Org,
    profile::StoredIdentifier,
};

/// The result of beginning an erasure.
#[derive(Debug, Clone)]
pub enum ErasureStart {
    /// The customer is unknown from now on, and everything that is stored was deleted.
    Begun(Erasure),
    /// It has ended already, at or after this time.
    Erased(DateTime<Utc>),
    /// The customer was merged into this one, who has all that there is to erase.
    Merged(UserId),
    /// There is no such customer.
    Unknown,
}

/// An erasure that is to be finished by [`Store::finish_erasure`] once no request is under way that
/// was so when it began.
#[derive(Debug, Clone)]
pub struct Erasure {
    pub user: UserId,
    pub began_at: DateTime<Utc>,
    /// How many items were deleted so far, apart from the customer's own.
    pub deleted: usize,
    /// How many numbers stay as tombstones, because a numbering plan of the org could make them.
    pub numbers_kept: usize,
    identifiers: Vec<StoredIdentifier>,
}

/// How many identities the first transaction deletes at most. It has at most 100 writes, of which
/// 13 are the tombstone and the marks.
const IDENTITIES_AT_ONCE: usize = 80;

impl Store {
    /// Begins to erase a customer, or continues an erasure that was interrupted.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt. The customer may be erased in
    /// part; beginning again continues.
    pub async fn begin_erasure(
        &self,
        org: &Org,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<ErasureStart, StoreError> {
        let plans = self.plans(org).await?;
        let mut lost_races = LostRaces::new();
        loop {
            let Some(attributes) = self.get(&keys::profile(org.id(), user)).await? else {
                return Ok(ErasureStart::Unknown);
            };
            let tombstone = match Tombstone::read(&Item(&attributes))? {
                Some(Tombstone { merged_into: Some(into), .. }) => {
                    // A merge that was interrupted has left them.
                    self.delete_rest(org, user).await?;
                    return Ok(ErasureStart::Merged(into));
                }
                Some(Tombstone { pending: None, gone_at, .. }) => return Ok(ErasureStart::Erased(gone_at)),
                Some(tombstone) => tombstone,
                None => {
                    let written = self.make_unknown(org, user, &attributes, &plans, now).await?;
                    let Some(tombstone) = written else {
                        lost_races.pause("the customer keeps changing").await?;
                        continue;
                    };
                    tombstone
                }
            };
            let mut erasure = Erasure {
                user,
                began_at: tombstone.gone_at,
                deleted: 0,
                numbers_kept: 0,
                identifiers: tombstone.pending.unwrap_or_default(),
            };
            let keys = owner_keys(&erasure.identifiers);
            erasure.numbers_kept = keys.iter().filter(|key| is_of_a_plan(org, &plans, key)).count();
            self.free_identities(org, user, &keys, &plans, erasure.began_at).await?;
            erasure.deleted = self.sweep(org, user, &erasure.identifiers).await?;
            return Ok(ErasureStart::Begun(erasure));
        }
    }

    /// Deletes what requests that were under way have still written, and then the identifiers from
    /// the tombstone. Returns how many items were deleted in all.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt. Beginning again continues.
    pub async fn finish_erasure(&self, org: &Org, erasure: &Erasure) -> Result<usize, StoreError> {
        let deleted = self.sweep(org, erasure.user, &erasure.identifiers).await?;
        let end = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::profile(org.id(), erasure.user).attributes()))
            .update_expression("REMOVE #pending")
            .condition_expression("attribute_exists(#pk)")
            .expression_attribute_names("#pending", PENDING)
            .expression_attribute_names("#pk", keys::PK);
        end.send().await.map_err(StoreError::from_sdk)?;
        Ok(erasure.deleted + deleted)
    }

    /// Replaces a customer by a tombstone, and deletes the identities, or the first of them. `None`
    /// after a lost race.
    async fn make_unknown(
        &self,
        org: &Org,
        user: UserId,
        attributes: &Attributes,
        plans: &[NumberingPlan],
        now: DateTime<Utc>,
    ) -> Result<Option<Tombstone>, StoreError> {
        let stored = StoredCustomer::read(attributes)?;
        let identifiers = stored.customer.identifiers.clone();
        let mut own = self.own_identities(org, user, &owner_keys(&identifiers)).await?;
        // Those by which OTPs can be asked for go first, if one transaction cannot free all.
        own.sort_by_key(|key| !key.1.receives_otps());
        let tombstone = Tombstone { gone_at: now, merged_into: None, pending: Some(identifiers) };
        let mut writes = self.replace_by_tombstone(org, &stored, &tombstone)?;
        for key in own.iter().take(IDENTITIES_AT_ONCE) {
            writes.push(self.free_identity(org, user, key, plans, now)?);
        }
        Ok((self.transact(writes).await? == Outcome::Done).then_some(tombstone))
    }

    /// Deletes the identities that still point at an erased customer, or makes them tombstones.
    async fn free_identities(
        &self,
        org: &Org,
        user: UserId,
        keys: &[StoredIdentifier],
        plans: &[NumberingPlan],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut lost_races = LostRaces::new();
        loop {
            let own = self.own_identities(org, user, keys).await?;
            let mut done = true;
            for chunk in own.chunks(IDENTITIES_AT_ONCE) {
                let writes = chunk.iter().map(|key| self.free_identity(org, user, key, plans, at));
                let writes = writes.collect::<Result<Vec<_>, _>>()?;
                done &= self.transact(writes).await? == Outcome::Done;
            }
            if done {
                return Ok(());
            }
            lost_races.pause("the identifiers keep changing their owners").await?;
        }
    }

    fn free_identity(
        &self,
        org: &Org,
        user: UserId,
        key: &StoredIdentifier,
        plans: &[NumberingPlan],
        at: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        if is_of_a_plan(org, plans, key) {
            self.retire_number(org, key, user, at)
        } else {
            self.delete_owner(org.id(), key, user)
        }
    }

    /// Those of the keys whose items point at `user` and are no tombstones.
    async fn own_identities(
        &self,
        org: &Org,
        user: UserId,
        keys: &[StoredIdentifier],
    ) -> Result<Vec<StoredIdentifier>, StoreError> {
        let mut own = Vec::new();
        for (key, attributes) in self.owner_items(org.id(), keys).await? {
            let item = Item(&attributes);
            if item.n::<u64>(USER_ID)? == user.0 && !item.is_gone() {
                own.push(key);
            }
        }
        own.sort();
        Ok(own)
    }

    /// The numbering plans of an org: the current one, and those before it.
    async fn plans(&self, org: &Org) -> Result<Vec<NumberingPlan>, StoreError> {
        let issued = self.issued_card_numbers(org.id()).await?;
        let retired = self.retired_card_numbers(org.id()).await?;
        let current = org.numbering_plan().ok().cloned();
        Ok(retired.into_iter().chain(issued).map(|range| range.plan).chain(current).collect())
    }

    /// Deletes what is stored in the partitions of an erased customer, and in those of the contacts
    /// and addresses, except for tombstones and marks. Returns how many items were deleted.
    ///
    /// Counters of addresses go first, because messages name further addresses that have some.
    async fn sweep(
        &self,
        org: &Org,
        user: UserId,
        identifiers: &[StoredIdentifier],
    ) -> Result<usize, StoreError> {
        let contacts = contacts_of(org, identifiers);
        let kept = self.owned_by_others(org, user, &contacts).await?;
        let is_free = |contact: &&StoredIdentifier| {
            !kept.contains(*contact) && contact.person().is_none_or(|person| !kept.contains(&person))
        };
        let contacts = contacts.iter().filter(is_free);
        let mut partitions: Vec<String> =
            contacts.map(|contact| keys::contact_partition(org.id(), contact)).collect();
        // The customer's own partition is the last one.
        partitions.push(keys::customer_partition(org.id(), user));
        let found = self.partitions(&partitions).await?;

        let mut addresses = addresses_of(identifiers);
        for attributes in found.iter().flatten() {
            let item = Item(attributes);
            if matches!(OwnedItem::read(item.s(keys::SK)?), Some(OwnedItem::Message(..))) {
                let channels = messages::read_record(&item)?.channels.into_iter();
                addresses
                    .extend(channels.map(|(channel, _)| (channel.channel_type.identifier(), channel.value)));
            }
        }
        let addresses = self.without_others(org, user, addresses).await?;
        let counters: Vec<String> =
            addresses.iter().map(|(name, value)| keys::recipient_partition(org.id(), *name, value)).collect();
        let counters = self.partitions(&counters).await?;
        let mut deleted = 0;
        for partition in counters.iter().chain(&found) {
            deleted += self.delete_all(partition).await?;
        }
        Ok(deleted)
    }

    /// The items of several partitions.
    async fn partitions(&self, partitions: &[String]) -> Result<Vec<Vec<Attributes>>, StoreError> {
        let mut all = Vec::new();
        for chunk in partitions.chunks(CONCURRENT) {
            for items in join_all(chunk.iter().map(|partition| self.partition(partition))).await {
                all.push(items?);
            }
        }
        Ok(all)
    }

    /// Deletes items, apart from customers, tombstones and marks. Returns how many.
    pub(super) async fn delete_all(&self, items: &[Attributes]) -> Result<usize, StoreError> {
        let mut keys = Vec::new();
        for attributes in items {
            let item = Item(attributes);
            let (pk, sk) = (item.s(keys::PK)?, item.s(keys::SK)?);
            if sk != keys::PROFILE && !item.is_gone() {
                keys.push(Key { pk: pk.to_owned(), sk: sk.to_owned() });
            }
        }
        for chunk in keys.chunks(CONCURRENT) {
            let deletions = chunk.iter().map(async |key| {
                let delete = self.client.delete_item().table_name(&self.table);
                delete.set_key(Some(key.attributes())).send().await.map_err(StoreError::from_sdk)
            });
            for deleted in join_all(deletions).await {
                deleted?;
            }
        }
        Ok(keys.len())
    }

    /// Those of the contacts, and of the persons whom they identify, that other customers have.
    async fn owned_by_others(
        &self,
        org: &Org,
        user: UserId,
        contacts: &BTreeSet<StoredIdentifier>,
    ) -> Result<BTreeSet<StoredIdentifier>, StoreError> {
        let keys: Vec<_> = contacts.iter().cloned().collect();
        let owners = self.owner_items(org.id(), &owner_keys(&keys)).await?;
        let mut others = BTreeSet::new();
        for (key, attributes) in owners {
            if Item(&attributes).n::<u64>(USER_ID)? != user.0 {
                others.insert(key);
            }
        }
        Ok(others)
    }

    /// The addresses that no other customer has in any account.
    async fn without_others(
        &self,
        org: &Org,
        user: UserId,
        addresses: BTreeSet<(IdentifierName, String)>,
    ) -> Result<BTreeSet<(IdentifierName, String)>, StoreError> {
        let in_accounts = |(name, value): &(IdentifierName, String)| -> Vec<StoredIdentifier> {
            if name.is_org_wide() {
                return vec![StoredIdentifier(None, *name, value.clone())];
            }
            org.accounts().map(|account| StoredIdentifier(Some(account), *name, value.clone())).collect()
        };
        let contacts: BTreeSet<_> = addresses.iter().flat_map(in_accounts).collect();
        let others = self.owned_by_others(org, user, &contacts).await?;
        let others: BTreeSet<_> = others.into_iter().map(|key| (key.1, key.2)).collect();
        Ok(&addresses - &others)
    }
}

/// Whether a key is that of a number that one of the plans could make.
fn is_of_a_plan(org: &Org, plans: &[NumberingPlan], key: &StoredIdentifier) -> bool {
    key.1.name_space() == IdentifierName::ExternalId
        && plans.iter().any(|plan| plan.value_of(&key.2, &org.permutation_key).is_some())
}
