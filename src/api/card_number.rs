//! Generating card numbers, which are external IDs.

use std::sync::Arc;

use serde::Serialize;

use super::{
    App, Call,
    error::{ApiError, Problem, Problems, SuccessBody},
    metrics::{Event, EventCounts},
};
use crate::{
    model::{
        card_number::{NumberingPlan, PlanError},
        customer::{Account, Source},
        org::Org,
    },
    store::{IdempotentRequest, NextTurn, Taking, Turn},
};

#[derive(Serialize)]
struct Generated {
    entity: String,
}

/// `GET` or `POST /v2/cardNumber`: the next number of the org.
pub async fn next(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let addressed =
        call.params().account(&call.caller.org, Some(Source::Instore)).map_err(not_for_account)?;
    let (app, org, account) = (call.app, &call.caller.org, &addressed.account);
    let answer = |entity| SuccessBody::new(Generated { entity }, addressed.warning.as_slice());
    let Some(once) = &call.idempotent_request else {
        return answer(app.next_card_number(org, account, call.events).await?);
    };
    for _ in 0..MAX_CHANGES {
        let coming = match app.coming_card_number(org, account, once).await {
            Ok(coming) => coming,
            // The last number may be that of a rival with the same key.
            Err(error) => return call.stored_response_or(error).await,
        };
        let answer = answer(coming.number.clone())?;
        match app.store.take_card_number(org.id(), &coming.turn, call.record(&answer)).await? {
            Taking::Taken => {
                coming.count(call.events);
                return Ok(answer);
            }
            Taking::AnsweredBefore => break,
            Taking::Outrun => {}
        }
    }
    call.stored_response_or(Problem::Unavailable).await
}

/// An account that does not exist is given numbers as little as one that is not enabled.
fn not_for_account(Problems(problems): Problems) -> Problems {
    let forbid = |problem| match problem {
        Problem::AccountNotConfigured => Problem::CardNumbersNotForAccount,
        other => other,
    };
    Problems(problems.into_iter().map(forbid).collect())
}

/// How often a plan may change while one number is being taken. A request with a key is outrun once, and otherwise
/// only by that.
const MAX_CHANGES: usize = 8;

/// The org's counter belongs to another numbering plan than the org has.
#[derive(Debug, thiserror::Error)]
#[error("the card number counter has another plan than the org; apply the org's file again")]
struct CounterDiffers;

/// A number of the sequence, with its place there.
pub(super) struct NextNumber {
    pub number: String,
    pub turn: Turn,
    percent_used: f64,
}

impl NextNumber {
    /// Counts the number as generated.
    pub fn count(&self, events: &EventCounts) {
        events.count(Event::CardNumberGenerated);
        events.set(Event::CardNumberRangeUsed, self.percent_used);
    }
}

/// What becomes of the number whose turn it is.
#[derive(Clone, Copy)]
enum Reach<'a> {
    /// It is taken: nobody else gets it.
    Take,
    /// It stays there, to be taken together with what is written of it for this request.
    Look(&'a IdempotentRequest),
}

impl App {
    /// A number that nobody else gets, for a customer of `account`.
    pub(super) async fn next_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        events: &EventCounts,
    ) -> Result<String, ApiError> {
        let next = self.reach_for_number(org, account, Reach::Take).await?;
        next.count(events);
        Ok(next.number)
    }

    /// The number for a request to take, which nobody has yet.
    pub(super) async fn coming_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        once: &IdempotentRequest,
    ) -> Result<NextNumber, ApiError> {
        self.reach_for_number(org, account, Reach::Look(once)).await
    }

    async fn reach_for_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        reach: Reach<'_>,
    ) -> Result<NextNumber, ApiError> {
        let mut org = Arc::clone(org);
        for _ in 0..MAX_CHANGES {
            let plan = plan(&org, account)?;
            let next = match reach {
                Reach::Take => self.store.next_card_number(org.id(), plan).await?,
                Reach::Look(once) => self.store.coming_card_number(org.id(), plan, once).await?,
            };
            match next {
                NextTurn::Turn(turn) => {
                    let number = plan.number(turn.value, &org.permutation_key);
                    return Ok(NextNumber { number, percent_used: plan.percent_used(turn.value), turn });
                }
                NextTurn::Exhausted => return Err(Problem::CardNumbersExhausted.into()),
                NextTurn::PlanChanged => {}
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
}

/// The plan by which an org numbers the customers of an account.
fn plan<'a>(org: &'a Org, account: &Account) -> Result<&'a NumberingPlan, ApiError> {
    if !org.config().card_numbers_enabled {
        return Err(Problem::CardNumbersDisabled.into());
    }
    if !org.generates_for(account) {
        return Err(Problem::CardNumbersNotForAccount.into());
    }
    org.numbering_plan().map_err(|error| match error {
        PlanError::Length(_) => ApiError::caused_by(Problem::CardNumberLengthInvalid, error.clone()),
        PlanError::Settings(_) => ApiError::caused_by(Problem::CardNumberSettingsInvalid, error.clone()),
    })
}
