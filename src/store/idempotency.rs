//! The answers given to requests with an `Idempotency-Key`. Each is written in the transaction that it tells of, so there is
//! no answer without its deed, and no deed twice.

use aws_sdk_dynamodb::types::{ConditionCheck, TransactWriteItem};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Item, Store, StoreError,
    item::{NewItem, b, n, s, ttl},
    keys,
};
use crate::model::{org::OrgId, till::TillName};

const REQUEST: &str = "request";
const ANSWER: &str = "answer";

/// How long a key holds.
pub(super) const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// An answer that has expired may still be there: TTL deletes late.
const UNANSWERED: &str = "attribute_not_exists(#pk) OR #expires <= :now";

/// A request that must happen once, however often it is sent.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub org: OrgId,
    pub till: TillName,
    /// SHA-256 of the key that the caller chose.
    pub key: [u8; 32],
    /// SHA-256 of what the caller asks for.
    pub fingerprint: [u8; 32],
    pub now: DateTime<Utc>,
}

/// What was answered under a key. Nothing prints it: a number may be in it.
pub struct StoredResponse {
    /// SHA-256 of what the caller asked for.
    pub fingerprint: [u8; 32],
    pub answer: String,
}

/// An answer that is to be kept.
#[derive(Clone, Copy)]
pub struct ResponseToStore<'a> {
    pub request: &'a IdempotentRequest,
    pub answer: &'a str,
}

impl Store {
    /// What was answered under the key of a request within the last 24 hours.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn stored_response(
        &self,
        request: &IdempotentRequest,
    ) -> Result<Option<StoredResponse>, StoreError> {
        let Some(attributes) = self.get(&keys::answer(request.org, &request.till, &request.key)).await?
        else {
            return Ok(None);
        };
        let item = Item(&attributes);
        if item.n::<i64>(keys::EXPIRES_AT)? <= request.now.timestamp() {
            return Ok(None);
        }
        Ok(Some(StoredResponse { fingerprint: item.bytes(REQUEST)?, answer: item.s(ANSWER)?.to_owned() }))
    }

    /// The write that keeps an answer, unless there is one under its key.
    pub(super) fn put_answer(&self, record: &ResponseToStore<'_>) -> Result<TransactWriteItem, StoreError> {
        let ResponseToStore { request, answer } = record;
        let item = NewItem::new(&keys::answer(request.org, &request.till, &request.key))
            .with(REQUEST, b(&request.fingerprint))
            .with(ANSWER, s(*answer))
            .with(keys::EXPIRES_AT, ttl(request.now + LIFETIME));
        self.put_if(item, |put| {
            put.condition_expression(UNANSWERED)
                .expression_attribute_names("#pk", keys::PK)
                .expression_attribute_names("#expires", keys::EXPIRES_AT)
                .expression_attribute_values(":now", n(request.now.timestamp()))
        })
    }

    /// Lets a transaction happen only as long as there is no answer to a request.
    pub(super) fn unanswered(&self, request: &IdempotentRequest) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(keys::answer(request.org, &request.till, &request.key).attributes()))
            .condition_expression(UNANSWERED)
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_names("#expires", keys::EXPIRES_AT)
            .expression_attribute_values(":now", n(request.now.timestamp()))
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }
}
