//! The definition of the table. `template.yaml` contains the same definition; a test compares the
//! two.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
        StreamSpecification, StreamViewType, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
    },
};

use super::{Store, error::StoreError, keys};

/// Whether a table has a stream, which the delivery of messages reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// A stream of new images, as in the template.
    NewImages,
    /// No stream, for the embedded engine: nothing reads it, and each stream record slows down
    /// writes.
    None,
}

/// The result of [`Store::create_table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableCreation {
    Created,
    /// The table existed already.
    Existed,
}

const POLL_EVERY: Duration = Duration::from_millis(500);
const MAX_POLLS: u32 = 240;

impl Store {
    /// Creates the table and enables its TTL, unless that is done already, and waits until the
    /// table is active. Idempotent.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB refuses, or the table is not active after two minutes.
    pub async fn create_table(&self, stream: Stream) -> Result<TableCreation, StoreError> {
        let attribute = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
        };
        let key = |name: &str, key_type| {
            KeySchemaElement::builder().attribute_name(name).key_type(key_type).build()
        };
        let build = StoreError::from_build;
        let new_images = StreamSpecification::builder()
            .stream_enabled(true)
            .stream_view_type(StreamViewType::NewImage)
            .build()
            .map_err(build)?;
        let created = self
            .client
            .create_table()
            .table_name(&self.table)
            .attribute_definitions(attribute(keys::PK).map_err(build)?)
            .attribute_definitions(attribute(keys::SK).map_err(build)?)
            .key_schema(key(keys::PK, KeyType::Hash).map_err(build)?)
            .key_schema(key(keys::SK, KeyType::Range).map_err(build)?)
            .billing_mode(BillingMode::PayPerRequest)
            .set_stream_specification((stream == Stream::NewImages).then_some(new_images))
            .send()
            .await;
        let creation = match created {
            Ok(_) => TableCreation::Created,
            Err(error) if error.code() == Some("ResourceInUseException") => TableCreation::Existed,
            Err(error) => return Err(StoreError::from_sdk(error)),
        };
        self.wait_until_active().await?;
        self.enable_ttl().await?;
        Ok(creation)
    }

    async fn wait_until_active(&self) -> Result<(), StoreError> {
        for _ in 0..MAX_POLLS {
            let described = self.client.describe_table().table_name(&self.table).send().await;
            let status = described.map_err(StoreError::from_sdk)?.table.and_then(|table| table.table_status);
            if status == Some(TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Err(StoreError::gave_up(format!("table {} did not become active", self.table)))
    }

    async fn enable_ttl(&self) -> Result<(), StoreError> {
        let described = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let status = described
            .map_err(StoreError::from_sdk)?
            .time_to_live_description
            .and_then(|description| description.time_to_live_status);
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let specification = TimeToLiveSpecification::builder()
            .attribute_name(keys::EXPIRES_AT)
            .enabled(true)
            .build()
            .map_err(StoreError::from_build)?;
        self.client
            .update_time_to_live()
            .table_name(&self.table)
            .time_to_live_specification(specification)
            .send()
            .await
            .map_err(StoreError::from_sdk)?;
        Ok(())
    }
}
