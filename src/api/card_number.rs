//! Generating card numbers, which are external IDs.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Call,
    error::{ApiError, Problem, Problems, SuccessBody},
    metrics::Event,
};
use crate::{
    model::{
        card_number::PlanError,
        customer::Source,
        org::{NotNumbered, Org},
    },
    store::{CardNumber, NumberingError},
};

#[derive(Serialize)]
struct Generated<'a> {
    entity: &'a str,
}

/// `GET` or `POST /v2/cardNumber`: the next number of the org.
pub async fn next(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (app, org) = (call.app, &call.caller.org);
    let (account, warning) = call.params()?.account(org, Some(Source::Instore)).map_err(not_for_account)?;
    let on_refresh = |org: &Arc<Org>| app.cache_org(org);
    let number = match app.store.next_card_number(org, &account, &on_refresh).await {
        Ok(number) => number,
        Err(error) => return call.no_card_number(error).await,
    };
    let body = SuccessBody::new(Generated { entity: &number.number }, warning.as_slice())?;
    if let Some(earlier) = call.store_response(&body).await? {
        return call.replay(earlier);
    }
    call.count_card_number(&number);
    Ok(body)
}

/// Maps the error for an account that does not exist to the error for one that is not enabled.
fn not_for_account(Problems(problems): Problems) -> Problems {
    let forbid = |problem| match problem {
        Problem::AccountNotConfigured => Problem::CardNumbersNotForAccount,
        other => other,
    };
    Problems(problems.into_iter().map(forbid).collect())
}

impl Call<'_> {
    pub(super) fn count_card_number(&self, number: &CardNumber) {
        self.events.count(Event::CardNumberGenerated);
        self.events.set(Event::CardNumberRangeUsed, number.percent_used);
    }

    /// The response when no number is available. If the range is exhausted, a concurrent request
    /// with the same key may have got the last number; then its stored response is returned.
    pub(super) async fn no_card_number(&self, error: NumberingError) -> Result<SuccessBody, ApiError> {
        match error {
            NumberingError::Exhausted => self.stored_response_or(error).await,
            error => Err(error.into()),
        }
    }
}

impl From<NumberingError> for ApiError {
    fn from(error: NumberingError) -> Self {
        match error {
            NumberingError::NotNumbered(NotNumbered::Disabled) => Problem::CardNumbersDisabled.into(),
            NumberingError::NotNumbered(NotNumbered::AccountNotEnabled) => {
                Problem::CardNumbersNotForAccount.into()
            }
            NumberingError::NotNumbered(NotNumbered::PlanInvalid(PlanError::Length(_))) => {
                Self::caused_by(Problem::CardNumberLengthInvalid, error)
            }
            NumberingError::NotNumbered(NotNumbered::PlanInvalid(PlanError::Settings(_)))
            | NumberingError::PlanMismatch => Self::caused_by(Problem::CardNumberSettingsInvalid, error),
            NumberingError::Exhausted => Problem::CardNumbersExhausted.into(),
            NumberingError::Store(error) => error.into(),
        }
    }
}
