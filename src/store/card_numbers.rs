//! Counters: the sequence of an org's card numbers, and that of its user ids.
//!
//! A request without `Idempotency-Key` takes its number in one write. One with a key must take the number in the transaction
//! that keeps the answer, and a transaction tells nothing of what it wrote. So it looks whose turn it is, and takes that, on
//! the condition that nobody else did. If somebody did, it lets the counter hold a value back for it, which no other
//! request can take. What nobody came back for within a day is swept away by the next reservation.

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{
        ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update, builders::UpdateBuilder,
    },
};

use super::{
    Attributes, IdempotentRequest, Item, ResponseToStore, Store, StoreError,
    idempotency::LIFETIME,
    item::{n, s},
    keys::{self, Reservation},
    transaction::Outcome,
};
use crate::model::{card_number::NumberingPlan, customer::UserId, org::OrgId};

/// The next value of the sequence.
pub(super) const NEXT: &str = "next";
/// The shape of the plan that the counter counts for; see [`NumberingPlan::shape`].
pub(super) const SHAPE: &str = "shape";

/// A place in an org's sequence: the value, and the shape of the plan that it counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub value: u64,
    shape: String,
    /// The first value that the plan does not have.
    end: u64,
    /// What holds the value back, if it is reserved.
    reservation: Option<Reservation>,
    /// Reservations that nobody will come back for.
    stale: Vec<Reservation>,
}

impl Turn {
    /// The next place, reserved for nobody.
    const fn next(value: u64, shape: String, end: u64) -> Self {
        Self { value, shape, end, reservation: None, stale: Vec::new() }
    }
}

/// So many are swept at once: more would make a long expression, and there are hardly ever any.
const MAX_SWEPT: usize = 10;

/// What the counter had to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextTurn {
    /// The next place.
    Turn(Turn),
    /// All values of the plan have been given.
    Exhausted,
    /// The org counts by another plan by now; the one asked for is outdated.
    PlanChanged,
}

/// How taking a turn ended. Unless it is `Taken`, nothing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    Taken,
    /// Somebody else took it, or the plan changed. A request with a key has another one reserved now, if there is one.
    Outrun,
    /// The same request was answered before.
    AnsweredBefore,
}

impl Store {
    /// Takes the next value of an org's sequence. A retry after a lost answer may skip a value; no value
    /// is ever given twice.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn next_card_number(&self, org: OrgId, plan: &NumberingPlan) -> Result<NextTurn, StoreError> {
        let (shape, end) = (plan.format(), plan.end());
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
            .expression_attribute_values(":shape", s(shape.as_str()))
            .expression_attribute_values(":end", n(end))
            .return_values(ReturnValue::UpdatedNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let error = match updated {
            Ok(output) => {
                let value = previous_value(output.attributes)?;
                return Ok(NextTurn::Turn(Turn::next(value, shape, end)));
            }
            Err(error) => error,
        };
        if let Some(UpdateItemError::ConditionalCheckFailedException(failure)) = error.as_service_error() {
            let counts_for = failure.item().and_then(|counter| Item(counter).s(SHAPE).ok());
            let current = counts_for.is_some_and(|counts_for| counts_for == shape);
            return Ok(if current { NextTurn::Exhausted } else { NextTurn::PlanChanged });
        }
        Err(StoreError::from_sdk(error))
    }

    /// The value that is reserved for a request, or else the one whose turn it is; nobody has it yet. It must be
    /// [taken](Self::take_card_number).
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the counter is corrupt.
    pub async fn coming_card_number(
        &self,
        org: OrgId,
        plan: &NumberingPlan,
        once: &IdempotentRequest,
    ) -> Result<NextTurn, StoreError> {
        let counter = self.get(&keys::card_number_counter(org)).await?;
        let (shape, end) = (plan.format(), plan.end());
        let counter = counter.unwrap_or_default();
        let counter = Item(&counter);
        if !counter.has(SHAPE) || counter.s(SHAPE)? != shape {
            return Ok(NextTurn::PlanChanged);
        }
        let own = Reservation::new(&once.till, &once.key);
        if counter.has(&own.value) {
            let value = counter.n(&own.value)?;
            return Ok(NextTurn::Turn(Turn { reservation: Some(own), ..Turn::next(value, shape, end) }));
        }
        let value = counter.n(NEXT)?;
        if value >= end {
            return Ok(NextTurn::Exhausted);
        }
        let too_old = (once.now - LIFETIME).timestamp();
        let mut stale: Vec<_> = counter.0.keys().filter_map(|name| Reservation::with_since(name)).collect();
        stale.retain(|reservation| counter.n::<i64>(&reservation.since).is_ok_and(|since| since < too_old));
        stale.truncate(MAX_SWEPT);
        Ok(NextTurn::Turn(Turn { stale, ..Turn::next(value, shape, end) }))
    }

    /// Takes a turn and keeps the answer that tells of it. Where somebody else was faster, another is reserved for the
    /// request of the answer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn take_card_number(
        &self,
        org: OrgId,
        turn: &Turn,
        record: Option<ResponseToStore<'_>>,
    ) -> Result<Taking, StoreError> {
        let mut writes = vec![self.take(org, turn)?];
        if let Some(record) = &record {
            writes.push(self.put_answer(record)?);
        }
        Ok(match self.transact(writes).await? {
            Outcome::Done => Taking::Taken,
            Outcome::Refused(at) if at.contains(&1) => Taking::AnsweredBefore,
            Outcome::Refused(_) => match record {
                Some(record) => self.reserve(org, turn, record.request).await?,
                None => Taking::Outrun,
            },
        })
    }

    /// The write that takes a turn.
    pub(super) fn take(&self, org: OrgId, turn: &Turn) -> Result<TransactWriteItem, StoreError> {
        let update = self.update_counter(org, turn).expression_attribute_values(":value", n(turn.value));
        write(match &turn.reservation {
            None => update
                .update_expression("ADD #next :one")
                .condition_expression("#shape = :shape AND #next = :value")
                .expression_attribute_names("#next", NEXT)
                .expression_attribute_values(":one", n(1)),
            Some(reservation) => update
                .update_expression("REMOVE #reserved, #since")
                .condition_expression("#shape = :shape AND #reserved = :value")
                .expression_attribute_names("#reserved", &reservation.value)
                .expression_attribute_names("#since", &reservation.since),
        })
    }

    /// Reserves a value for a request that was outrun to `turn`, unless it has one or was answered by now.
    pub(super) async fn reserve(
        &self,
        org: OrgId,
        turn: &Turn,
        once: &IdempotentRequest,
    ) -> Result<Taking, StoreError> {
        let own = Reservation::new(&once.till, &once.key);
        // What is set is calculated from the item as it was before.
        // https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/example_dynamodb_Scenario_UpdateExpressionOrder_section.html
        let mut reserve = self
            .update_counter(org, turn)
            .condition_expression("#shape = :shape AND #next < :end AND attribute_not_exists(#reserved)")
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_names("#reserved", own.value)
            .expression_attribute_names("#since", own.since)
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":now", n(once.now.timestamp()))
            .expression_attribute_values(":end", n(turn.end));
        let mut swept = Vec::new();
        for (i, name) in turn.stale.iter().flat_map(|stale| [&stale.value, &stale.since]).enumerate() {
            let stale = format!("#stale{i}");
            reserve = reserve.expression_attribute_names(stale.as_str(), name);
            swept.push(stale);
        }
        let sweep = if swept.is_empty() { String::new() } else { format!(" REMOVE {}", swept.join(", ")) };
        let reserve = write(reserve.update_expression(format!(
            "SET #reserved = #next, #since = :now, #next = #next + :one{sweep}"
        )))?;
        Ok(match self.transact(vec![reserve, self.unanswered(once)?]).await? {
            Outcome::Refused(at) if at.contains(&1) => Taking::AnsweredBefore,
            // Why the counter refused is seen by who looks at it next.
            Outcome::Done | Outcome::Refused(_) => Taking::Outrun,
        })
    }

    /// The beginning of a write to the counter that a turn belongs to.
    fn update_counter(&self, org: OrgId, turn: &Turn) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::card_number_counter(org).attributes()))
            .expression_attribute_names("#shape", SHAPE)
            .expression_attribute_values(":shape", s(turn.shape.as_str()))
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
        previous_value(updated.attributes).map(UserId)
    }
}

fn write(update: UpdateBuilder) -> Result<TransactWriteItem, StoreError> {
    let update = update.build().map_err(StoreError::from_build)?;
    Ok(TransactWriteItem::builder().update(update).build())
}

/// The value that the counter stood at before it was raised.
fn previous_value(updated: Option<Attributes>) -> Result<u64, StoreError> {
    let attributes = updated.unwrap_or_default();
    let next: u64 = Item(&attributes).n(NEXT)?;
    next.checked_sub(1).ok_or_else(|| StoreError::corrupt("a counter is below zero"))
}
