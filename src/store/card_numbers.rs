//! Counters: the sequence of an org's card numbers, and that of its user ids.
//!
//! A number must be unique; it need not be without gaps. So there is one way to take one, with an `Idempotency-Key` or
//! without: an `ADD` on the condition that the counter still counts for the plan and that the range has room. The
//! counter is part of no request's transaction, which would lock the hottest item of an org, and it never grows.
//! A lost answer, a crash, or a faster request with the same key skips a number.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::{
    Attributes, Item, Store, StoreError,
    item::{n, s},
    keys,
};
use crate::model::{
    card_number::NumberingPlan,
    customer::{Account, UserId},
    org::{NotNumbered, Org, OrgId},
};

/// The next value of the sequence.
pub(super) const NEXT: &str = "next";
/// The format of the plan that the counter counts for; see [`NumberingPlan::format`].
pub(super) const SHAPE: &str = "shape";

/// So many blocks must have room in a range for one to be taken. Near its end, numbers are taken one by one, so that few
/// are skipped.
const MIN_BLOCKS_LEFT: u64 = 1000;

/// How often a plan may change while one number is being taken.
const MAX_PLAN_CHANGES: usize = 8;

/// A value of an org's sequence that was taken: nobody else gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SequenceValue(pub u64);

/// What a counter had to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocation {
    /// This value, and those that follow it if several were asked for.
    Taken(SequenceValue),
    /// The range has no room for as many.
    Exhausted,
    /// The counter counts for another plan than the one asked for.
    PlanChanged,
}

/// A card number that nobody else gets.
#[derive(Debug, Clone, PartialEq)]
pub struct CardNumber {
    pub number: String,
    /// How much of the range is used up with it: 0 to 100.
    pub percent_used: f64,
}

/// Why there is no card number.
#[derive(Debug, thiserror::Error)]
pub enum NumberingError {
    #[error(transparent)]
    NotNumbered(#[from] NotNumbered),
    /// All numbers of the plan have been given.
    #[error("all numbers of the plan have been given")]
    Exhausted,
    /// The counter never got the plan that the org's item holds: somebody edited the item.
    #[error("the card number counter has another plan than the org; apply the org's file again")]
    CounterDiffers,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Takes the next card number of an org for a customer of `account`. A retry after a lost answer may skip a
    /// number; none is ever given twice.
    ///
    /// `org` may be outdated. Where its numbering plan is, the org is read again, and `learn` is told of it.
    ///
    /// # Errors
    /// [`NumberingError`] when the org gives no number, or DynamoDB fails.
    pub async fn next_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        learn: &(dyn Fn(&Arc<Org>) + Sync),
    ) -> Result<CardNumber, NumberingError> {
        let mut org = Arc::clone(org);
        for _ in 0..MAX_PLAN_CHANGES {
            let plan = org.numbering_plan_for(account)?;
            match self.next_value(org.id(), plan, org.card_number_block_size()).await? {
                Allocation::Taken(SequenceValue(value)) => {
                    return Ok(CardNumber {
                        number: plan.number(value, &org.permutation_key),
                        percent_used: plan.percent_used(value),
                    });
                }
                Allocation::Exhausted => return Err(NumberingError::Exhausted),
                Allocation::PlanChanged => {}
            }
            let fresh = self.org(org.id()).await?;
            let fresh = Arc::new(fresh.ok_or_else(|| StoreError::corrupt("an org is gone"))?);
            learn(&fresh);
            if fresh.numbering_plan() == org.numbering_plan() {
                return Err(NumberingError::CounterDiffers);
            }
            org = fresh;
        }
        Err(StoreError::gave_up("the numbering plan kept changing").into())
    }

    /// Drops the blocks of card numbers that are left of all orgs but those that `keep` names.
    pub fn retain_blocks(&self, keep: impl Fn(OrgId) -> bool) {
        self.blocks.retain(keep);
    }

    /// Takes the next value of an org's sequence, from a block where the org has any.
    async fn next_value(
        &self,
        org: OrgId,
        plan: &NumberingPlan,
        block_size: u64,
    ) -> Result<Allocation, StoreError> {
        if block_size > 1 {
            let allocate = |size| self.allocate(org, plan, size);
            let allocation = self.blocks.next(org, plan, block_size, allocate).await?;
            if allocation != Allocation::Exhausted {
                return Ok(allocation);
            }
        }
        self.allocate(org, plan, 1).await
    }

    /// Takes the next `count` values of an org's sequence from the counter.
    async fn allocate(&self, org: OrgId, plan: &NumberingPlan, count: u64) -> Result<Allocation, StoreError> {
        let room = if count > 1 { count.saturating_mul(MIN_BLOCKS_LEFT) } else { 1 };
        let Some(last) = plan.end().checked_sub(room) else {
            return Ok(Allocation::Exhausted);
        };
        let shape = plan.format();
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::card_number_counter(org).attributes()))
            .update_expression("ADD #next :count")
            .condition_expression("#shape = :shape AND #next <= :last")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_names("#shape", SHAPE)
            .expression_attribute_values(":count", n(count))
            .expression_attribute_values(":shape", s(shape.as_str()))
            .expression_attribute_values(":last", n(last))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match update.send().await {
            Ok(output) => return first_taken(output.attributes, count).map(Allocation::Taken),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failure)) => {
                let counts_for = failure.item().and_then(|counter| Item(counter).s(SHAPE).ok());
                let current = counts_for.is_some_and(|counts_for| counts_for == shape);
                Ok(if current { Allocation::Exhausted } else { Allocation::PlanChanged })
            }
            _ => Err(StoreError::from_sdk(error)),
        }
    }

    /// Takes the next user id of an org.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn next_user_id(&self, org: OrgId) -> Result<UserId, StoreError> {
        let updated = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::user_id_counter(org).attributes()))
            .update_expression("ADD #next :one")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_values(":one", n(1))
            .return_values(ReturnValue::UpdatedNew)
            .send()
            .await
            .map_err(StoreError::from_sdk)?;
        first_taken(updated.attributes, 1).map(|SequenceValue(value)| UserId(value))
    }
}

/// The value that a counter stood at before `count` were taken.
fn first_taken(updated: Option<Attributes>, count: u64) -> Result<SequenceValue, StoreError> {
    let attributes = updated.unwrap_or_default();
    let next: u64 = Item(&attributes).n(NEXT)?;
    let first = next.checked_sub(count).ok_or_else(|| StoreError::corrupt("a counter is below zero"))?;
    Ok(SequenceValue(first))
}
