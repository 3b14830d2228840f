//! Blocks of card numbers. A process allocates several sequence values in one write and gives them
//! out from memory, if the org asks for it (`CONF_CARD_NUMBER_BLOCK_SIZE`). Numbers are then in
//! order only within one process. The values that are left when the process ends are skipped.

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

/// The latest block of each org. It is replaced when all of its values are claimed, or when the
/// plan changes.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<HashMap<OrgId, Block>>);

/// Consecutive values of a sequence. Callers claim their positions before the first value is known.
/// One of them allocates the values from the counter, and the others wait for the result. So a
/// process with many concurrent callers makes no more writes than it needs, and leaves less than
/// one block unused.
#[derive(Debug)]
struct Block {
    plan: NumberingPlan,
    size: u64,
    claimed: u64,
    allocation: Arc<OnceCell<Allocation>>,
}

/// A caller's position in a block.
struct Place {
    index: u64,
    block_size: u64,
    allocation: Arc<OnceCell<Allocation>>,
}

impl Blocks {
    /// The next value of the org's block. If the block is used up or belongs to another plan,
    /// `allocate` takes the next `size` values from the counter. [`Allocation::Exhausted`] means
    /// that the range has no room for a block.
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
                self.discard(org, &place.allocation);
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

    /// Drops the block of that allocation, unless a newer block has replaced it.
    fn discard(&self, org: OrgId, allocation: &Arc<OnceCell<Allocation>>) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.get(&org).is_some_and(|block| Arc::ptr_eq(&block.allocation, allocation)) {
            blocks.remove(&org);
        }
    }

    /// Drops the blocks of every org for which `keep` returns `false`.
    pub fn retain(&self, keep: impl Fn(OrgId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|org, _| keep(*org));
    }
}
