//! What commands of operators do with the table, and no request needs. The functions do not contain
//! it. Orgs and tills are written beside where they are read.

mod audit;
mod diagnosis;
mod erasure;
mod held_numbers;
mod history;
mod merging;
mod readings;
mod revocation;
mod table;
mod taking;
mod tombstones;
mod upgrade;

pub use audit::{Act, AuditEntry, Outcome as ActOutcome};
pub use diagnosis::{TABLE_KEYS, TableFacts, TriedAction};
pub use erasure::{Erasure, ErasureStart};
pub use held_numbers::HeldNumbers;
pub use history::{
    AddressQuotas, CustomerHistory, CustomerState, HistoryOwner, MessageRecord, OtpEnd, OtpRecord,
    OwnerHistory, QuotaCount, Search, distinct_attempts,
};
pub use merging::{Merge, MergeError, MergeRefusal, MergedUsers};
pub use table::{Stream, TableCreation};
pub use taking::{TakeError, TakenNumbers};
pub use tombstones::Tombstone;
pub use upgrade::{Reason, Undecided, UpgradeOptions, UpgradeReport};

// For the modules of this folder.
use super::{
    Attributes, Item, Store, StoreError, card_numbers, customer_writes, customers, error, error_chain,
    issuing, item, keys, messages, otps, retries, transaction,
};
