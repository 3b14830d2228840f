//! Generating card numbers, which are external IDs.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::{
    App, Call,
    error::{Answer, ApiError, Problem, Problems},
    metrics::{Happened, Tally},
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
    let addressed =
        call.params().account(&call.caller.org, Some(Source::Instore)).map_err(not_for_account)?;
    let entity = call.app.next_card_number(&call.caller.org, &addressed.account, call.tally).await?;
    Ok(Answer::new(Generated { entity }, addressed.warning.as_slice()))
}

/// An account that does not exist is given numbers as little as one that is not enabled.
fn not_for_account(Problems(problems): Problems) -> Problems {
    let forbid = |problem| match problem {
        Problem::AccountNotConfigured => Problem::CardNumbersNotForAccount,
        other => other,
    };
    Problems(problems.into_iter().map(forbid).collect())
}

/// How often a plan may change while one number is being taken.
const MOST_CHANGES: usize = 8;

/// The org's counter belongs to another numbering plan than the org has.
#[derive(Debug)]
struct CounterDiffers;

impl fmt::Display for CounterDiffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the card number counter has another plan than the org; apply the org's file again")
    }
}

impl std::error::Error for CounterDiffers {}

impl App {
    /// A number that nobody else gets, for a customer of `account`.
    pub(super) async fn next_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        tally: &Tally,
    ) -> Result<String, ApiError> {
        let mut org = Arc::clone(org);
        for _ in 0..MOST_CHANGES {
            if let Some(number) = self.try_next_card_number(&org, account, tally).await? {
                return Ok(number);
            }
            // The plan was changed within the last minute, and this process has not heard of it.
            let fresh = self.reload_org(org.id()).await?;
            if fresh.numbering_plan() == org.numbering_plan() {
                // The counter never got the plan that the org's item holds: somebody edited the item.
                return Err(ApiError::caused_by(Problem::CardNumberSettingsInvalid, CounterDiffers));
            }
            org = fresh;
        }
        Err(Problem::Unavailable.into())
    }

    /// `None` when the org counts by another plan than `org` has.
    async fn try_next_card_number(
        &self,
        org: &Org,
        account: &Account,
        tally: &Tally,
    ) -> Result<Option<String>, ApiError> {
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
            NextValue::Value(value) => {
                tally.count(Happened::CardNumberGenerated);
                tally.set(Happened::CardNumberRangeUsed, plan.percent_used(value));
                Ok(Some(plan.number(value, &org.permutation_key)))
            }
            NextValue::Exhausted => Err(Problem::CardNumbersExhausted.into()),
            NextValue::PlanChanged => Ok(None),
        }
    }
}
