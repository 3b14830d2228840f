//! Finding customers by their identifiers, and changing these.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    pin::Pin,
};

use aws_sdk_dynamodb::types::KeysAndAttributes;

use super::{
    Attributes, IdempotentRequest, Item, ResponseToStore, Store, StoreError, StoredResponse,
    customer_writes::{Before, CustomerWrites, USER_ID, Written},
    keys,
    retries::{LostRaces, is_partial},
};
use crate::model::{
    customer::{Account, Identifier, Identity, UserId},
    org::{Org, OrgId},
    profile::{ChangeRefusal, Customer, IdentifierChange, Owners, StoredIdentifier},
};

/// Where a customer is looked up.
#[derive(Debug, Clone)]
pub enum Place {
    Account(Account),
    /// In every account of every source.
    Everywhere,
}

/// The result of looking up a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Customer(UserId),
    /// Nobody has the identifier.
    Nobody,
    /// Somebody has the identifier in another account only.
    Elsewhere,
    /// Different customers have the identifier in different accounts.
    Several,
}

/// The result of a change of identifiers.
pub enum Change<A> {
    /// The identifiers are as requested, with this response.
    Done(A),
    /// Nothing was written.
    Refused(ChangeRefusal),
    CustomerUnknown,
    /// A response is stored under the request's key.
    Replay(StoredResponse),
}

/// The maximum number of keys in a batch.
const BATCH: usize = 100;

/// Identity items by their keys.
pub(super) type OwnerItems = HashMap<StoredIdentifier, Attributes>;

impl Store {
    /// The customer whom an identifier points at. The number of an erased customer is nobody's.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn find_customer(&self, org: OrgId, identity: &Identity) -> Result<Option<UserId>, StoreError> {
        self.user_of(&keys::identity(org, identity)).await
    }

    /// The customer who has a mobile or an e-mail address in any account, by its org-wide identity.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn find_person(&self, org: OrgId, identity: &Identity) -> Result<Option<UserId>, StoreError> {
        let Some(person) = StoredIdentifier::from(identity).person() else {
            return Ok(None);
        };
        self.user_of(&keys::owner(org, &person)).await
    }

    /// The customer whom an identity item points at, if it is there and no tombstone.
    async fn user_of(&self, identity: &keys::Key) -> Result<Option<UserId>, StoreError> {
        let found = self.get(identity).await?;
        let found = found.as_ref().map(Item).filter(|item| !item.is_gone());
        found.map(|item| item.n(USER_ID).map(UserId)).transpose()
    }

    /// The identifiers of a customer in all accounts, the last added one at the end. Empty if there
    /// is no such customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn identifiers_of(&self, org: &Org, user: UserId) -> Result<Vec<Identifier>, StoreError> {
        let customer = self.customer(org.id(), user).await?;
        let stored = customer.map_or_else(Vec::new, |customer| customer.identifiers);
        // One that is malformed by now can be in no request, and nothing can be sent to it.
        let identifiers = stored.iter().filter_map(|stored| org.stored_identifier(stored.1, &stored.2).ok());
        Ok(identifiers.collect())
    }

    /// The customer with that user id.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn customer(&self, org: OrgId, user: UserId) -> Result<Option<Customer>, StoreError> {
        Ok(self.stored_customer(org, user).await?.map(|stored| stored.customer))
    }

    /// Looks up the customer who has an identifier.
    ///
    /// A mobile or an e-mail address is found elsewhere by its org-wide identity. In an org of
    /// version 0.1.0, it has one after an upgrade of the table, or when it is registered.
    /// Identifiers that belong to an account are looked up in each, up to 100 in one call of
    /// DynamoDB.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn look_up(
        &self,
        org: &Org,
        identifier: &Identifier,
        place: &Place,
    ) -> Result<Found, StoreError> {
        let in_account = |account: Account| Identity::new(account, identifier.clone());
        if let Place::Account(account) = place
            && let Some(user) = self.find_customer(org.id(), &in_account(account.clone())).await?
        {
            return Ok(Found::Customer(user));
        }
        let name = identifier.name();
        let in_instore = StoredIdentifier::from(&in_account(Account::instore()));
        let keys = match in_instore.person() {
            Some(person) => vec![person],
            None if name.is_org_wide() && matches!(place, Place::Account(_)) => Vec::new(),
            None if name.is_org_wide() => vec![in_instore.key()],
            None => {
                let is_asked = |account: &Account| matches!(place, Place::Account(asked) if asked == account);
                let others = org.accounts().filter(|account| !is_asked(account));
                others.map(|account| StoredIdentifier::from(&in_account(account)).key()).collect()
            }
        };
        let owners = self.owners(org.id(), &keys).await?;
        let users: BTreeSet<UserId> = keys.iter().filter_map(|key| owners.get(key)).collect();
        Ok(match (place, users.first()) {
            (_, None) => Found::Nobody,
            (Place::Account(_), Some(_)) => Found::Elsewhere,
            (Place::Everywhere, Some(user)) if users.len() == 1 => Found::Customer(*user),
            (Place::Everywhere, Some(_)) => Found::Several,
        })
    }

    /// Changes a customer's identifiers and stores the response that `respond` makes from the
    /// number of identifiers that were as requested before: all or nothing.
    ///
    /// # Errors
    /// The error of `respond`, and [`StoreError`] when DynamoDB fails.
    pub async fn change_identifiers<A: AsRef<str>, E: From<StoreError>>(
        &self,
        org: OrgId,
        user: UserId,
        change: &IdentifierChange,
        request: Option<&IdempotentRequest>,
        respond: impl Fn(usize) -> Result<A, E>,
    ) -> Result<Change<A>, E> {
        let mut lost_races = LostRaces::new();
        loop {
            let Some(stored) = self.stored_customer(org, user).await? else {
                return Ok(Change::CustomerUnknown);
            };
            let identities = change.add.iter().chain(&change.remove);
            let owners = self.owners(org, &owner_keys(identities.map(StoredIdentifier::from))).await?;
            let changed = match stored.customer.changed(change, &owners) {
                Ok(changed) => changed,
                Err(refusal) => return Ok(Change::Refused(refusal)),
            };
            let response = respond(changed.unchanged)?;
            let to_store = request.map(|request| ResponseToStore { request, body: response.as_ref() });
            if changed.customer.identifiers == stored.customer.identifiers {
                let earlier = match to_store {
                    Some(to_store) => self.store_response(to_store).await?,
                    None => None,
                };
                return Ok(earlier.map_or(Change::Done(response), Change::Replay));
            }
            let writes =
                CustomerWrites { before: Before::Stored(&stored), after: &changed.customer, owners: &owners };
            match self.write_customer(org, &writes, to_store).await? {
                Written::Done => return Ok(Change::Done(response)),
                Written::Replay(earlier) => return Ok(Change::Replay(earlier)),
                Written::Refused(_) => {
                    lost_races.pause("the customer or the identifiers keep changing").await?;
                }
            }
        }
    }

    /// Who has which of these keys.
    pub(super) async fn owners(&self, org: OrgId, keys: &[StoredIdentifier]) -> Result<Owners, StoreError> {
        let mut owners = Owners::default();
        for (key, attributes) in self.owner_items(org, keys).await? {
            let item = Item(&attributes);
            if item.is_gone() {
                owners.retire(key);
            } else {
                owners.insert(key, UserId(item.n(USER_ID)?));
            }
        }
        Ok(owners)
    }

    /// The identity items of these keys, which are all different. Batches are read side by side.
    pub(super) fn owner_items<'a>(
        &'a self,
        org: OrgId,
        keys: &'a [StoredIdentifier],
    ) -> Pin<Box<dyn Future<Output = Result<OwnerItems, StoreError>> + Send + 'a>> {
        Box::pin(async move {
            let batches = keys.len().div_ceil(BATCH);
            if batches <= 1 {
                return self.owner_batch(org, keys).await;
            }
            let (first, second) = keys.split_at(batches / 2 * BATCH);
            let (mut found, others) =
                tokio::try_join!(self.owner_items(org, first), self.owner_items(org, second))?;
            found.extend(others);
            Ok(found)
        })
    }

    /// The identity items of at most [`BATCH`] keys.
    async fn owner_batch(&self, org: OrgId, keys: &[StoredIdentifier]) -> Result<OwnerItems, StoreError> {
        if keys.is_empty() {
            return Ok(OwnerItems::new());
        }
        let by_partition: HashMap<String, &StoredIdentifier> =
            keys.iter().map(|key| (keys::owner(org, key).pk, key)).collect();
        let wanted = keys.iter().map(|key| keys::owner(org, key).attributes()).collect();
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(wanted))
            .consistent_read(true)
            .build()
            .map_err(StoreError::from_build)?;
        let batch = self.client.batch_get_item().request_items(&self.table, wanted).send().await;
        let batch = batch.map_err(StoreError::from_sdk)?;
        if is_partial(&batch) {
            return Err(StoreError::gave_up("DynamoDB keeps leaving keys unprocessed"));
        }
        let mut found = OwnerItems::new();
        for item in batch.responses.into_iter().flat_map(HashMap::into_values).flatten() {
            if let Some(key) = by_partition.get(Item(&item).s(keys::PK)?) {
                found.insert((*key).clone(), item);
            }
        }
        Ok(found)
    }
}

/// The keys of the identity items of identifiers, each once.
pub(super) fn owner_keys(
    identifiers: impl IntoIterator<Item = impl Borrow<StoredIdentifier>>,
) -> Vec<StoredIdentifier> {
    let keys = identifiers.into_iter().flat_map(|identifier| identifier.borrow().keys());
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}
