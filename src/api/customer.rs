//! Registering customers.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Call,
    error::{ApiError, ApiMessage, Gather, Problem, Problems, SuccessBody},
    params::JsonFields,
};
use crate::{
    model::{
        customer::{Account, Identifier, IdentifierName, Identity, UserId},
        org::Org,
        typed_text,
    },
    store::{NewCustomer, Profile, Registration},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    created_id: UserId,
}

/// `POST /v2/customers`: a new customer with all identifiers, and an external ID if none was given.
pub async fn register(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (app, org) = (call.app, &call.caller.org);
    let registration = RegistrationRequest::read(&call.json_object()?, org)?;
    // Checked first, so that no card number is spent on a customer who exists already.
    if app.store.any_taken(org.id(), &registration.identities).await? {
        return call.stored_response_or(Problem::IdentifierTaken).await;
    }
    let customer = NewCustomer {
        user: app.store.next_user_id(org.id()).await?,
        profiles: registration.profiles,
        identities: registration.identities,
        generate_for: registration.generate_for,
        registered_at: call.now,
    };
    let body = SuccessBody::new(Registered { created_id: customer.user }, &registration.warnings)?;
    let on_refresh = |org: &Arc<Org>| app.cache_org(org);
    match app.store.register(org, &customer, call.response_to_store(&body), &on_refresh).await {
        Ok(Registration::Registered(numbers)) => {
            for number in &numbers {
                call.count_card_number(number);
            }
            Ok(body)
        }
        Ok(Registration::IdentifierTaken) => call.stored_response_or(Problem::IdentifierTaken).await,
        Ok(Registration::Replay(earlier)) => call.replay(earlier),
        Err(error) => call.no_card_number(error).await,
    }
}

/// The content of a registration request.
struct RegistrationRequest {
    profiles: Vec<Profile>,
    identities: Vec<Identity>,
    /// The account to generate an external ID for, when none was given and the org generates them.
    generate_for: Option<Account>,
    warnings: Vec<ApiMessage>,
}

/// A transaction writes at most 100 items. These limits leave room for the profile, the generated
/// number and the stored response.
pub(super) const MAX_PROFILES: usize = 20;
pub(super) const MAX_IDENTIFIERS: usize = 50;
pub(super) const MAX_NAME_LENGTH: usize = 255;

impl RegistrationRequest {
    fn read(body: &JsonFields<'_>, org: &Org) -> Result<Self, Problems> {
        let entries = body.objects("profiles", Problem::ProfilesMissing)?;
        if !(1..=MAX_PROFILES).contains(&entries.len()) {
            return Err(Problem::ProfilesMissing.into());
        }
        let mut registration =
            Self { profiles: Vec::new(), identities: Vec::new(), generate_for: None, warnings: Vec::new() };
        let mut problems = Vec::new();
        for entry in &entries {
            if let Err(Problems(found)) = registration.add_profile(entry, org) {
                problems.extend(found);
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        registration.check_identities()?;
        if registration.external_ids() == 0 {
            let mut accounts = registration.profiles.iter().map(|profile| &profile.account);
            registration.generate_for = accounts.find(|account| org.generates_for(account)).cloned();
        }
        Ok(registration)
    }

    fn add_profile(&mut self, entry: &JsonFields<'_>, org: &Org) -> Result<(), Problems> {
        let (resolved, identifiers, first_name, last_name) = (
            entry.account(org, None),
            identifiers(entry, org),
            name(entry, "firstName"),
            name(entry, "lastName"),
        )
            .gather()?;
        for identifier in identifiers {
            let identity = Identity::new(resolved.account.clone(), identifier);
            // An identifier may be repeated, such as one mobile number in two spellings. It is
            // stored once.
            if !self.identities.contains(&identity) {
                self.identities.push(identity);
            }
        }
        self.warnings.extend(resolved.warning);
        self.profiles.push(Profile { account: resolved.account, first_name, last_name });
        Ok(())
    }

    fn check_identities(&self) -> Result<(), Problem> {
        if self.identities.is_empty() {
            return Err(Problem::IdentifierNameMissing);
        }
        if self.identities.len() > MAX_IDENTIFIERS {
            return Err(Problem::IdentifiersInvalid);
        }
        if self.external_ids() > 1 {
            return Err(Problem::ExternalIdsDiffer);
        }
        Ok(())
    }

    fn external_ids(&self) -> usize {
        let names = self.identities.iter().map(|identity| identity.identifier().name());
        names.filter(|name| *name == IdentifierName::ExternalId).count()
    }
}

/// All identifiers of a profile, or every problem that any of them has.
fn identifiers(entry: &JsonFields<'_>, org: &Org) -> Result<Vec<Identifier>, Problems> {
    let (mut identifiers, mut problems) = (Vec::new(), Vec::new());
    for object in entry.objects("identifiers", Problem::IdentifiersInvalid)? {
        match object.identifier(org) {
            Ok(identifier) => identifiers.push(identifier),
            Err(Problems(found)) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(identifiers) } else { Err(Problems(problems)) }
}

fn name(entry: &JsonFields<'_>, field: &str) -> Result<Option<String>, Problems> {
    let name = entry.text(field, Problem::NameInvalid)?.unwrap_or_default();
    if name.chars().count() > MAX_NAME_LENGTH {
        return Err(Problem::NameInvalid.into());
    }
    Ok(Some(typed_text::name(&name)).filter(|name| !name.is_empty()))
}
