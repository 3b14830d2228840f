//! Merging two customers who are one person.
//!
//! One transaction gives the profiles, identifiers and numbers of one customer to the other, and
//! replaces that customer by a tombstone that names the other; see `tombstones`. The OTPs of the
//! merged customer, which no request reaches any more, are deleted with their messages.

use aws_sdk_dynamodb::types::TransactWriteItem;
use chrono::{DateTime, Utc};

use super::{
    Item, Store, StoreError,
    customer_writes::{StoredCustomer, USER_ID, org_wide_identity},
    customers::owner_keys,
    item::{NewItem, n},
    keys,
    retries::LostRaces,
    tombstones::Tombstone,
    transaction::Outcome,
};
use crate::model::{
    customer::{Account, UserId},
    org::Org,
    profile::{CombineRefusal, Combined, Owners, StoredIdentifier},
};

/// The customers of a merge.
#[derive(Debug, Clone, Copy)]
pub struct MergedUsers {
    /// The one who stays.
    pub kept: UserId,
    /// The one who becomes a tombstone.
    pub merged: UserId,
}

/// The result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    Done {
        /// Identifiers that the customer got.
        identifiers: usize,
        /// Accounts in which both had names. Those of the customer who stays were kept.
        names_kept: Vec<Account>,
    },
    /// It was done already, at this time.
    DoneBefore(DateTime<Utc>),
}

/// Why customers were not merged, or perhaps not.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing was written.
    #[error(transparent)]
    Refused(#[from] MergeRefusal),
    /// If it was written, merging again does the rest.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why two customers are not merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeRefusal {
    #[error("a customer cannot be merged into itself")]
    Same,
    #[error("there is no customer {0}")]
    Unknown(UserId),
    #[error("customer {0} was erased")]
    Erased(UserId),
    #[error("customer {0} was merged into {1}")]
    Merged(UserId, UserId),
    #[error(transparent)]
    Combine(CombineRefusal),
    /// Its item points at another customer than the one who lists it.
    #[error(
        "an identifier of customer {0} belongs to customer {1}: run `loyaltyctl table upgrade`, which lists it"
    )]
    PointsElsewhere(UserId, UserId),
    #[error("customer {0} has {1} identities, and one transaction can move {2}")]
    TooMany(UserId, usize, usize),
}

/// What is stored for a user id.
enum Side {
    Unknown,
    Gone(Tombstone),
    Customer(StoredCustomer),
}

impl Side {
    /// The customer with the user id `user`.
    fn customer(self, user: UserId) -> Result<StoredCustomer, MergeRefusal> {
        match self {
            Self::Customer(stored) => Ok(stored),
            Self::Gone(Tombstone { merged_into: Some(into), .. }) => Err(MergeRefusal::Merged(user, into)),
            Self::Gone(_) => Err(MergeRefusal::Erased(user)),
            Self::Unknown => Err(MergeRefusal::Unknown(user)),
        }
    }
}

/// How many identities one transaction can move. It has at most 100 writes, of which 14 are the
/// customers and the marks.
const MAX_IDENTITIES: usize = 86;

impl Store {
    /// Merges a customer into another one. With `as_card_number`, an external ID of the merged
    /// customer becomes a card number if the other one has an external ID, too.
    ///
    /// # Errors
    /// [`MergeError`] when they cannot be merged, DynamoDB fails or an item is corrupt.
    pub async fn merge_customers(
        &self,
        org: &Org,
        users: MergedUsers,
        as_card_number: bool,
        now: DateTime<Utc>,
    ) -> Result<Merge, MergeError> {
        let MergedUsers { kept, merged } = users;
        if kept == merged {
            return Err(MergeRefusal::Same.into());
        }
        let mut lost_races = LostRaces::new();
        loop {
            // First, because an interrupted merge goes on whatever the kept customer is.
            let from = match self.side(org, merged).await? {
                Side::Gone(Tombstone { merged_into: Some(into), gone_at, .. }) if into == kept => {
                    self.delete_rest(org, merged).await?;
                    return Ok(Merge::DoneBefore(gone_at));
                }
                side => side.customer(merged)?,
            };
            let into = self.side(org, kept).await?.customer(kept)?;
            let combined = into.customer.combined_with(&from.customer, as_card_number);
            let combined = combined.map_err(MergeRefusal::Combine)?;
            let keys = owner_keys(&from.customer.identifiers);
            if keys.len() > MAX_IDENTITIES {
                return Err(MergeRefusal::TooMany(merged, keys.len(), MAX_IDENTITIES).into());
            }
            let owners = self.owners(org.id(), &keys).await?;
            let other =
                |key: &StoredIdentifier| owners.get(key).filter(|owner| ![kept, merged].contains(owner));
            // An org-wide identity may be another customer's, until `table upgrade`.
            if let Some(owner) = from.customer.identifiers.iter().find_map(|own| other(&own.key())) {
                return Err(MergeRefusal::PointsElsewhere(merged, owner).into());
            }
            let writes = self.merge_writes(org, (&into, &from), &combined, &keys, &owners, now)?;
            if self.transact(writes).await? == Outcome::Done {
                self.delete_rest(org, merged).await?;
                let identifiers = from.customer.identifiers.len();
                return Ok(Merge::Done { identifiers, names_kept: combined.names_kept });
            }
            lost_races.pause("the customers keep changing").await?;
        }
    }

    async fn side(&self, org: &Org, user: UserId) -> Result<Side, StoreError> {
        let Some(attributes) = self.get(&keys::profile(org.id(), user)).await? else {
            return Ok(Side::Unknown);
        };
        Ok(match Tombstone::read(&Item(&attributes))? {
            Some(tombstone) => Side::Gone(tombstone),
            None => Side::Customer(StoredCustomer::read(&attributes)?),
        })
    }

    fn merge_writes(
        &self,
        org: &Org,
        (into, from): (&StoredCustomer, &StoredCustomer),
        combined: &Combined,
        keys: &[StoredIdentifier],
        owners: &Owners,
        now: DateTime<Utc>,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let (kept, merged) = (into.customer.user, from.customer.user);
        let tombstone = Tombstone { gone_at: now, merged_into: Some(kept), pending: None };
        let mut writes = self.replace_by_tombstone(org, from, &tombstone)?;
        writes.push(self.update_customer(org.id(), into, &combined.customer)?);
        for key in keys {
            if owners.get(key).is_some_and(|owner| owner != kept && owner != merged) {
                continue;
            }
            let is_person = key.0.is_none() && key.1.identifies_person();
            let item = if is_person {
                org_wide_identity(org.id(), &combined.customer, key)
            } else {
                NewItem::new(&keys::owner(org.id(), key)).with(USER_ID, n(kept))
            };
            writes.push(self.put_if(item, |put| {
                put.condition_expression("attribute_not_exists(#user) OR #user = :kept OR #user = :merged")
                    .expression_attribute_names("#user", USER_ID)
                    .expression_attribute_values(":kept", n(kept))
                    .expression_attribute_values(":merged", n(merged))
            })?);
        }
        Ok(writes)
    }

    /// Does the rest of a merge that may have been interrupted. Nothing is done for somebody who
    /// was not merged into another customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn finish_merge(&self, org: &Org, merged: UserId) -> Result<(), StoreError> {
        match self.side(org, merged).await? {
            Side::Gone(Tombstone { merged_into: Some(_), .. }) => self.delete_rest(org, merged).await,
            _ => Ok(()),
        }
    }

    /// Deletes the OTPs of a merged customer, with everything that belongs to them.
    pub(super) async fn delete_rest(&self, org: &Org, merged: UserId) -> Result<(), StoreError> {
        let rest = self.partition(&keys::customer_partition(org.id(), merged)).await?;
        self.delete_all(&rest).await.map(|_| ())
    }
}
