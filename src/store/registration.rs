//! Registering customers, who may be known from other accounts.
//!
//! A registration reads who has its identifiers, decides, and writes on the condition that this is
//! unchanged. If it is not, the registration decides again. So of two registrations of one mobile
//! in two sources, the second one joins the customer of the first.
//!
//! In an org whose customers do not join yet, a registration claims org-wide identities that are
//! free, and leaves the others alone. So each customer who is registered during an upgrade has the
//! org-wide identities already, or somebody else has them, and the upgrade needs to visit only the
//! customers that were there when it began. A process that has not seen yet that customers join
//! registers in the same way, for at most a minute.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    CardNumber, IdempotentRequest, NumberingError, ResponseToStore, Store, StoreError, StoredResponse,
    customer_writes::{Before, CustomerWrites, Part, ProfileItem, Written},
    customers::owner_keys,
    retries::LostRaces,
};
use crate::model::{
    customer::{Account, IdentifierName, Identity, UserId},
    org::Org,
    profile::{Customer, Profile, Refusal, Registrant, StoredIdentifier, registrant},
};
#[cfg(feature = "cli")]
use crate::model::{org::OrgId, profile::Owners};

/// A customer to be registered.
#[derive(Clone)]
pub struct NewCustomer {
    pub profiles: Vec<Profile>,
    /// The identifiers in the request.
    pub identities: Vec<Identity>,
    /// The account whose next card number the customer gets as external ID, unless the customer has
    /// one. `None` if no number is generated.
    pub generate_for: Option<Account>,
    pub registered_at: DateTime<Utc>,
}

/// The result of a registration. Nothing of the customer is written unless it is `Registered`.
pub enum Registration<A> {
    Registered {
        response: A,
        /// The card numbers that were allocated. All but the last one were skipped, because they
        /// had been assigned manually.
        numbers: Vec<CardNumber>,
    },
    Refused(Refusal),
    /// There is no card number for the customer.
    NoNumber(NumberingError),
    /// A response is stored under the request's key.
    Replay(StoredResponse),
}

/// How many manually assigned numbers one registration skips at most. The next registration
/// continues after them.
const MAX_SKIPPED: u32 = 100;

/// What a registration has allocated so far. An attempt that loses a race leaves it to the next
/// one.
#[derive(Default)]
struct Allocated {
    user: Option<UserId>,
    numbers: Vec<CardNumber>,
    /// The identity of the last number, unless it was assigned manually.
    identity: Option<Identity>,
}

/// The result of one attempt to register.
enum Attempt<A> {
    /// The registration ends with this result.
    Ended(Registration<A>),
    /// The generated number was assigned manually, to another customer or as the customer's own
    /// card number.
    NumberTaken,
    /// Somebody else changed what the attempt had read.
    LostRace,
}

impl Store {
    /// Registers a customer, or adds the profiles to the customer who is known by their mobiles or
    /// e-mail addresses, and stores the response that `respond` makes from the user id and whether
    /// the customer was known: all or nothing. `on_refresh` is as in [`Self::next_card_number`].
    ///
    /// # Errors
    /// The error of `respond`, and [`StoreError`] when DynamoDB fails.
    pub async fn register<A: AsRef<str>, E: From<StoreError>>(
        &self,
        org: &Arc<Org>,
        new: &NewCustomer,
        request: Option<&IdempotentRequest>,
        respond: impl Fn(UserId, Registrant) -> Result<A, E>,
        on_refresh: &(dyn Fn(&Arc<Org>) + Sync),
    ) -> Result<Registration<A>, E> {
        let (mut allocated, mut lost_races, mut skipped) = (Allocated::default(), LostRaces::new(), 0);
        while skipped < MAX_SKIPPED {
            match self.try_register(org, new, request, &respond, on_refresh, &mut allocated).await? {
                Attempt::Ended(result) => return Ok(result),
                Attempt::NumberTaken => skipped += 1,
                Attempt::LostRace => lost_races.pause("the identifiers keep changing their owners").await?,
            }
        }
        Err(StoreError::gave_up("too many card numbers in a row were assigned manually").into())
    }

    /// Who has these identities, and who is found by them in other accounts.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    #[cfg(feature = "cli")]
    pub async fn owners_of(&self, org: OrgId, identities: &[Identity]) -> Result<Owners, StoreError> {
        self.owners(org, &owner_keys(identities.iter().map(StoredIdentifier::from))).await
    }

    async fn try_register<A: AsRef<str>, E: From<StoreError>>(
        &self,
        org: &Arc<Org>,
        new: &NewCustomer,
        request: Option<&IdempotentRequest>,
        respond: &impl Fn(UserId, Registrant) -> Result<A, E>,
        on_refresh: &(dyn Fn(&Arc<Org>) + Sync),
        allocated: &mut Allocated,
    ) -> Result<Attempt<A>, E> {
        // Read first, so that no card number is spent on a registration that is refused.
        let owners =
            self.owners(org.id(), &owner_keys(new.identities.iter().map(StoredIdentifier::from))).await?;
        let refuse = |refusal| Ok(Attempt::Ended(Registration::Refused(refusal)));
        let registrant = match registrant(&new.identities, &owners, org.customers_join) {
            Ok(registrant) => registrant,
            Err(refusal) => return refuse(refusal),
        };
        let stored = match registrant {
            Registrant::New => None,
            Registrant::Known(user) => match self.profile_item(org.id(), user).await? {
                ProfileItem::Customer(stored) => Some(stored),
                // Erased or merged since the owners were read.
                ProfileItem::Gone => return Ok(Attempt::LostRace),
                ProfileItem::Absent => {
                    let reason = "an identity points at a customer without an item";
                    return Err(StoreError::corrupt(reason).into());
                }
            },
        };
        if stored.as_ref().is_some_and(|stored| has_in_account(&stored.customer, &new.identities)) {
            return Ok(Attempt::LostRace);
        }
        let base = match &stored {
            Some(stored) => stored.customer.clone(),
            None => Customer::new(self.new_user(org, allocated).await?),
        };
        let mut customer = match base.extended(&new.profiles, &new.identities) {
            Ok(customer) => customer,
            Err(refusal) => return refuse(refusal),
        };
        let mut generated = None;
        if let Some(account) = &new.generate_for
            && customer.external_id().is_none()
        {
            let identity = match self.new_number(org, account, on_refresh, allocated).await {
                Ok(identity) => identity,
                Err(error) => return Ok(Attempt::Ended(Registration::NoNumber(error))),
            };
            let key = StoredIdentifier::from(&identity).key();
            if customer.has_key(&key) {
                allocated.identity = None;
                return Ok(Attempt::NumberTaken);
            }
            customer.add(&identity);
            generated = Some(Part::Added(key));
        }

        let response = respond(customer.user, registrant)?;
        let writes = CustomerWrites {
            before: stored.as_ref().map_or(Before::New(new.registered_at), Before::Stored),
            after: &customer,
            owners: &owners,
        };
        let to_store = request.map(|request| ResponseToStore { request, body: response.as_ref() });
        let parts = match self.write_customer(org.id(), &writes, to_store).await? {
            Written::Done => {
                let numbers = std::mem::take(&mut allocated.numbers);
                return Ok(Attempt::Ended(Registration::Registered { response, numbers }));
            }
            Written::Replay(earlier) => return Ok(Attempt::Ended(Registration::Replay(earlier))),
            Written::Refused(parts) => parts,
        };
        if stored.is_none() && parts.contains(&Part::Customer) {
            let reason = "the user id counter returned the id of an existing customer";
            return Err(StoreError::corrupt(reason).into());
        }
        if generated.is_some_and(|generated| parts.contains(&generated)) {
            allocated.identity = None;
            return Ok(Attempt::NumberTaken);
        }
        Ok(Attempt::LostRace)
    }

    async fn new_user(&self, org: &Org, allocated: &mut Allocated) -> Result<UserId, StoreError> {
        if let Some(user) = allocated.user {
            return Ok(user);
        }
        let user = self.next_user_id(org.id()).await?;
        allocated.user = Some(user);
        Ok(user)
    }

    /// The external ID that is generated for the customer.
    async fn new_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        on_refresh: &(dyn Fn(&Arc<Org>) + Sync),
        allocated: &mut Allocated,
    ) -> Result<Identity, NumberingError> {
        if let Some(identity) = &allocated.identity {
            return Ok(identity.clone());
        }
        let number = self.next_card_number(org, account, on_refresh).await?;
        let identifier = org
            .identifier(IdentifierName::ExternalId, &number.number)
            .map_err(|_| StoreError::corrupt("a card number cannot be an external ID"))?;
        let identity = Identity::new(account.clone(), identifier);
        allocated.numbers.push(number);
        allocated.identity = Some(identity.clone());
        Ok(identity)
    }
}

/// Whether the customer whom a registration joins has one of its identifiers in the same account.
/// The customer had none when the owners were read, so another registration has added it since. It
/// was the first to register in that account: the next attempt reads that, and is refused.
fn has_in_account(customer: &Customer, identities: &[Identity]) -> bool {
    let mut in_account = identities.iter().filter(|identity| identity.account().is_some());
    in_account.any(|identity| customer.has_key(&StoredIdentifier::from(identity).key()))
}
