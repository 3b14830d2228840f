//! Counters: the sequence of an org's card numbers, and that of its user ids.

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::{
    Attributes, Item, Store, StoreError,
    item::{n, s},
    keys,
};
use crate::{card_number::NumberingPlan, customer::UserId, org::OrgId};

/// The next value of the sequence.
pub(super) const NEXT: &str = "next";
/// The shape of the plan that the counter counts for; see [`NumberingPlan::shape`].
pub(super) const SHAPE: &str = "shape";

/// What the counter had to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextValue {
    /// A value that nobody else gets.
    Value(u64),
    /// All values of the plan have been given.
    Exhausted,
    /// The org counts by another plan by now; the one asked for is outdated.
    PlanChanged,
}

impl Store {
    /// Takes the next value of an org's sequence. A retry after a lost answer may skip a value; no value
    /// is ever given twice.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn next_card_number(&self, org: OrgId, plan: &NumberingPlan) -> Result<NextValue, StoreError> {
        let updated = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::card_number_counter(org).attributes()))
            .update_expression("ADD #next :one")
            .condition_expression("#shape = :shape AND #next < :end")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_names("#shape", SHAPE)
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":shape", s(plan.shape()))
            .expression_attribute_values(":end", n(plan.end()))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match updated {
            Ok(output) => taken(output.attributes).map(NextValue::Value),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failure)) => {
                    let shape = failure.item().and_then(|counter| Item(counter).s(SHAPE).ok());
                    let current = shape.is_some_and(|shape| shape == plan.shape());
                    Ok(if current { NextValue::Exhausted } else { NextValue::PlanChanged })
                }
                _ => Err(StoreError::from_sdk(error)),
            },
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
        taken(updated.attributes).map(UserId)
    }
}

/// The value that the counter stood at before it was raised.
fn taken(updated: Option<Attributes>) -> Result<u64, StoreError> {
    let attributes = updated.unwrap_or_default();
    let next: u64 = Item(&attributes).n(NEXT)?;
    next.checked_sub(1).ok_or_else(|| StoreError::corrupt("a counter is below zero"))
}
