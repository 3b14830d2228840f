//! Numbers that customers have already, such as those of cards from before, and that a numbering
//! plan would give again.

use super::{Item, Store, StoreError, item::s, keys};
use crate::model::{card_number::NumberingPlan, org::Org};

/// Numbers of customers that a plan would give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldNumbers {
    pub count: u64,
    /// The highest value of the plan's sequence that gives one of them.
    pub highest: u64,
}

impl HeldNumbers {
    pub fn add(&mut self, value: u64) {
        self.count += 1;
        self.highest = self.highest.max(value);
    }

    /// What to change in the org's file so that `plan` gives none of them.
    pub fn remedy(&self, plan: &NumberingPlan) -> String {
        let offset = self.highest + 1;
        if plan.is_random() || offset >= plan.end() {
            return "change CONF_CARD_NUMBER_PREFIX or CONF_CARD_NUMBER_LENGTH in the org's file".to_owned();
        }
        format!("set CONF_CARD_NUMBER_OFFSET in the org's file to {offset} or higher")
    }
}

impl Store {
    /// The external IDs and card numbers of the org's customers that `plan` gives for the values of
    /// its sequence from `from` on. Reads the whole table.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn held_numbers(
        &self,
        org: &Org,
        plan: &NumberingPlan,
        from: u64,
    ) -> Result<HeldNumbers, StoreError> {
        let prefix = keys::numbers(org.id());
        let mut held = HeldNumbers::default();
        let scan = self
            .client
            .scan()
            .table_name(&self.table)
            .filter_expression("begins_with(#pk, :prefix)")
            .projection_expression("#pk")
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_values(":prefix", s(&prefix))
            .consistent_read(true);
        let mut items = scan.into_paginator().items().send();
        while let Some(attributes) = items.try_next().await.map_err(StoreError::from_sdk)? {
            let number = Item(&attributes).s(keys::PK)?.strip_prefix(&prefix).unwrap_or_default();
            let value = plan.value_of(number, &org.permutation_key);
            value.filter(|value| *value >= from).into_iter().for_each(|value| held.add(value));
        }
        Ok(held)
    }
}
