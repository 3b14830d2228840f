//! `TransactWriteItems`, and the reasons for which a transaction writes nothing.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{Put, TransactWriteItem, builders::PutBuilder},
};

use super::{
    Store,
    error::StoreError,
    item::{Attributes, NewItem},
    keys,
    retries::{Cancellation, in_transaction, reason_codes},
};

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Everything was written.
    Done,
    /// Nothing was written, because the conditions of the writes at these positions failed. Each
    /// position comes with the existing item, if the write asked for it.
    Refused(BTreeMap<usize, Option<Attributes>>),
}

impl Store {
    /// Writes all of `writes` or nothing. The SDK adds a client token, so that a retry after a lost
    /// response writes nothing twice. `tokens` removes the token for the embedded engine, where no
    /// response is lost.
    pub(super) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<Outcome, StoreError> {
        let transaction = self.client.transact_write_items().set_transact_items(Some(writes));
        let Err(error) = in_transaction(transaction.send()).await else {
            return Ok(Outcome::Done);
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
        else {
            return Err(StoreError::from_sdk(error));
        };
        match Cancellation::of(cancelled) {
            Cancellation::Conditions(positions) => {
                let existing_item = |at: usize| cancelled.cancellation_reasons().get(at)?.item.clone();
                Ok(Outcome::Refused(positions.into_iter().map(|at| (at, existing_item(at))).collect()))
            }
            Cancellation::Conflict => Err(StoreError::cancelled_by_conflicts(&reason_codes(cancelled))),
            Cancellation::Throttled => Err(StoreError::throttled(&reason_codes(cancelled))),
            Cancellation::Other => Err(StoreError::cancelled(&reason_codes(cancelled))),
        }
    }
}

impl Store {
    /// The write that puts `item`, on the condition that no item has its key.
    pub(super) fn put_new(&self, item: NewItem) -> Result<TransactWriteItem, StoreError> {
        self.put_if(item, |put| {
            put.condition_expression("attribute_not_exists(#pk)").expression_attribute_names("#pk", keys::PK)
        })
    }

    /// The write that puts `item` with the condition that `condition` adds.
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
