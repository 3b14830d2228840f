//! Importing customers, for operators. The rules are those of `POST /v2/customers`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderMap;

use super::{
    App,
    customer::RegistrationRequest,
    error::{ApiError, Problem},
    params::json_object,
};
use crate::{
    model::{
        card_number::NumberingPlan,
        customer::{Identifier, IdentifierName, Identity, UserId},
        org::{Org, OrgId},
        profile::{Customer, Owners, Refusal, Registrant, StoredIdentifier, registrant},
    },
    store::{NewCustomer, Registration, StoreError},
};

/// A customer to be imported, by the rules of the org at the time of reading.
pub struct ImportedCustomer {
    org: Arc<Org>,
    request: RegistrationRequest,
}

/// The result of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// A new customer.
    Registered,
    /// The profile was added to a customer who is known from another account.
    Joined,
    /// The customer has all of the identifiers already. Nothing was written.
    Existed,
}

impl ImportedCustomer {
    /// The values of the sequence by which the org's plan gives the external IDs and card numbers
    /// of the customer.
    pub fn values_of_plan(&self) -> impl Iterator<Item = u64> {
        let identifiers = self.request.identities.iter().map(Identity::identifier);
        let numbers =
            identifiers.filter(|identifier| identifier.name().name_space() == IdentifierName::ExternalId);
        numbers
            .filter_map(|number| self.plan()?.value_of(Identifier::value(number), &self.org.permutation_key))
    }

    /// The org's plan of card numbers. `None` if it has none.
    pub fn plan(&self) -> Option<&NumberingPlan> {
        self.org.numbering_plan().ok()
    }

    /// What identifies the customer. Of two customers with a common key, the first one must be
    /// imported before the second one, which joins or extends it.
    pub fn keys(&self) -> HashSet<StoredIdentifier> {
        self.identifiers().map(|identifier| identifier.person().unwrap_or_else(|| identifier.key())).collect()
    }

    fn identifiers(&self) -> impl Iterator<Item = StoredIdentifier> {
        self.request.identities.iter().map(StoredIdentifier::from)
    }

    /// The result where a registration is refused: whether `customer`, because of whom it is, has
    /// everything that it brings.
    fn existed(&self, refusal: Refusal, customer: Option<&Customer>) -> Result<Imported, ApiError> {
        let has_all = customer.is_some_and(|customer| {
            self.identifiers().all(|identifier| customer.identifiers.contains(&identifier))
        });
        if has_all { Ok(Imported::Existed) } else { Err(refusal.into()) }
    }
}

/// What is known about a registration. There is no idempotency key to store a response under, so
/// the response is empty.
struct Response(Registrant);

impl AsRef<str> for Response {
    fn as_ref(&self) -> &'static str {
        ""
    }
}

impl App {
    /// Reads the body of a request for registration by the rules that the org has now. As for any
    /// request, they are at most a minute old. The profiles are attributed to no till.
    ///
    /// # Errors
    /// The inner error has the problems that such a request would be refused with. The outer one is
    /// that of reading the org.
    pub async fn read_import(
        &self,
        org: OrgId,
        body: &[u8],
    ) -> Result<Result<ImportedCustomer, ApiError>, ApiError> {
        let org = self.org(org).await?;
        let request = json_object(&HeaderMap::new(), body).map_err(ApiError::from);
        let request = request.and_then(|body| Ok(RegistrationRequest::read(&org, None, &body)?));
        Ok(request.map(|request| ImportedCustomer { org, request }))
    }

    /// Registers a customer, with a generated card number where the org generates one. A customer
    /// who has all of the identifiers already is left as they are, so an import can be repeated.
    ///
    /// # Errors
    /// The error that a request for registration would be refused with.
    pub async fn import(&self, imported: &ImportedCustomer) -> Result<Imported, ApiError> {
        let ImportedCustomer { org, request } = imported;
        let new = NewCustomer {
            profiles: request.profiles.clone(),
            identities: request.identities.clone(),
            generate_for: request.generate_for.clone(),
            registered_at: self.clock.now(),
        };
        let respond = |_: UserId, registrant| Ok::<_, ApiError>(Response(registrant));
        let on_refresh = |org: &Arc<Org>| self.cache_org(org);
        match self.store.register(org, &new, None, respond, &on_refresh).await? {
            Registration::Registered { response: Response(registrant), .. } => Ok(result(registrant)),
            Registration::Refused(refusal @ Refusal::Exists(user)) => {
                imported.existed(refusal, self.store.customer(org.id(), user).await?.as_ref())
            }
            Registration::Refused(refusal) => Err(refusal.into()),
            Registration::NoNumber(error) => Err(error.into()),
            Registration::Replay(_) => Err(Problem::Internal.into()),
        }
    }

    /// What [`Self::import`] would do if all rows of the rehearsal before had been imported. Writes
    /// nothing. Whether the org has enough card numbers left is not asked.
    ///
    /// # Errors
    /// As those of [`Self::import`].
    pub async fn rehearse_import(
        &self,
        rehearsal: &Rehearsal,
        imported: &ImportedCustomer,
    ) -> Result<Imported, ApiError> {
        let ImportedCustomer { org, request } = imported;
        let mut owners = self.store.owners_of(org.id(), &request.identities).await?;
        rehearsal.lock().complete(&mut owners, imported);
        let registrant = registrant(&request.identities, &owners, org.customers_join);
        if let Ok(Registrant::Known(user)) | Err(Refusal::Exists(user)) = registrant
            && !rehearsal.lock().customers.contains_key(&user)
        {
            let missing = || StoreError::corrupt("an identity points at a customer without an item");
            let stored = self.store.customer(org.id(), user).await?.ok_or_else(missing)?;
            rehearsal.lock().customers.entry(user).or_insert(stored);
        }
        rehearsal.lock().register(registrant, &owners, imported)
    }
}

fn result(registrant: Registrant) -> Imported {
    match registrant {
        Registrant::New => Imported::Registered,
        Registrant::Known(_) => Imported::Joined,
    }
}

/// What the rows of a rehearsal would have written so far.
#[derive(Default)]
pub struct Rehearsal(Mutex<Rehearsed>);

#[derive(Default)]
struct Rehearsed {
    owners: HashMap<StoredIdentifier, UserId>,
    /// The customers of the rows, as they would be.
    customers: HashMap<UserId, Customer>,
    new: u64,
}

/// The ids of customers whom a rehearsal would register. No user id is as high.
const FIRST_REHEARSED: u64 = 1 << 63;

impl Rehearsal {
    fn lock(&self) -> MutexGuard<'_, Rehearsed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rehearsed {
    /// Adds what is owned by the rehearsal.
    fn complete(&self, owners: &mut Owners, imported: &ImportedCustomer) {
        for key in imported.identifiers().flat_map(|identifier| identifier.keys()) {
            if let Some(owner) = self.owners.get(&key) {
                owners.insert(key, *owner);
            }
        }
    }

    /// Registers as [`crate::store::Store::register`] does.
    fn register(
        &mut self,
        registrant: Result<Registrant, Refusal>,
        owners: &Owners,
        imported: &ImportedCustomer,
    ) -> Result<Imported, ApiError> {
        let (registrant, before) = match registrant {
            Ok(Registrant::New) => {
                self.new += 1;
                (Registrant::New, Customer::new(UserId(FIRST_REHEARSED + self.new)))
            }
            Ok(Registrant::Known(user)) => {
                let known = self.customers.get(&user).cloned();
                (Registrant::Known(user), known.unwrap_or_else(|| Customer::new(user)))
            }
            Err(refusal @ Refusal::Exists(user)) => {
                let existed = imported.existed(refusal, self.customers.get(&user));
                let is_rehearsed = user.0 > FIRST_REHEARSED;
                return if is_rehearsed { existed.or(Err(Problem::CustomerExists.into())) } else { existed };
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let RegistrationRequest { profiles, identities, generate_for, .. } = &imported.request;
        let mut customer = before.extended(profiles, identities)?;
        if generate_for.is_some() && customer.external_id().is_none() {
            // A generated one, which no row can contain.
            let generated = StoredIdentifier(None, IdentifierName::ExternalId, String::new());
            customer.identifiers.push(generated);
        }
        for identifier in imported.identifiers() {
            self.owners.insert(identifier.key(), customer.user);
            if let Some(person) = identifier.person().filter(|person| owners.get(person).is_none()) {
                self.owners.insert(person, customer.user);
            }
        }
        self.customers.insert(customer.user, customer);
        Ok(result(registrant))
    }
}
