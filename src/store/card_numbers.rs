//! Counters: the sequence of an org's card numbers, and that of its user ids.
//!
//! A number must be unique, but gaps are allowed. So a number is always allocated in the same way,
//! with or without an `Idempotency-Key`: by an `ADD` on the condition that the counter belongs to
//! the plan and that the range has room. The counter is part of no request's transaction, because
//! that would lock the hottest item of an org. Its item never grows. A lost response, a crash, or a
//! lost race with the same key skips a number.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::SdkError,
    operation::update_item::{UpdateItemError, UpdateItemOutput, builders::UpdateItemFluentBuilder},
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::{
    Attributes, Item, Store, StoreError,
    error::unmet_condition,
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
/// The format of the counter's plan; see [`NumberingPlan::format`].
pub(super) const FORMAT: &str = "shape";

/// How many changes of the plan one allocation tolerates.
pub(super) const MAX_PLAN_CHANGES: usize = 8;
pub(super) const PLAN_KEPT_CHANGING: &str = "the numbering plan kept changing";

/// An allocated value of an org's sequence. It is never allocated again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SequenceValue(pub u64);

/// The result of an allocation from a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocation {
    /// The first of the allocated values; the others follow it.
    Taken(SequenceValue),
    /// The range has no room for that many values.
    Exhausted,
    /// The counter belongs to another plan.
    PlanChanged,
}

/// An allocated card number.
#[derive(Debug, Clone, PartialEq)]
pub struct CardNumber {
    pub number: String,
    /// The percentage of the range that is used, this number included: 0 to 100.
    pub percent_used: f64,
}

/// Why no card number was allocated.
#[derive(Debug, thiserror::Error)]
pub enum NumberingError {
    #[error(transparent)]
    NotNumbered(#[from] NotNumbered),
    /// Every number of the plan is allocated.
    #[error("all numbers of the plan have been given")]
    Exhausted,
    /// The counter has another plan than the org's item, because an item was edited.
    #[error("the card number counter has another plan than the org; apply the org's file again")]
    PlanMismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Allocates the next card number of an org for a customer of `account`. A retry after a lost
    /// response may skip a number; no number is allocated twice.
    ///
    /// `org` may be outdated. If its numbering plan is, the org is read again and passed to
    /// `on_refresh`.
    ///
    /// # Errors
    /// [`NumberingError`] when the org gives no number, or DynamoDB fails.
    pub async fn next_card_number(
        &self,
        org: &Arc<Org>,
        account: &Account,
        on_refresh: &(dyn Fn(&Arc<Org>) + Sync),
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
            org = Arc::new(self.with_changed_plan(&org).await?);
            on_refresh(&org);
        }
        Err(StoreError::gave_up(PLAN_KEPT_CHANGING).into())
    }

    /// Reads again an org whose plan the counter does not have.
    pub(super) async fn with_changed_plan(&self, org: &Org) -> Result<Org, NumberingError> {
        let fresh = self.org(org.id()).await?;
        let fresh = fresh.ok_or_else(|| StoreError::corrupt("the org does not exist any more"))?;
        if fresh.numbering_plan() == org.numbering_plan() {
            return Err(NumberingError::PlanMismatch);
        }
        Ok(fresh)
    }

    /// Drops the blocks of card numbers of every org for which `keep` returns `false`.
    pub fn retain_blocks(&self, keep: impl Fn(OrgId) -> bool) {
        self.blocks.retain(keep);
    }

    /// Allocates the next value of an org's sequence, from a block if the org uses blocks.
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

    /// Allocates the next `count` values of an org's sequence for a process. More than one are
    /// allocated only if the range has room for many blocks of that size.
    async fn allocate(&self, org: OrgId, plan: &NumberingPlan, count: u64) -> Result<Allocation, StoreError> {
        match plan.last_start(count) {
            Some(last) => allocation(self.counter_update(org, plan, count, last).send().await, plan, count),
            None => Ok(Allocation::Exhausted),
        }
    }

    /// The write that allocates the next `count` values if the first of them is at most `last`.
    pub(super) fn counter_update(
        &self,
        org: OrgId,
        plan: &NumberingPlan,
        count: u64,
        last: u64,
    ) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::card_number_counter(org).attributes()))
            .update_expression("ADD #next :count")
            .condition_expression("#format = :format AND #next <= :last")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_names("#format", FORMAT)
            .expression_attribute_values(":count", n(count))
            .expression_attribute_values(":format", s(plan.format()))
            .expression_attribute_values(":last", n(last))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// Allocates the next user id of an org.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn next_user_id(&self, org: OrgId) -> Result<UserId, StoreError> {
        self.take_user_ids(org, 1).await
    }

    /// Allocates the next `count` user ids of an org, and returns the first of them.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn take_user_ids(&self, org: OrgId, count: u64) -> Result<UserId, StoreError> {
        let updated = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::user_id_counter(org).attributes()))
            .update_expression("ADD #next :count")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_values(":count", n(count))
            .return_values(ReturnValue::UpdatedNew)
            .send()
            .await
            .map_err(StoreError::from_sdk)?;
        first_allocated(updated.attributes, count).map(|SequenceValue(value)| UserId(value))
    }
}

/// The result of [`Store::counter_update`].
pub(super) fn allocation(
    sent: Result<UpdateItemOutput, SdkError<UpdateItemError, HttpResponse>>,
    plan: &NumberingPlan,
    count: u64,
) -> Result<Allocation, StoreError> {
    let error = match sent {
        Ok(output) => return first_allocated(output.attributes, count).map(Allocation::Taken),
        Err(error) => error,
    };
    let Some(failure) = unmet_condition(&error) else {
        return Err(StoreError::from_sdk(error));
    };
    let counter_format = failure.item().and_then(|counter| Item(counter).s(FORMAT).ok());
    let current = counter_format.is_some_and(|counter_format| counter_format == plan.format());
    Ok(if current { Allocation::Exhausted } else { Allocation::PlanChanged })
}

/// The counter's value before `count` values were allocated, which is the first of them.
fn first_allocated(updated: Option<Attributes>, count: u64) -> Result<SequenceValue, StoreError> {
    let attributes = updated.unwrap_or_default();
    let next: u64 = Item(&attributes).n(NEXT)?;
    let first = next.checked_sub(count).ok_or_else(|| StoreError::corrupt("a counter is below zero"))?;
    Ok(SequenceValue(first))
}
