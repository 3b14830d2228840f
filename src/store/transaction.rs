//! `TransactWriteItems`, with its ways of not happening told apart.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::transact_write_items::TransactWriteItemsError,
    types::{Put, TransactWriteItem, builders::PutBuilder},
};
use rand::RngExt;

use super::{Store, error::StoreError, item::NewItem, keys};
use crate::secret::os_rng;

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was written.
    Done,
    /// Nothing was written, because conditions failed: those of the writes at these positions.
    Refused(Vec<usize>),
}

/// A conflict lasts as long as the other transaction; this many in a row take about two seconds.
pub(super) const ATTEMPTS: u32 = 16;
const MAX_BACKOFF: Duration = Duration::from_millis(250);

impl Store {
    /// Writes all of `writes` or nothing. Conflicts with other transactions are tried again, with jitter;
    /// the SDK adds a client token, so that its own retry of a lost answer writes nothing twice. Where the engine is part of
    /// the process, no answer is lost, and `tokens` leaves it out.
    pub(super) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<Outcome, StoreError> {
        for attempt in 0..ATTEMPTS {
            backoff(attempt).await;
            let sent =
                self.client.transact_write_items().set_transact_items(Some(writes.clone())).send().await;
            match sent {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) => match cancellation(&error) {
                    Some(Cancellation::Conditions(positions)) => {
                        return Ok(Outcome::Refused(positions));
                    }
                    Some(Cancellation::Conflict) => {}
                    Some(Cancellation::Throttled) => return Err(StoreError::throttled(error)),
                    None => return Err(StoreError::from_sdk(error)),
                },
            }
        }
        Err(StoreError::gave_up("transactions kept conflicting"))
    }
}

impl Store {
    /// The write that puts `item` where nothing is yet.
    pub(super) fn put_new(&self, item: NewItem) -> Result<TransactWriteItem, StoreError> {
        self.put_if(item, |put| {
            put.condition_expression("attribute_not_exists(#pk)").expression_attribute_names("#pk", keys::PK)
        })
    }

    /// The write that puts `item` on the condition that is added to it.
    pub(super) fn put_if(
        &self,
        item: NewItem,
        condition: impl FnOnce(PutBuilder) -> PutBuilder,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(&self.table).set_item(Some(item.into_attributes()));
        let put = condition(put).build().map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// Waits before an attempt: not at all before the first, then longer each time, with jitter.
pub(super) async fn backoff(attempt: u32) {
    if attempt > 0 {
        let most = MAX_BACKOFF.min(Duration::from_millis(4 << attempt.min(16)));
        tokio::time::sleep(os_rng().random_range(Duration::ZERO..=most)).await;
    }
}

enum Cancellation {
    Conditions(Vec<usize>),
    Conflict,
    Throttled,
}

/// Why a transaction was cancelled, if that is what happened. The reasons stand in the order of the
/// writes: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn cancellation<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Cancellation> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error.as_service_error()? else {
        return None;
    };
    let codes: Vec<&str> =
        cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None")).collect();
    let at = |code: &str| -> Vec<usize> {
        codes.iter().enumerate().filter(|(_, found)| **found == code).map(|(i, _)| i).collect()
    };
    let conditions = at("ConditionalCheckFailed");
    if !conditions.is_empty() {
        return Some(Cancellation::Conditions(conditions));
    }
    if !at("TransactionConflict").is_empty() {
        return Some(Cancellation::Conflict);
    }
    let throttled = ["ThrottlingError", "ProvisionedThroughputExceeded"];
    throttled.iter().any(|code| !at(code).is_empty()).then_some(Cancellation::Throttled)
}
