//! What can go wrong between us and DynamoDB. Callers of the store ask what an error means and
//! never see a type of the SDK.

use std::{error::Error, fmt};

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{BuildError, ProvideErrorMetadata, SdkError},
};

/// A failed operation. Conditions that an operation expects to fail are not errors: they are
/// variants of what the operation returns.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Later it may work.
    Unavailable,
    /// It will not work until somebody mends something: a missing table, a denied action, a corrupt item.
    Failed,
}

/// Service errors after which the same request may succeed later.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const TRANSIENT: &[&str] = &[
    // The environment that holds the function's credentials outlived them; another one has fresh ones.
    "ExpiredTokenException",
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

impl StoreError {
    /// An item is not as this code writes it. `what` names attributes, never their values.
    pub(super) fn corrupt(what: impl fmt::Display) -> Self {
        Self { kind: Kind::Failed, what: format!("an item is corrupt: {what}"), source: None }
    }

    /// An operation that was given up, though it may work later.
    pub(super) fn gave_up(what: impl Into<String>) -> Self {
        Self { kind: Kind::Unavailable, what: what.into(), source: None }
    }

    /// A transaction that DynamoDB kept cancelling, for reasons that pass.
    pub(super) fn cancelled_for_now(reasons: &[&str]) -> Self {
        Self { kind: Kind::Unavailable, ..Self::cancelled(reasons) }
    }

    /// A transaction that DynamoDB cancelled. `reasons` has a code for each of its writes.
    pub(super) fn cancelled(reasons: &[&str]) -> Self {
        let what = format!("DynamoDB cancelled the transaction: {}", reasons.join(", "));
        Self { kind: Kind::Failed, what, source: None }
    }

    /// A request that this code builds wrongly.
    pub(super) fn from_build(error: BuildError) -> Self {
        let what = "a request is incomplete".to_owned();
        Self { kind: Kind::Failed, what, source: Some(Box::new(error)) }
    }

    pub(super) fn from_sdk<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let transient = match &error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
            SdkError::ServiceError(service) => {
                service.raw().status().is_server_error()
                    || service.err().code().is_some_and(|code| TRANSIENT.contains(&code))
            }
            _ => false,
        };
        let (kind, what) = if transient {
            (Kind::Unavailable, "DynamoDB is unavailable")
        } else {
            (Kind::Failed, "DynamoDB refused the operation")
        };
        Self { kind, what: what.to_owned(), source: Some(Box::new(error)) }
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}

/// `error` and what caused it, each by its `Display`, for a log line. The SDK's `Debug` output would
/// hold items.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
