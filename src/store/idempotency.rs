//! Stored responses to requests with an `Idempotency-Key`. All requests with one key get the first
//! response that is stored under it. If a request changes a customer's items, its response is
//! written in the same transaction. So there is no response without the change, and no change
//! happens twice.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    operation::put_item::PutItemError,
    types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Attributes, Item, Store, StoreError,
    item::{NewItem, b, n, s, ttl},
    keys::{self, EXPIRES_AT, PK},
};
use crate::model::{org::OrgId, till::TillName};

const REQUEST: &str = "request";
const BODY: &str = "answer";

/// How long a response is stored.
const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// The condition that no response is stored. An expired one may still exist, because TTL deletes
/// late.
fn no_stored_response() -> String {
    format!("attribute_not_exists({PK}) OR {EXPIRES_AT} <= :now")
}

/// A request with an idempotency key. It takes effect once, however often it is sent.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub org: OrgId,
    pub till: TillName,
    /// SHA-256 of the key that the caller chose.
    pub key: [u8; 32],
    /// SHA-256 of the content of the request and of the key.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the content alone, as earlier versions stored it.
    pub fingerprint_without_key: [u8; 32],
    pub now: DateTime<Utc>,
}

/// The response that is stored under a key. It does not implement `Debug`, because it may contain a
/// card number.
pub struct StoredResponse {
    /// [`IdempotentRequest::fingerprint`] of the request that it belongs to.
    pub fingerprint: [u8; 32],
    pub body: String,
}

impl StoredResponse {
    fn read(attributes: &Attributes) -> Result<Self, StoreError> {
        let item = Item(attributes);
        Ok(Self { fingerprint: item.bytes(REQUEST)?, body: item.s(BODY)?.to_owned() })
    }
}

/// A response to be stored.
#[derive(Clone, Copy)]
pub struct ResponseToStore<'a> {
    pub request: &'a IdempotentRequest,
    pub body: &'a str,
}

impl ResponseToStore<'_> {
    fn item(&self) -> NewItem {
        let Self { request, body } = self;
        NewItem::new(&keys::stored_response(request.org, &request.till, &request.key))
            .with(REQUEST, b(&request.fingerprint))
            .with(BODY, s(*body))
            .with(EXPIRES_AT, ttl(request.now + LIFETIME))
    }
}

impl Store {
    /// The response that was stored under the request's key within the last 24 hours.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn stored_response(
        &self,
        request: &IdempotentRequest,
    ) -> Result<Option<StoredResponse>, StoreError> {
        let Some(attributes) =
            self.get(&keys::stored_response(request.org, &request.till, &request.key)).await?
        else {
            return Ok(None);
        };
        if Item(&attributes).n::<i64>(EXPIRES_AT)? <= request.now.timestamp() {
            return Ok(None);
        }
        StoredResponse::read(&attributes).map(Some)
    }

    /// Stores a response, unless one is stored under its key, which is returned instead. If the SDK
    /// retries this write after its response was lost, the retry finds the item of the first
    /// attempt and returns that.
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
            .condition_expression(no_stored_response())
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

    /// The transaction write that stores a response, on the condition that none is stored under its
    /// key.
    pub(super) fn put_response(
        &self,
        response: &ResponseToStore<'_>,
    ) -> Result<TransactWriteItem, StoreError> {
        self.put_if(response.item(), |put| {
            put.condition_expression(no_stored_response())
                .expression_attribute_values(":now", n(response.request.now.timestamp()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        })
    }

    /// The stored response that made the write at `position` fail, if that write is among the
    /// `refused` ones.
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

    /// The stored response that a condition found: the item that the failed write returned, or else
    /// the item in the table.
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
