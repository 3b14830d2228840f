//! `TransactWriteItems`, with its ways of not happening told apart.

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
    /// Nothing was written, because conditions failed: those of the writes at these positions, each with the item
    /// that was in its way, if the write asked for that.
    Refused(BTreeMap<usize, Option<Attributes>>),
}

impl Store {
    /// Writes all of `writes` or nothing. The SDK adds a client token, so that a retry after a lost
    /// answer writes nothing twice. Where the engine is part of the process, no answer is lost, and
    /// `tokens` leaves it out.
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
                let in_the_way = |at: usize| cancelled.cancellation_reasons().get(at)?.item.clone();
                Ok(Outcome::Refused(positions.into_iter().map(|at| (at, in_the_way(at))).collect()))
            }
            Cancellation::Conflict | Cancellation::Throttled => {
                Err(StoreError::cancelled_for_now(&reason_codes(cancelled)))
            }
            Cancellation::Other => Err(StoreError::cancelled(&reason_codes(cancelled))),
        }
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
