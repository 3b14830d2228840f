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
        profile::{Attribution, Profile, Refusal, Registrant, TooLarge},
        typed_text,
    },
    store::{NewCustomer, Registration},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    created_id: UserId,
    /// Always empty: registering awards nothing.
    side_effects: [(); 0],
}

/// `POST /v2/customers`: a new customer with all identifiers, or further profiles of a customer who
/// is known from another account. A customer without an external ID gets one.
pub async fn register(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (app, org) = (call.app, &call.caller.org);
    let RegistrationRequest { profiles, identities, generate_for, warnings } =
        RegistrationRequest::read(org, Some(&call.attribution()), &call.json_object()?)?;
    let new = NewCustomer { profiles, identities, generate_for, registered_at: call.now };
    let respond = |user, registrant| {
        let joined = matches!(registrant, Registrant::Known(_)).then(|| ApiMessage::joined(user));
        let warnings: Vec<_> = warnings.iter().cloned().chain(joined).collect();
        SuccessBody::new(Registered { created_id: user, side_effects: [] }, &warnings)
    };
    let on_refresh = |org: &Arc<Org>| app.cache_org(org);
    match app.store.register(org, &new, call.idempotent_request.as_ref(), respond, &on_refresh).await? {
        Registration::Registered { response, numbers } => {
            for number in &numbers {
                call.count_card_number(number);
            }
            Ok(response)
        }
        Registration::Refused(refusal) => call.stored_response_or(refusal).await,
        Registration::NoNumber(error) => call.no_card_number(error).await,
        Registration::Replay(earlier) => call.replay(earlier),
    }
}

impl Call<'_> {
    /// The attribution of what the caller creates.
    pub(super) fn attribution(&self) -> Attribution {
        Attribution::new(self.now, &self.caller.till.name)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Exists(user) => Self::customer_exists(user),
            Refusal::Taken => Problem::IdentifierTaken.into(),
            Refusal::SeveralCustomers => Problem::SeveralCustomers.into(),
            Refusal::TooLarge(too_large) => Problem::from(too_large).into(),
        }
    }
}

impl From<TooLarge> for Problem {
    fn from(too_large: TooLarge) -> Self {
        match too_large {
            TooLarge::Identifiers => Self::TooManyIdentifiers,
            TooLarge::Bytes => Self::CustomerTooLarge,
        }
    }
}

/// The content of a registration request.
pub(super) struct RegistrationRequest {
    pub profiles: Vec<Profile>,
    pub identities: Vec<Identity>,
    /// The account to generate an external ID for, when none was given and the org generates them.
    pub generate_for: Option<Account>,
    warnings: Vec<ApiMessage>,
}

/// A transaction writes at most 100 items. A mobile or an e-mail address takes two of them, and the
/// profile, the generated number and the stored response one each.
pub(super) const MAX_PROFILES: usize = 20;
pub(super) const MAX_IDENTIFIERS_PER_REQUEST: usize = 40;
pub(super) const MAX_NAME_LENGTH: usize = 255;

impl RegistrationRequest {
    /// Reads the body of a request. `attribution` becomes that of the profiles.
    pub fn read(
        org: &Org,
        attribution: Option<&Attribution>,
        body: &JsonFields<'_>,
    ) -> Result<Self, Problems> {
        let entries = body.objects("profiles", Problem::ProfilesMissing)?;
        if !(1..=MAX_PROFILES).contains(&entries.len()) {
            return Err(Problem::ProfilesMissing.into());
        }
        let mut registration =
            Self { profiles: Vec::new(), identities: Vec::new(), generate_for: None, warnings: Vec::new() };
        let mut problems = Vec::new();
        for entry in &entries {
            if let Err(Problems(found)) = registration.add_profile(org, attribution, entry) {
                problems.extend(found);
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        registration.check_identities()?;
        if external_ids(&registration.identities) == 0 {
            let mut accounts = registration.profiles.iter().map(|profile| &profile.account);
            registration.generate_for = accounts.find(|account| org.generates_for(account)).cloned();
        }
        Ok(registration)
    }

    fn add_profile(
        &mut self,
        org: &Org,
        attribution: Option<&Attribution>,
        entry: &JsonFields<'_>,
    ) -> Result<(), Problems> {
        let ((account, warning), identifiers, first_name, last_name) = (
            entry.account(org, None),
            identifiers(entry, "identifiers", Problem::IdentifiersInvalid, org),
            name(entry, "firstName"),
            name(entry, "lastName"),
        )
            .gather()?;
        self.identities = add_identities(std::mem::take(&mut self.identities), &account, identifiers);
        self.warnings.extend(warning);
        let attribution = attribution.cloned();
        self.profiles.push(Profile { account, first_name, last_name, attribution });
        Ok(())
    }

    fn check_identities(&self) -> Result<(), Problem> {
        if self.identities.is_empty() {
            return Err(Problem::IdentifierNameMissing);
        }
        if self.identities.len() > MAX_IDENTIFIERS_PER_REQUEST {
            return Err(Problem::IdentifiersInvalid);
        }
        check_external_ids(&self.identities)
    }
}

/// Adds identifiers in an account to a list. An identifier that is repeated, such as one mobile
/// number in two spellings, is in the list once.
pub(super) fn add_identities(
    mut list: Vec<Identity>,
    account: &Account,
    identifiers: Vec<Identifier>,
) -> Vec<Identity> {
    for identifier in identifiers {
        let identity = Identity::new(account.clone(), identifier);
        if !list.contains(&identity) {
            list.push(identity);
        }
    }
    list
}

fn external_ids(identities: &[Identity]) -> usize {
    let names = identities.iter().map(|identity| identity.identifier().name());
    names.filter(|name| *name == IdentifierName::ExternalId).count()
}

/// Checks that there is at most one external ID among the identifiers of a customer.
pub(super) fn check_external_ids(identities: &[Identity]) -> Result<(), Problem> {
    if external_ids(identities) > 1 { Err(Problem::ExternalIdsDiffer) } else { Ok(()) }
}

/// All identifiers in an array, or every problem that any of them has. `type_error` also stands for
/// an array that is too long for a request, whose problems nobody needs.
pub(super) fn identifiers(
    entry: &JsonFields<'_>,
    field: &str,
    type_error: Problem,
    org: &Org,
) -> Result<Vec<Identifier>, Problems> {
    let (mut identifiers, mut problems) = (Vec::new(), Vec::new());
    let objects = entry.objects(field, type_error)?;
    if objects.len() > MAX_IDENTIFIERS_PER_REQUEST {
        return Err(type_error.into());
    }
    for object in objects {
        match object.identifier(org) {
            Ok(identifier) => identifiers.push(identifier),
            Err(Problems(found)) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(identifiers) } else { Err(Problems(problems)) }
}

fn name(entry: &JsonFields<'_>, field: &str) -> Result<Option<String>, Problems> {
    let name = entry.text(field, Problem::NameInvalid)?.unwrap_or_default();
    let name = typed_text::name(&name);
    if name.chars().count() > MAX_NAME_LENGTH {
        return Err(Problem::NameInvalid.into());
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::{api::openapi, model::profile::MAX_IDENTIFIERS_PER_CUSTOMER};

    #[test]
    fn messages_and_documents_state_the_limits() {
        let per_customer = format!("at most {MAX_IDENTIFIERS_PER_CUSTOMER} identifiers");
        for (problem, limit) in [
            (Problem::ProfilesMissing, format!("1 to {MAX_PROFILES} objects")),
            (Problem::IdentifiersInvalid, format!("{MAX_IDENTIFIERS_PER_REQUEST} in all profiles")),
            (Problem::NameInvalid, format!("{MAX_NAME_LENGTH} characters")),
            (Problem::ChangeInvalid, format!("1 to {MAX_IDENTIFIERS_PER_REQUEST} identifiers")),
            (Problem::TooManyIdentifiers, per_customer),
        ] {
            assert!(problem.message().contains(&limit), "{problem:?}: {limit}");
        }
        let page = include_str!("../../docs/api.md");
        for limit in [
            format!("1 to {MAX_PROFILES}\n  profiles, and 1 to {MAX_IDENTIFIERS_PER_REQUEST} identifiers"),
            format!("at most {MAX_NAME_LENGTH} characters"),
            format!("A customer has at most {MAX_IDENTIFIERS_PER_CUSTOMER} identifiers"),
            format!("have 1 to {MAX_IDENTIFIERS_PER_REQUEST} identifiers in all"),
        ] {
            assert!(page.contains(&limit), "docs/api.md: {limit}");
        }
        let description = openapi::document().to_string();
        let limit = format!("At most {MAX_IDENTIFIERS_PER_REQUEST} identifiers");
        assert_eq!(description.matches(&limit).count(), 2, "openapi.json: {limit}");
    }
}
