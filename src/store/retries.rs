//! The retry policy of the DynamoDB client: which errors are retried, how often and after which
//! backoff. No operation of the store repeats a call by itself. `operators::taking` forbids most
//! retries of its one write.
//!
//! The SDK retries lost connections, timeouts, 5xx responses and throttling. [`Contention`] adds
//! the cases that are specific to DynamoDB: conflicts, cancelled transactions, transactions in
//! progress, and batches with unprocessed keys. All attempts of a transaction have the same client
//! token. DynamoDB remembers the token of a transaction that succeeded, so that a repeated attempt
//! writes nothing twice. It evaluates a cancelled transaction again.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>

use std::{
    future::Future,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    config::retry::{ClassifyRetry, RetryAction, RetryConfig, RetryPartition, TokenBucket},
    error::ProvideErrorMetadata,
    operation::{
        batch_get_item::BatchGetItemOutput, delete_item::DeleteItemError, put_item::PutItemError,
        transact_write_items::TransactWriteItemsError, update_item::UpdateItemError,
    },
    types::error::TransactionCanceledException,
};
use aws_smithy_runtime_api::client::{
    interceptors::context::{Error, InterceptorContext},
    retries::classifiers::RetryClassifierPriority,
};
use aws_smithy_types::retry::ErrorKind;
use rand::RngExt;
use tokio::time::{error::Elapsed, sleep, timeout};

use super::error::StoreError;
use crate::secret::os_rng;

/// The number of attempts for one operation. With [`FIRST_BACKOFF`], the backoffs between them take
/// 1.6 seconds on average and 3.2 at most.
const ATTEMPTS: u32 = 8;
/// The upper limit of the first backoff. It doubles with each attempt, and the SDK draws each
/// backoff uniformly between zero and the limit. The SDK's default of one second is longer than
/// callers wait.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);

/// The delay between the first attempt of a transaction in progress and its only retry. AWS
/// recommends a retry "after 5 seconds have elapsed since the first attempt".
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
const IN_PROGRESS_FOR: Duration = Duration::from_millis(5_100);
/// The time that the attempt after [`IN_PROGRESS_FOR`] needs. With less time left, the retry is not
/// worth waiting for.
const TIME_FOR_AN_ATTEMPT: Duration = Duration::from_millis(400);

/// The retry quota that all operations of a client share, in tokens. It keeps a process from
/// multiplying the load on a failing DynamoDB.
const QUOTA: usize = 500;
/// Tokens that are refilled each second.
const QUOTA_REFILL: f32 = 10.0;
/// The tokens that a retry takes: the SDK's defaults, except for conflicts. A conflict takes none,
/// because it is caused by other callers and not by a failing DynamoDB.
const THROTTLING_COST: u32 = 5;
const TRANSIENT_COST: u32 = 10;
const CONFLICT_COST: u32 = 0;

/// The upper limit of the first pause after a lost race, and of the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// How long an operation without a deadline repeats after lost races.
const LOST_RACES_FOR: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// The deadline of the current request.
    static DEADLINE: Instant;
    /// The start of the first attempt of the current transaction.
    static TRANSACTION_BEGAN: Instant;
}

/// How often and after which backoff the SDK retries.
pub(super) fn retry_config() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(FIRST_BACKOFF)
        // Also limits explicit delays.
        .with_max_backoff(IN_PROGRESS_FOR)
}

/// A quota of retries for one client. By default, all clients of a process share one.
pub(super) fn retry_partition() -> RetryPartition {
    let quota = TokenBucket::builder()
        .capacity(QUOTA)
        .refill_rate(QUOTA_REFILL)
        .throttling_retry_cost(THROTTLING_COST)
        .timeout_retry_cost(TRANSIENT_COST)
        .retry_cost(CONFLICT_COST)
        .build();
    RetryPartition::custom("loyalty-codes").token_bucket(quota).build()
}

/// Runs `request` for at most `time_limit`. A transaction in progress is retried only if the retry
/// can end in time.
///
/// # Errors
/// [`Elapsed`] when the time is over.
pub async fn within<T>(time_limit: Duration, request: impl Future<Output = T>) -> Result<T, Elapsed> {
    DEADLINE.scope(Instant::now() + time_limit, timeout(time_limit, request)).await
}

/// The lost races of an operation that reads, decides, and writes on the condition that what it has
/// read is unchanged. In each round, one of the operations that compete succeeds.
pub(super) struct LostRaces {
    give_up_at: Instant,
    longest_pause: Duration,
}

impl LostRaces {
    /// An operation that begins now and has lost no race yet. It may be repeated until the deadline
    /// of the request.
    pub(super) fn new() -> Self {
        let deadline = DEADLINE.try_with(|deadline| *deadline).unwrap_or(Instant::now() + LOST_RACES_FOR);
        let give_up_at = deadline.checked_sub(TIME_FOR_AN_ATTEMPT).unwrap_or(deadline);
        Self { give_up_at, longest_pause: FIRST_PAUSE }
    }

    /// Waits before the next round, for a random time: competitors that were in step are not any
    /// more. Its limit doubles with each lost race.
    ///
    /// # Errors
    /// [`StoreError::contended`] with the text `what` when no time is left for another round.
    pub(super) async fn pause(&mut self, what: &'static str) -> Result<(), StoreError> {
        let pause = self.longest_pause.mul_f64(os_rng().random_range(0.0..1.0));
        self.longest_pause = LONGEST_PAUSE.min(self.longest_pause * 2);
        if Instant::now() + pause > self.give_up_at {
            return Err(StoreError::contended(what));
        }
        sleep(pause).await;
        Ok(())
    }
}

/// Sends a transaction and records the start of its first attempt for the classifier.
pub(super) async fn in_transaction<T>(send: impl Future<Output = T>) -> T {
    TRANSACTION_BEGAN.scope(Instant::now(), send).await
}

/// Classifies the responses that are specific to DynamoDB for the SDK's retry strategy.
#[derive(Debug)]
pub(super) struct Contention;

impl ClassifyRetry for Contention {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.output_or_error() {
            Some(Ok(output)) => output
                .downcast_ref::<BatchGetItemOutput>()
                .filter(|batch| is_partial(batch))
                .map_or(RetryAction::NoActionIndicated, |_| RetryAction::throttling_error()),
            Some(Err(error)) => {
                error.as_operation_error().map_or(RetryAction::NoActionIndicated, classify_error)
            }
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Contention"
    }

    /// Runs after all other classifiers, because the SDK classifies
    /// `TransactionInProgressException` as throttling.
    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

/// Whether DynamoDB left keys unprocessed, as it does when throughput is exceeded.
pub(super) fn is_partial(batch: &BatchGetItemOutput) -> bool {
    batch.unprocessed_keys.as_ref().is_some_and(|tables| !tables.is_empty())
}

fn classify_error(error: &Error) -> RetryAction {
    match error.downcast_ref::<TransactWriteItemsError>() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            match Cancellation::of(cancelled) {
                Cancellation::Conflict => RetryAction::client_error(),
                Cancellation::Throttled => RetryAction::throttling_error(),
                Cancellation::Conditions(_) | Cancellation::Other => RetryAction::NoActionIndicated,
            }
        }
        Some(TransactWriteItemsError::TransactionInProgressException(_)) => retry_in_progress(),
        _ if code(error) == Some("TransactionConflictException") => RetryAction::client_error(),
        _ => RetryAction::NoActionIndicated,
    }
}

/// One retry, more than five seconds after the first attempt, unless it was made already or the
/// deadline is too close.
fn retry_in_progress() -> RetryAction {
    let now = Instant::now();
    let again_at = TRANSACTION_BEGAN.try_with(|began| *began + IN_PROGRESS_FOR).unwrap_or(now);
    let deadline = DEADLINE.try_with(|deadline| *deadline).ok();
    if again_at <= now || deadline.is_some_and(|deadline| again_at + TIME_FOR_AN_ATTEMPT > deadline) {
        RetryAction::RetryForbidden
    } else {
        RetryAction::retryable_error_with_explicit_delay(ErrorKind::ClientError, again_at - now)
    }
}

/// The error code of a write operation's error.
pub(super) fn code(error: &Error) -> Option<&str> {
    fn code_of<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
        error: &Error,
    ) -> Option<&str> {
        error.downcast_ref::<E>().and_then(ProvideErrorMetadata::code)
    }
    code_of::<UpdateItemError>(error)
        .or_else(|| code_of::<PutItemError>(error))
        .or_else(|| code_of::<DeleteItemError>(error))
        .or_else(|| code_of::<TransactWriteItemsError>(error))
}

/// Why a transaction was cancelled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancellation {
    /// Conditions failed: those of the writes at these positions.
    Conditions(Vec<usize>),
    /// Another transaction or write is changing one of the items.
    Conflict,
    /// The throughput is exceeded.
    Throttled,
    /// Any other reason. A retry does not help.
    Other,
}

impl Cancellation {
    /// The reasons are in the order of the writes:
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
    pub(super) fn of(cancelled: &TransactionCanceledException) -> Self {
        let codes = reason_codes(cancelled);
        let conditions: Vec<usize> =
            (0..codes.len()).filter(|i| codes[*i] == "ConditionalCheckFailed").collect();
        if !conditions.is_empty() {
            return Self::Conditions(conditions);
        }
        let mut cancellation = Self::Other;
        for code in codes {
            match code {
                "TransactionConflict" if cancellation != Self::Throttled => cancellation = Self::Conflict,
                "None" | "TransactionConflict" => {}
                "ProvisionedThroughputExceeded" | "ThrottlingError" => cancellation = Self::Throttled,
                _ => return Self::Other,
            }
        }
        cancellation
    }
}

/// The code for each write of a transaction: `None` for a write that would have succeeded.
pub(super) fn reason_codes(cancelled: &TransactionCanceledException) -> Vec<&str> {
    cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None")).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{
        CancellationReason, KeysAndAttributes,
        error::{TransactionConflictException, TransactionInProgressException},
    };
    use aws_smithy_runtime_api::client::{
        interceptors::context::{Input, Output},
        orchestrator::OrchestratorError,
    };

    use super::*;

    fn cancelled(codes: &[&str]) -> TransactionCanceledException {
        let reasons = codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
        TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons)).build()
    }

    fn classify(result: Result<Output, Error>) -> RetryAction {
        let mut context = InterceptorContext::new(Input::doesnt_matter());
        context.set_output_or_error(result.map_err(OrchestratorError::operation));
        Contention.classify_retry(&context)
    }

    fn in_progress() -> RetryAction {
        let error = TransactionInProgressException::builder().build();
        let error = TransactWriteItemsError::TransactionInProgressException(error);
        classify(Err(Error::erase(error)))
    }

    #[test]
    fn the_gravest_reason_decides_the_kind_of_cancellation() {
        use Cancellation::{Conditions, Conflict, Other, Throttled};
        for (codes, expected) in [
            (&["None", "ConditionalCheckFailed"][..], Conditions(vec![1])),
            (&["ConditionalCheckFailed", "TransactionConflict"], Conditions(vec![0])),
            (&["TransactionConflict", "None"], Conflict),
            (&["TransactionConflict", "ThrottlingError"], Throttled),
            (&["ProvisionedThroughputExceeded", "TransactionConflict"], Throttled),
            (&["None", "ThrottlingError"], Throttled),
            (&["TransactionConflict", "ValidationError"], Other),
            (&["ItemCollectionSizeLimitExceeded"], Other),
            (&["TransactionConflict", "SomethingNew"], Other),
            (&["None"], Other),
            (&[], Other),
        ] {
            assert_eq!(Cancellation::of(&cancelled(codes)), expected, "{codes:?}");
        }
    }

    #[test]
    fn conflicts_and_throttling_are_retried_and_failed_conditions_are_not() {
        let transaction = |codes: &[&str]| {
            let error = TransactWriteItemsError::TransactionCanceledException(cancelled(codes));
            classify(Err(Error::erase(error)))
        };
        assert_eq!(transaction(&["TransactionConflict"]), RetryAction::client_error());
        assert_eq!(transaction(&["ThrottlingError"]), RetryAction::throttling_error());
        assert_eq!(transaction(&["ConditionalCheckFailed"]), RetryAction::NoActionIndicated);
        assert_eq!(transaction(&["ValidationError"]), RetryAction::NoActionIndicated);
        let conflict = TransactionConflictException::builder().meta(
            aws_sdk_dynamodb::error::ErrorMetadata::builder().code("TransactionConflictException").build(),
        );
        let update = UpdateItemError::TransactionConflictException(conflict.build());
        assert_eq!(classify(Err(Error::erase(update))), RetryAction::client_error());
    }

    #[test]
    fn a_partially_processed_batch_is_retried() {
        let keys = KeysAndAttributes::builder().set_keys(Some(Vec::new())).build().unwrap();
        let whole = BatchGetItemOutput::builder().set_unprocessed_keys(Some([].into())).build();
        let part = BatchGetItemOutput::builder().unprocessed_keys("table", keys).build();
        assert_eq!(classify(Ok(Output::erase(whole))), RetryAction::NoActionIndicated);
        assert_eq!(classify(Ok(Output::erase(part))), RetryAction::throttling_error());
    }

    #[tokio::test]
    async fn a_transaction_in_progress_is_tried_once_more_after_five_seconds_if_time_allows() {
        let began = |ago| Instant::now().checked_sub(Duration::from_millis(ago)).unwrap();
        let delay = |action| match action {
            RetryAction::RetryIndicated(reason) => Some(reason.to_string()),
            _ => None,
        };
        let time_left = |limit| within(Duration::from_secs(limit), async { in_progress() });
        let after_a_lost_attempt = TRANSACTION_BEGAN.scope(began(2_000), time_left(4)).await.unwrap();
        assert!(delay(after_a_lost_attempt).unwrap().starts_with("client error error after 3.0"));
        let no_deadline = TRANSACTION_BEGAN.scope(began(2_000), async { in_progress() }).await;
        assert!(delay(no_deadline).is_some());
        let time_is_short = TRANSACTION_BEGAN.scope(began(2_000), time_left(3)).await.unwrap();
        assert_eq!(time_is_short, RetryAction::RetryForbidden);
        let again = TRANSACTION_BEGAN.scope(began(5_200), time_left(60)).await.unwrap();
        assert_eq!(again, RetryAction::RetryForbidden);
    }

    #[tokio::test]
    async fn lost_races_are_repeated_until_there_is_no_time_for_another_round() {
        let lose = async {
            let mut lost_races = LostRaces::new();
            let mut rounds = 0;
            loop {
                rounds += 1;
                if let Err(error) = lost_races.pause("it keeps changing").await {
                    return (rounds, error);
                }
            }
        };
        let (rounds, error) = within(TIME_FOR_AN_ATTEMPT + Duration::from_millis(300), lose).await.unwrap();
        assert!(rounds >= 5, "pauses of at most 10, 20, 40 and 80 ms fit in: {rounds}");
        assert!(error.is_contended() && error.is_unavailable());
    }
}
