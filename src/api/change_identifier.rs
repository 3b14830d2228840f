//! Changing the identifiers of customers.

use serde::Serialize;

use super::{
    Call,
    customer::{MAX_IDENTIFIERS, identifiers},
    error::{ApiError, ApiMessage, Gather, Problem, SuccessBody},
    params::ResolvedAccount,
};
use crate::{
    model::{
        customer::{Account, Identifier, IdentifierName, Identity, UserId},
        profile::{Attribution, ChangeRefusal, IdentifierChange},
    },
    store::Change,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    created_id: UserId,
}

/// `POST /v2/customers/{id}/changeIdentifier`: adds and removes identifiers of a customer in one
/// account.
pub async fn change(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, user) = (&call.caller.org, call.customer_id());
    let (params, body) = (call.params()?, call.json_object()?);
    let (ResolvedAccount { account, warning }, add, remove) = (
        params.account(org, None),
        identifiers(&body, "add", Problem::ChangeInvalid, org),
        identifiers(&body, "remove", Problem::ChangeInvalid, org),
    )
        .gather()?;
    let change = IdentifierChange {
        add: identities(&account, add),
        remove: identities(&account, remove),
        account,
        attribution: Attribution::new(call.now, &call.caller.till.name),
    };
    check(&change)?;
    let user = user?;
    let respond = |unchanged| {
        let unchanged = std::iter::repeat_n(ApiMessage::IDENTIFIER_UNCHANGED, unchanged);
        let warnings: Vec<_> = warning.iter().cloned().chain(unchanged).collect();
        SuccessBody::new(Changed { created_id: user }, &warnings)
    };
    let request = call.idempotent_request.as_ref();
    match call.app.store.change_identifiers(org.id(), user, &change, request, respond).await? {
        Change::Done(response) => Ok(response),
        Change::Refused(refusal) => call.stored_response_or(refusal).await,
        Change::CustomerUnknown => Err(Problem::CustomerUnknown.into()),
        Change::Replay(earlier) => call.replay(earlier),
    }
}

/// The identities of `identifiers`, each once: they may be repeated in two spellings.
fn identities(account: &Account, identifiers: Vec<Identifier>) -> Vec<Identity> {
    let mut identities = Vec::new();
    for identifier in identifiers {
        let identity = Identity::new(account.clone(), identifier);
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    identities
}

fn check(change: &IdentifierChange) -> Result<(), Problem> {
    if !(1..=MAX_IDENTIFIERS).contains(&(change.add.len() + change.remove.len())) {
        return Err(Problem::ChangeInvalid);
    }
    let names = change.add.iter().map(|identity| identity.identifier().name());
    if names.filter(|name| *name == IdentifierName::ExternalId).count() > 1 {
        return Err(Problem::ExternalIdsDiffer);
    }
    Ok(())
}

impl From<ChangeRefusal> for ApiError {
    fn from(refusal: ChangeRefusal) -> Self {
        match refusal {
            ChangeRefusal::Taken => Problem::IdentifierTaken,
            ChangeRefusal::BelongsToAnother => Problem::RemovedIdentifierOfAnother,
            ChangeRefusal::NoneLeft => Problem::NoIdentifierLeft,
            ChangeRefusal::TooManyIdentifiers => Problem::TooManyIdentifiers,
        }
        .into()
    }
}
