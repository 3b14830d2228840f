//! Customers and the identifiers that point at them.

use aws_sdk_dynamodb::types::KeysAndAttributes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    Item, ResponseToStore, Store, StoreError, Taking, Turn,
    item::{NewItem, json, millis, n},
    keys,
    retries::is_partial,
    transaction::Outcome,
};
use crate::model::{
    customer::{Account, Identity, UserId},
    org::OrgId,
};

const USER_ID: &str = "user_id";

/// What a customer is known by in one account of a source.
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
    /// What the caller gave.
    pub identities: Vec<Identity>,
    /// The card number that was generated, if one was.
    pub generated: Option<Identity>,
    pub registered_at: DateTime<Utc>,
}

/// How a registration ended. Unless it is `Registered`, nothing of the customer was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    Registered,
    /// Somebody has one of the identifiers that the caller gave.
    IdentifierTaken,
    /// Somebody was given the generated number by hand.
    GeneratedTaken,
    /// Somebody else took the number whose turn it was, or the plan changed. A request with a key has another one
    /// reserved now, if there is one.
    Outrun,
    /// The same request was answered before.
    AnsweredBefore,
}

impl Store {
    /// The customer whom an identifier points at.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn find_customer(&self, org: OrgId, identity: &Identity) -> Result<Option<UserId>, StoreError> {
        let found = self.get(&keys::identity(org, identity)).await?;
        found.map(|attributes| Item(&attributes).n(USER_ID).map(UserId)).transpose()
    }

    /// Whether any of 1 to 100 identifiers points at a customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn any_taken(&self, org: OrgId, identities: &[Identity]) -> Result<bool, StoreError> {
        let keys = identities.iter().map(|id| keys::identity(org, id).attributes()).collect();
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .map_err(StoreError::from_build)?;
        let batch = self.client.batch_get_item().request_items(&self.table, wanted).send().await;
        let batch = batch.map_err(StoreError::from_sdk)?;
        if batch.responses().is_some_and(|tables| tables.values().any(|items| !items.is_empty())) {
            return Ok(true);
        }
        if is_partial(&batch) {
            return Err(StoreError::gave_up("DynamoDB keeps leaving keys unprocessed"));
        }
        Ok(false)
    }

    /// Writes a customer with all identifiers, takes the generated number if that is still to be done, and keeps the
    /// answer; or nothing.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn register(
        &self,
        org: OrgId,
        customer: &NewCustomer,
        turn: Option<&Turn>,
        record: Option<ResponseToStore<'_>>,
    ) -> Result<Registration, StoreError> {
        let identities: Vec<&Identity> = customer.identities.iter().chain(&customer.generated).collect();
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
                    .with("identifiers", json(&known_as)?)
                    .with("registered_at", millis(customer.registered_at)),
            )?,
        );
        let given = customer.identities.len();
        let profile_at = writes.len() - 1;
        if let Some(turn) = turn {
            writes.push(self.take(org, turn)?);
        }
        let recorded_at = writes.len();
        if let Some(record) = &record {
            writes.push(self.put_answer(record)?);
        }
        Ok(match self.transact(writes).await? {
            Outcome::Done => Registration::Registered,
            Outcome::Refused(at) if at.contains(&recorded_at) => Registration::AnsweredBefore,
            Outcome::Refused(at) if at.iter().any(|position| *position < given) => {
                Registration::IdentifierTaken
            }
            // Whoever was faster has both by now: the number, and its place in the sequence.
            Outcome::Refused(at) if at.iter().any(|position| *position > profile_at) => {
                let reserved = match (turn, record) {
                    (Some(turn), Some(record)) => self.reserve(org, turn, record.request).await?,
                    _ => Taking::Outrun,
                };
                if reserved == Taking::AnsweredBefore {
                    Registration::AnsweredBefore
                } else {
                    Registration::Outrun
                }
            }
            Outcome::Refused(at) if at.iter().any(|position| *position < identities.len()) => {
                Registration::GeneratedTaken
            }
            Outcome::Refused(_) => {
                return Err(StoreError::corrupt("the user id counter gave a number that a customer has"));
            }
        })
    }
}
