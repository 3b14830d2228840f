//! Persistence in one DynamoDB table. Each file contains the operations on one kind of item;
//! [`keys`] builds every key.
//!
//! Reads that must see the last write are strongly consistent. A write that must not happen twice
//! is conditional, or is part of a transaction with a client token. The engine that `loyaltyctl
//! serve` embeds gets no token; see `tokens`. Readers check the expiry of an item themselves,
//! because TTL deletes late.

mod access_tokens;
mod blocks;
mod card_numbers;
mod client;
mod customer_writes;
mod customers;
mod error;
mod idempotency;
mod issuing;
mod item;
pub mod keys;
mod messages;
mod meter;
#[cfg(feature = "cli")]
mod operators;
mod orgs;
mod otps;
mod registration;
mod retries;
mod tills;
#[cfg(feature = "cli")]
mod tokens;
mod transaction;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;

pub use card_numbers::{CardNumber, NumberingError};
pub use client::{OPERATION_TIMEOUT, connect_on_lambda};
#[cfg(feature = "cli")]
pub use client::{connect, connect_embedded, connect_local};
pub use customers::{Change, Found, Place};
pub use error::{StoreError, error_chain};
pub use idempotency::{IdempotentRequest, ResponseToStore, StoredResponse};
pub use issuing::{Issue, NewOtp};
pub use messages::{MessageOtp, StateChange, StoredMessage};
pub use meter::{Usage, count_usage};
#[cfg(feature = "cli")]
pub use operators::*;
pub use orgs::{Applied, ApplyError, StoredOrg};
pub use otps::{OtpsAndAttempts, TypedOtp, Validation};
pub use registration::{NewCustomer, Registration};
pub use retries::within;
#[cfg(feature = "cli")]
pub use tokens::edit_body;

use blocks::Blocks;
use item::{Attributes, Item};
use keys::{Key, PK, SK};

/// A DynamoDB table, and the blocks of card numbers that this process has allocated from it. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    table: String,
    blocks: Arc<Blocks>,
}

impl Store {
    /// The table with that name, accessed through `client`.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table, blocks: Arc::default() }
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Checks that the table can be read, by reading an item that does not exist.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB cannot be reached or refuses.
    #[cfg(feature = "cli")]
    pub async fn check_readable(&self) -> Result<(), StoreError> {
        self.get(&keys::absent_item()).await.map(|_| ())
    }

    /// Reads one item, strongly consistently.
    async fn get(&self, key: &Key) -> Result<Option<Attributes>, StoreError> {
        let read = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .consistent_read(true)
            .send()
            .await;
        Ok(read.map_err(StoreError::from_sdk)?.item)
    }

    /// All items of a partition whose sort keys are within `from..=to`, newest first.
    async fn query(&self, partition: &str, from: &str, to: &str) -> Result<Vec<Attributes>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression(format!("{PK} = :pk AND {SK} BETWEEN :from AND :to"))
                .expression_attribute_values(":pk", item::s(partition))
                .expression_attribute_values(":from", item::s(from))
                .expression_attribute_values(":to", item::s(to))
                .consistent_read(true)
                .scan_index_forward(false)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(StoreError::from_sdk)?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}
