//! The answers given to requests with an `Idempotency-Key`. The first answer that is stored under a key is the one that
//! every request with that key gets. Where a request changes a customer's items, its answer is written in the same
//! transaction, so that there is no answer without the change, and no change twice.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    operation::put_item::PutItemError,
    types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Attributes, Item, Store, StoreError,
    item::{NewItem, b, n, s, ttl},
    keys,
};
use crate::model::{org::OrgId, till::TillName};

const REQUEST: &str = "request";
const ANSWER: &str = "answer";

/// How long a key holds.
const LIFETIME: TimeDelta = TimeDelta::hours(24);

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

impl StoredResponse {
    fn read(attributes: &Attributes) -> Result<Self, StoreError> {
        let item = Item(attributes);
        Ok(Self { fingerprint: item.bytes(REQUEST)?, answer: item.s(ANSWER)?.to_owned() })
    }
}

/// An answer that is to be stored.
#[derive(Clone, Copy)]
pub struct ResponseToStore<'a> {
    pub request: &'a IdempotentRequest,
    pub answer: &'a str,
}

impl ResponseToStore<'_> {
    fn item(&self) -> NewItem {
        let Self { request, answer } = self;
        NewItem::new(&keys::answer(request.org, &request.till, &request.key))
            .with(REQUEST, b(&request.fingerprint))
            .with(ANSWER, s(*answer))
            .with(keys::EXPIRES_AT, ttl(request.now + LIFETIME))
    }
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
        if Item(&attributes).n::<i64>(keys::EXPIRES_AT)? <= request.now.timestamp() {
            return Ok(None);
        }
        StoredResponse::read(&attributes).map(Some)
    }

    /// Stores an answer unless there is one under its key, which is returned. A retry of this write after its own
    /// answer was lost finds what it wrote itself, and returns that.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item that is there is corrupt.
    pub async fn store_response(
        &self,
        response: ResponseToStore<'_>,
    ) -> Result<Option<StoredResponse>, StoreError> {
        let request = response.request;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(response.item().into_attributes()))
            .condition_expression(UNANSWERED)
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_names("#expires", keys::EXPIRES_AT)
            .expression_attribute_values(":now", n(request.now.timestamp()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failure)) => {
                    self.found_response(request, failure.item()).await.map(Some)
                }
                _ => Err(StoreError::from_sdk(error)),
            },
        }
    }

    /// The write of a transaction that stores an answer, unless there is one under its key.
    pub(super) fn put_response(
        &self,
        response: &ResponseToStore<'_>,
    ) -> Result<TransactWriteItem, StoreError> {
        self.put_if(response.item(), |put| {
            put.condition_expression(UNANSWERED)
                .expression_attribute_names("#pk", keys::PK)
                .expression_attribute_names("#expires", keys::EXPIRES_AT)
                .expression_attribute_values(":now", n(response.request.now.timestamp()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        })
    }

    /// The response that kept a transaction from storing another one at `position` of its writes, if that is among
    /// what was `refused`.
    pub(super) async fn earlier_response(
        &self,
        request: Option<&IdempotentRequest>,
        position: usize,
        refused: &BTreeMap<usize, Option<Attributes>>,
    ) -> Result<Option<StoredResponse>, StoreError> {
        match (request, refused.get(&position)) {
            (Some(request), Some(old)) => self.found_response(request, old.as_ref()).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The response that a condition found: what came back with the refusal, or else what the table has.
    async fn found_response(
        &self,
        request: &IdempotentRequest,
        old: Option<&Attributes>,
    ) -> Result<StoredResponse, StoreError> {
        if let Some(old) = old.filter(|old| !old.is_empty()) {
            return StoredResponse::read(old);
        }
        let stored = self.stored_response(request).await?;
        stored.ok_or_else(|| StoreError::gave_up("the stored response expired at this moment"))
    }
}
