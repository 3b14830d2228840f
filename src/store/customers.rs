//! Customers and the identifiers that point at them.

use std::sync::Arc;

use aws_sdk_dynamodb::types::KeysAndAttributes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    CardNumber, Item, NumberingError, ResponseToStore, Store, StoreError, StoredResponse,
    item::{NewItem, json, millis, n},
    keys,
    retries::is_partial,
    transaction::Outcome,
};
use crate::model::{
    customer::{Account, Identifier, IdentifierName, Identity, UserId},
    org::{Org, OrgId},
};

pub(super) const USER_ID: &str = "user_id";
/// On a customer's item: a list of account, kind and value.
pub(super) const IDENTIFIERS: &str = "identifiers";

/// A customer's profile in one account of a source.
#[derive(Clone, Serialize)]
pub struct Profile {
    pub account: Account,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
}

/// A customer to be registered.
#[derive(Clone)]
pub struct NewCustomer {
    pub user: UserId,
    pub profiles: Vec<Profile>,
    /// The identifiers in the request.
    pub identities: Vec<Identity>,
    /// The account whose next card number the customer gets, if any.
    pub generate_for: Option<Account>,
    pub registered_at: DateTime<Utc>,
}

/// The result of a registration. Nothing of the customer is written unless it is `Registered`.
pub enum Registration {
    /// The card numbers that were allocated: the last one is the customer's. The others were
    /// skipped, because they had been assigned manually.
    Registered(Vec<CardNumber>),
    /// Another customer has one of the identifiers in the request.
    IdentifierTaken,
    /// A response is stored under the request's key.
    Replay(StoredResponse),
}

/// How many manually assigned numbers one registration skips at most. The next registration
/// continues after them.
const MAX_SKIPPED: usize = 100;

impl Store {
    /// The customer whom an identifier points at.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn find_customer(&self, org: OrgId, identity: &Identity) -> Result<Option<UserId>, StoreError> {
        let found = self.get(&keys::identity(org, identity)).await?;
        found.map(|attributes| Item(&attributes).n(USER_ID).map(UserId)).transpose()
    }

    /// The identifiers of a customer in all accounts, the last added one at the end. Empty if there
    /// is no such customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn identifiers_of(&self, org: &Org, user: UserId) -> Result<Vec<Identifier>, StoreError> {
        let Some(attributes) = self.get(&keys::profile(org.id(), user)).await? else {
            return Ok(Vec::new());
        };
        let stored: Vec<(Option<Account>, IdentifierName, String)> = Item(&attributes).json(IDENTIFIERS)?;
        // One that is malformed by now can be in no request, and nothing can be sent to it.
        let identifiers =
            stored.iter().filter_map(|(_, name, value)| org.stored_identifier(*name, value).ok());
        Ok(identifiers.collect())
    }

    /// Whether any of 1 to 100 identifiers points at a customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn any_taken(&self, org: OrgId, identities: &[Identity]) -> Result<bool, StoreError> {
        let keys = identities.iter().map(|id| keys::identity(org, id).attributes()).collect();
        let lookup = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .map_err(StoreError::from_build)?;
        let batch = self.client.batch_get_item().request_items(&self.table, lookup).send().await;
        let batch = batch.map_err(StoreError::from_sdk)?;
        if batch.responses().is_some_and(|tables| tables.values().any(|items| !items.is_empty())) {
            return Ok(true);
        }
        if is_partial(&batch) {
            return Err(StoreError::gave_up("DynamoDB keeps leaving keys unprocessed"));
        }
        Ok(false)
    }

    /// Writes a customer with all identifiers and the response, or nothing. If a card number is
    /// asked for, it is one of the identifiers; numbers that were assigned manually are skipped.
    /// `on_refresh` is as in [`Self::next_card_number`].
    ///
    /// # Errors
    /// [`NumberingError`] when there is no number for the customer, or DynamoDB fails.
    pub async fn register(
        &self,
        org: &Arc<Org>,
        customer: &NewCustomer,
        response: Option<ResponseToStore<'_>>,
        on_refresh: &(dyn Fn(&Arc<Org>) + Sync),
    ) -> Result<Registration, NumberingError> {
        let mut numbers = Vec::new();
        for _ in 0..MAX_SKIPPED {
            let mut identities = customer.identities.clone();
            if let Some(account) = &customer.generate_for {
                let allocated = self.next_card_number(org, account, on_refresh).await?;
                let identifier = org
                    .identifier(IdentifierName::ExternalId, &allocated.number)
                    .map_err(|_| StoreError::corrupt("a card number cannot be an external ID"))?;
                identities.push(Identity::new(account.clone(), identifier));
                numbers.push(allocated);
            }
            match self.try_register(org.id(), customer, &identities, response).await? {
                Attempt::Registered => return Ok(Registration::Registered(numbers)),
                Attempt::Refused(outcome) => return Ok(outcome),
                Attempt::NumberTaken => {}
            }
        }
        Err(StoreError::gave_up("too many card numbers in a row were assigned manually").into())
    }

    /// Registers a customer under `identities`: those of the request, followed by the generated
    /// one.
    async fn try_register(
        &self,
        org: OrgId,
        customer: &NewCustomer,
        identities: &[Identity],
        response: Option<ResponseToStore<'_>>,
    ) -> Result<Attempt, StoreError> {
        let known_as: Vec<_> = identities
            .iter()
            .map(|identity| (identity.account(), identity.identifier().name(), identity.identifier().value()))
            .collect();
        let mut writes = identities
            .iter()
            .map(|identity| {
                self.put_new(NewItem::new(&keys::identity(org, identity)).with(USER_ID, n(customer.user)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        writes.push(
            self.put_new(
                NewItem::new(&keys::profile(org, customer.user))
                    .with(USER_ID, n(customer.user))
                    .with("profiles", json(&customer.profiles)?)
                    .with(IDENTIFIERS, json(&known_as)?)
                    .with("registered_at", millis(customer.registered_at)),
            )?,
        );
        let response_at = writes.len();
        if let Some(response) = &response {
            writes.push(self.put_response(response)?);
        }
        let refused = match self.transact(writes).await? {
            Outcome::Done => return Ok(Attempt::Registered),
            Outcome::Refused(refused) => refused,
        };
        let request = response.map(|response| response.request);
        if let Some(earlier) = self.earlier_response(request, response_at, &refused).await? {
            return Ok(Attempt::Refused(Registration::Replay(earlier)));
        }
        match refused.keys().next() {
            Some(first) if *first < customer.identities.len() => {
                Ok(Attempt::Refused(Registration::IdentifierTaken))
            }
            Some(first) if *first < identities.len() => Ok(Attempt::NumberTaken),
            _ => Err(StoreError::corrupt("the user id counter returned the id of an existing customer")),
        }
    }
}

/// The result of one attempt to register.
enum Attempt {
    Registered,
    /// The registration ends with this result.
    Refused(Registration),
    /// The generated number was assigned to another customer manually.
    NumberTaken,
}
