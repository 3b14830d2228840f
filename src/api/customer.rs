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
    let wanted = RegistrationRequest::read(&call.json_object()?, org)?;
    // Asked first, so that a number is not spent on a customer who is there already.
    if app.store.any_taken(org.id(), &wanted.identities).await? {
        return call.stored_response_or(Problem::IdentifierTaken).await;
    }
    let customer = NewCustomer {
        user: app.store.next_user_id(org.id()).await?,
        profiles: wanted.profiles,
        identities: wanted.identities,
        generate_for: wanted.generate_for,
        registered_at: call.now,
    };
    let answer = SuccessBody::new(Registered { created_id: customer.user }, &wanted.warnings)?;
    let learn = |org: &Arc<Org>| app.remember_org(org);
    match app.store.register(org, &customer, call.response_to_store(&answer), &learn).await {
        Ok(Registration::Registered(numbers)) => {
            for number in &numbers {
                call.count_card_number(number);
            }
            Ok(answer)
        }
        Ok(Registration::IdentifierTaken) => call.stored_response_or(Problem::IdentifierTaken).await,
        Ok(Registration::AnsweredBefore(earlier)) => call.replay(earlier),
        Err(error) => call.no_card_number(error).await,
    }
}

/// What a request asks to register.
struct RegistrationRequest {
    profiles: Vec<Profile>,
    identities: Vec<Identity>,
    /// The account to generate an external ID for, when none was given and the org generates them.
    generate_for: Option<Account>,
    warnings: Vec<ApiMessage>,
}

/// A transaction writes at most 100 items; these leave room for the profile, the generated number and the answer.
pub(super) const MAX_PROFILES: usize = 20;
pub(super) const MAX_IDENTIFIERS: usize = 50;
pub(super) const MAX_NAME_LENGTH: usize = 255;

impl RegistrationRequest {
    fn read(body: &JsonFields<'_>, org: &Org) -> Result<Self, Problems> {
        let entries = body.objects("profiles", Problem::ProfilesMissing)?;
        if !(1..=MAX_PROFILES).contains(&entries.len()) {
            return Err(Problem::ProfilesMissing.into());
        }
        let mut wanted =
            Self { profiles: Vec::new(), identities: Vec::new(), generate_for: None, warnings: Vec::new() };
        let mut problems = Vec::new();
        for entry in &entries {
            if let Err(Problems(found)) = wanted.add_profile(entry, org) {
                problems.extend(found);
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        wanted.check_identities()?;
        if wanted.external_ids() == 0 {
            let mut accounts = wanted.profiles.iter().map(|profile| &profile.account);
            wanted.generate_for = accounts.find(|account| org.generates_for(account)).cloned();
        }
        Ok(wanted)
    }

    fn add_profile(&mut self, entry: &JsonFields<'_>, org: &Org) -> Result<(), Problems> {
        let (addressed, identifiers, first_name, last_name) = (
            entry.account(org, None),
            identifiers(entry, org),
            name(entry, "firstName"),
            name(entry, "lastName"),
        )
            .gather()?;
        for identifier in identifiers {
            let identity = Identity::new(addressed.account.clone(), identifier);
            // Said twice, it is one: the same mobile in two spellings, for instance.
            if !self.identities.contains(&identity) {
                self.identities.push(identity);
            }
        }
        self.warnings.extend(addressed.warning);
        self.profiles.push(Profile { account: addressed.account, first_name, last_name });
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
    for member in entry.objects("identifiers", Problem::IdentifiersInvalid)? {
        match member.identifier(org) {
            Ok(identifier) => identifiers.push(identifier),
            Err(Problems(found)) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(identifiers) } else { Err(Problems(problems)) }
}

fn name(entry: &JsonFields<'_>, member: &str) -> Result<Option<String>, Problems> {
    let name = entry.text(member, Problem::NameInvalid)?.map(|name| typed_text::name(&name));
    if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME_LENGTH) {
        return Err(Problem::NameInvalid.into());
    }
    Ok(name.filter(|name| !name.is_empty()))
}
