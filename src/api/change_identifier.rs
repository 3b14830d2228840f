//! Changing the identifiers of customers.

use serde::Serialize;

use super::{
    Call,
    customer::{MAX_IDENTIFIERS_PER_REQUEST, add_identities, check_external_ids, identifiers},
    error::{ApiError, ApiMessage, Gather, Problem, SuccessBody},
};
use crate::{
    model::{
        customer::UserId,
        profile::{ChangeRefusal, IdentifierChange},
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
    let ((account, warning), add, remove) = (
        params.account(org, None),
        identifiers(&body, "add", Problem::ChangeInvalid, org),
        identifiers(&body, "remove", Problem::ChangeInvalid, org),
    )
        .gather()?;
    let change = IdentifierChange {
        add: add_identities(Vec::new(), &account, add),
        remove: add_identities(Vec::new(), &account, remove),
        account,
        attribution: call.attribution(),
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

fn check(change: &IdentifierChange) -> Result<(), Problem> {
    if !(1..=MAX_IDENTIFIERS_PER_REQUEST).contains(&(change.add.len() + change.remove.len())) {
        return Err(Problem::ChangeInvalid);
    }
    check_external_ids(&change.add)
}

impl From<ChangeRefusal> for ApiError {
    fn from(refusal: ChangeRefusal) -> Self {
        match refusal {
            ChangeRefusal::Taken => Problem::IdentifierTaken,
            ChangeRefusal::BelongsToAnother => Problem::RemovedIdentifierOfAnother,
            ChangeRefusal::NoneLeft => Problem::NoIdentifierLeft,
            ChangeRefusal::TooLarge(too_large) => too_large.into(),
        }
        .into()
    }
}
