//! Generating card numbers, which are external IDs.

use std::sync::Arc;

use serde::Serialize;

use super::{
    App, Call,
    error::{Answer, ApiError, Problem},
};
use crate::{
    card_number::PlanError,
    customer::{Account, Source},
    org::Org,
    store::NextValue,
};

#[derive(Serialize)]
struct Generated {
    entity: String,
}

/// `GET` or `POST /v2/cardNumber`: the next number of the org.
pub async fn next(call: Call<'_>) -> Result<Answer, ApiError> {
    let addressed = call.params().account(&call.caller.org, Some(Source::Instore))?;
    let entity = call.app.next_card_number(&call.caller.org, &addressed.account).await?;
    Ok(Answer::new(Generated { entity }, addressed.warning.as_slice()))
}

impl App {
    /// A number that nobody else gets, for a customer of `account`.
    pub(super) async fn next_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
    ) -> Result<String, ApiError> {
        if let Some(number) = self.try_next_card_number(org, account).await? {
            return Ok(number);
        }
        // The plan was changed within the last minute, and this process has not heard of it.
        let org = self.reload_org(org.id()).await?;
        let number = self.try_next_card_number(&org, account).await?;
        // The counter never got the plan that the org's item holds: somebody edited the item.
        Ok(number.ok_or(Problem::CardNumberSettingsInvalid)?)
    }

    /// `None` when the org counts by another plan than `org` has.
    async fn try_next_card_number(&self, org: &Org, account: &Account) -> Result<Option<String>, ApiError> {
        if !org.config().card_numbers_enabled {
            return Err(Problem::CardNumbersDisabled.into());
        }
        if !org.generates_for(account) {
            return Err(Problem::CardNumbersNotForAccount.into());
        }
        let plan = org.numbering_plan().map_err(|error| match error {
            PlanError::Length(_) => ApiError::caused_by(Problem::CardNumberLengthInvalid, error.clone()),
            PlanError::Settings(_) => ApiError::caused_by(Problem::CardNumberSettingsInvalid, error.clone()),
        })?;
        match self.store.next_card_number(org.id(), plan).await? {
            NextValue::Value(value) => Ok(Some(plan.number(value, &org.permutation_key))),
            NextValue::Exhausted => Err(Problem::CardNumbersExhausted.into()),
            NextValue::PlanChanged => Ok(None),
        }
    }
}
