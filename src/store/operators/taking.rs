//! Taking card numbers for an operator, in one write that is never repeated unless DynamoDB has
//! refused it: a repetition would skip as many numbers once more.

use aws_sdk_dynamodb::{
    Config,
    config::{
        http::HttpResponse,
        retry::{ClassifyRetry, RetryAction},
    },
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;

use super::{
    Store, StoreError,
    card_numbers::{
        Allocation, MAX_PLAN_CHANGES, NumberingError, PLAN_KEPT_CHANGING, SequenceValue, allocation,
    },
    retries::code,
};
use crate::model::{
    card_number::{NumberingPlan, history::IssuedRange},
    org::{NotNumbered, Org, OrgId},
};

/// Card numbers that an operator has taken.
#[derive(Debug)]
pub struct TakenNumbers {
    pub range: IssuedRange,
    pub org: Org,
}

impl TakenNumbers {
    /// The number of a value of the sequence.
    pub fn number(&self, value: u64) -> String {
        self.range.plan.number(value, &self.org.permutation_key)
    }
}

/// Why an operator got no values of a sequence.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// None was taken.
    #[error(transparent)]
    NotTaken(#[from] NumberingError),
    /// They may have been taken. Then they are skipped, because nobody knows which they are.
    #[error("DynamoDB did not answer whether the numbers were taken")]
    Uncertain(#[source] StoreError),
}

impl Store {
    /// Allocates the next `count` card numbers of an org for an operator, in one write. `None` if
    /// the range has no room for that many. `org` may be outdated.
    ///
    /// # Errors
    /// [`TakeError`] when the org gives no numbers, or DynamoDB fails.
    pub async fn take_card_numbers(
        &self,
        mut org: Org,
        count: u64,
    ) -> Result<Option<TakenNumbers>, TakeError> {
        for _ in 0..MAX_PLAN_CHANGES {
            let plan = org.numbering_plan().map_err(|error| NotNumbered::PlanInvalid(error.clone()));
            let plan = plan.map_err(NumberingError::from)?.clone();
            match self.take_values(org.id(), &plan, count).await {
                Err(TakeError::NotTaken(NumberingError::PlanMismatch)) => {
                    org = self.with_changed_plan(&org).await?;
                }
                taken => {
                    return Ok(taken?.map(|first| {
                        let range = IssuedRange { plan, first, next: first + count };
                        TakenNumbers { range, org }
                    }));
                }
            }
        }
        Err(NumberingError::from(StoreError::gave_up(PLAN_KEPT_CHANGING)).into())
    }

    /// Allocates the next `count` values of an org's sequence for an operator, in one write.
    /// Returns the first of them. `None` if the range has no room for that many.
    ///
    /// # Errors
    /// [`TakeError`] when the counter has another plan, or DynamoDB fails.
    pub async fn take_values(
        &self,
        org: OrgId,
        plan: &NumberingPlan,
        count: u64,
    ) -> Result<Option<u64>, TakeError> {
        let Some(last) = plan.end().checked_sub(count) else {
            return Ok(None);
        };
        // Near the end of the range, a repetition would find too few numbers and report that none
        // was taken.
        let once = Config::builder().retry_classifier(AfterRefusal);
        let update = self.counter_update(org, plan, count, last);
        let sent = update.customize().config_override(once).send().await;
        let was_refused = sent.as_ref().is_err_and(was_refused);
        match allocation(sent, plan, count) {
            Ok(Allocation::Taken(SequenceValue(first))) => Ok(Some(first)),
            Ok(Allocation::Exhausted) => Ok(None),
            Ok(Allocation::PlanChanged) => Err(NumberingError::PlanMismatch.into()),
            Err(error) if was_refused => Err(NumberingError::from(error).into()),
            Err(error) => Err(TakeError::Uncertain(error)),
        }
    }
}

/// Forbids all retries but those after an answer by which DynamoDB refused the operation.
#[derive(Debug)]
struct AfterRefusal;

impl ClassifyRetry for AfterRefusal {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(error)) = context.output_or_error() else {
            return RetryAction::NoActionIndicated;
        };
        let was_refused = context.response().is_some_and(|response| response.status().is_client_error())
            && error.as_operation_error().is_some_and(|error| code(error).is_some());
        if was_refused { RetryAction::NoActionIndicated } else { RetryAction::RetryForbidden }
    }

    fn name(&self) -> &'static str {
        "AfterRefusal"
    }
}

/// Whether an operation certainly did nothing, because DynamoDB has refused it or it was not sent.
fn was_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(service) => {
            service.raw().status().is_client_error() && service.err().code().is_some()
        }
        _ => false,
    }
}
