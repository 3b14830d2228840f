//! Importing customers, for operators. The rules are those of `POST /v2/customers`.

use std::{collections::HashSet, sync::Arc};

use http::HeaderMap;

use super::{
    App,
    customer::RegistrationRequest,
    error::{ApiError, Problem},
    params::json_object,
};
use crate::{
    model::{
        customer::{Identifier, IdentifierName, Identity, UserId},
        org::Org,
        profile::{Refusal, Registrant, StoredIdentifier},
    },
    store::{NewCustomer, NumberingError, Registration},
};

/// A customer to be imported.
pub struct ImportedCustomer(RegistrationRequest);

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
    /// Reads the body of a request for registration. The profiles are attributed to no till.
    ///
    /// # Errors
    /// The problems that such a request would be refused with.
    pub fn read(org: &Org, body: &[u8]) -> Result<Self, ApiError> {
        let body = json_object(&HeaderMap::new(), body)?;
        Ok(Self(RegistrationRequest::read(org, None, &body)?))
    }

    /// The external IDs and card numbers of the customer.
    pub fn card_numbers(&self) -> impl Iterator<Item = &str> {
        let identifiers = self.0.identities.iter().map(Identity::identifier);
        identifiers
            .filter(|identifier| identifier.name().name_space() == IdentifierName::ExternalId)
            .map(Identifier::value)
    }

    /// What identifies the customer. Of two customers with a common key, the first one must be imported
    /// before the second one, which joins or extends it.
    pub fn keys(&self) -> HashSet<StoredIdentifier> {
        self.identifiers().map(|identifier| identifier.person().unwrap_or_else(|| identifier.key())).collect()
    }

    fn identifiers(&self) -> impl Iterator<Item = StoredIdentifier> {
        self.0.identities.iter().map(StoredIdentifier::from)
    }
}

/// What is known about a registration. There is no idempotency key to store a response under, so the
/// response is empty.
struct Response(Registrant);

impl AsRef<str> for Response {
    fn as_ref(&self) -> &'static str {
        ""
    }
}

impl App {
    /// Registers a customer, with a generated card number where the org generates one. A customer
    /// who has all of the identifiers already is left as they are, so an import can be repeated.
    ///
    /// # Errors
    /// The error that a request for registration would be refused with.
    pub async fn import(&self, org: &Arc<Org>, imported: &ImportedCustomer) -> Result<Imported, ApiError> {
        let ImportedCustomer(RegistrationRequest { profiles, identities, generate_for, .. }) = imported;
        let new = NewCustomer {
            profiles: profiles.clone(),
            identities: identities.clone(),
            generate_for: generate_for.clone(),
            registered_at: self.clock.now(),
        };
        let respond = |_: UserId, registrant| Ok::<_, ApiError>(Response(registrant));
        let on_refresh = |org: &Arc<Org>| self.cache_org(org);
        match self.store.register(org, &new, None, respond, &on_refresh).await? {
            Registration::Registered { response: Response(registrant), .. } => Ok(result(registrant)),
            Registration::Refused(refusal) => self.existed(org, imported, refusal).await,
            Registration::NoNumber(NumberingError::Exhausted) => Err(Problem::CardNumbersExhausted.into()),
            Registration::NoNumber(error) => Err(ApiError::caused_by(Problem::Internal, error)),
            Registration::Replay(_) => Err(Problem::Internal.into()),
        }
    }

    /// What [`Self::import`] would do at this moment. Writes nothing.
    ///
    /// # Errors
    /// As those of [`Self::import`].
    pub async fn rehearse_import(
        &self,
        org: &Arc<Org>,
        imported: &ImportedCustomer,
    ) -> Result<Imported, ApiError> {
        match self.store.registrant(org, &imported.0.identities).await? {
            Ok(registrant) => Ok(result(registrant)),
            Err(refusal) => self.existed(org, imported, refusal).await,
        }
    }

    /// Whether the customer because of whom a registration is refused has everything that it brings.
    async fn existed(
        &self,
        org: &Org,
        imported: &ImportedCustomer,
        refusal: Refusal,
    ) -> Result<Imported, ApiError> {
        if let Refusal::Exists(user) = refusal
            && let Some(customer) = self.store.customer(org.id(), user).await?
            && imported.identifiers().all(|identifier| customer.identifiers.contains(&identifier))
        {
            return Ok(Imported::Existed);
        }
        Err(refusal.into())
    }
}

fn result(registrant: Registrant) -> Imported {
    match registrant {
        Registrant::New => Imported::Registered,
        Registrant::Known(_) => Imported::Joined,
    }
}
