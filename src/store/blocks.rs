//! Blocks of card numbers: values of a sequence that a process takes in one write and gives out from memory, where an
//! org asks for it (`CONF_CARD_NUMBER_BLOCK_SIZE`). Numbers are then in order within a process only, and what is left
//! of a block when its process ends is skipped.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::{
    StoreError,
    card_numbers::{Allocation, SequenceValue},
};
use crate::model::{card_number::NumberingPlan, org::OrgId};

/// The last block of each org. Only its values can be left: a further block is begun when all of them are claimed.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<HashMap<OrgId, Block>>);

/// Values of a sequence, one after another. Callers claim their places in it before it is known which value it begins
/// with: one of them asks the counter, and the others wait for the same answer. So a process that many call at once
/// leaves fewer values over than one block has, and waits for no more writes than it needs.
#[derive(Debug)]
struct Block {
    plan: NumberingPlan,
    size: u64,
    claimed: u64,
    allocation: Arc<OnceCell<Allocation>>,
}

/// A caller's place in a block.
struct Place {
    index: u64,
    block_size: u64,
    allocation: Arc<OnceCell<Allocation>>,
}

impl Blocks {
    /// The next value of the org's block. Where there is none left, or none of that plan, `allocate` takes the next
    /// `size` values from the counter. [`Allocation::Exhausted`] means that there is no room for a block.
    pub async fn next<F: Future<Output = Result<Allocation, StoreError>>>(
        &self,
        org: OrgId,
        plan: &NumberingPlan,
        size: u64,
        allocate: impl FnOnce(u64) -> F,
    ) -> Result<Allocation, StoreError> {
        let place = self.claim(org, plan, size);
        let allocation = place.allocation.get_or_try_init(|| allocate(place.block_size)).await?;
        Ok(match allocation {
            Allocation::Taken(SequenceValue(first)) => Allocation::Taken(SequenceValue(first + place.index)),
            Allocation::Exhausted => Allocation::Exhausted,
            Allocation::PlanChanged => {
                self.forget(org, &place.allocation);
                Allocation::PlanChanged
            }
        })
    }

    fn claim(&self, org: OrgId, plan: &NumberingPlan, size: u64) -> Place {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Block { plan: plan.clone(), size, claimed: 0, allocation: Arc::default() };
        let block = blocks.entry(org).or_insert_with(new);
        if block.claimed == block.size || block.plan != *plan {
            *block = new();
        }
        block.claimed += 1;
        Place { index: block.claimed - 1, block_size: block.size, allocation: Arc::clone(&block.allocation) }
    }

    /// Drops the block of that allocation, unless another one has taken its place.
    fn forget(&self, org: OrgId, allocation: &Arc<OnceCell<Allocation>>) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.get(&org).is_some_and(|block| Arc::ptr_eq(&block.allocation, allocation)) {
            blocks.remove(&org);
        }
    }

    /// Drops the blocks of all orgs but those.
    pub fn retain(&self, keep: impl Fn(OrgId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|org, _| keep(*org));
    }
}
