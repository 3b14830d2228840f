//! `TransactWriteItems`, and the reasons for which a transaction writes nothing.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        ConditionCheck, Put, TransactWriteItem, Update,
        builders::{ConditionCheckBuilder, PutBuilder, UpdateBuilder},
    },
};

use super::{
    Store,
    error::{Kind, StoreError},
    item::{Attributes, NewItem},
    keys::{Key, PK},
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
        let kind = match Cancellation::of(cancelled) {
            Cancellation::Conditions(positions) => {
                let existing_item = |at: usize| cancelled.cancellation_reasons().get(at)?.item.clone();
                let refused = positions.into_iter().map(|at| (at, existing_item(at))).collect();
                return Ok(Outcome::Refused(refused));
            }
            Cancellation::Conflict => Kind::Contended,
            Cancellation::Throttled => Kind::Unavailable,
            Cancellation::Other => Kind::Failed,
        };
        Err(StoreError::cancelled(kind, &reason_codes(cancelled)))
    }
}

impl Store {
    /// The write that puts `item`, on the condition that no item has its key.
    pub(super) fn put_new(&self, item: NewItem) -> Result<TransactWriteItem, StoreError> {
        self.put_if(item, |put| put.condition_expression(format!("attribute_not_exists({PK})")))
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

    /// The write that changes the item with that key, with the expressions that `expressions` adds.
    pub(super) fn update(
        &self,
        key: &Key,
        expressions: impl FnOnce(UpdateBuilder) -> UpdateBuilder,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder().table_name(&self.table).set_key(Some(key.attributes()));
        let update = expressions(update).build().map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// The check of the condition that `condition` adds, on the item with that key.
    pub(super) fn condition_check(
        &self,
        key: &Key,
        condition: impl FnOnce(ConditionCheckBuilder) -> ConditionCheckBuilder,
    ) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder().table_name(&self.table).set_key(Some(key.attributes()));
        let check = condition(check).build().map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }
}
