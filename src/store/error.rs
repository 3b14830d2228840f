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
    /// Nobody answered, or somebody who is no DynamoDB.
    unreachable: bool,
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
    const fn new(kind: Kind, what: String, source: Option<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, what, source, unreachable: false }
    }

    /// An item is not as this code writes it. `what` names attributes, never their values.
    pub(super) fn corrupt(what: impl fmt::Display) -> Self {
        Self::new(Kind::Failed, format!("an item is corrupt: {what}"), None)
    }

    /// An operation that was given up, though it may work later.
    pub(super) fn gave_up(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, what.into(), None)
    }

    /// A transaction that DynamoDB kept cancelling, for reasons that pass.
    pub(super) fn cancelled_for_now(reasons: &[&str]) -> Self {
        Self { kind: Kind::Unavailable, ..Self::cancelled(reasons) }
    }

    /// A transaction that DynamoDB cancelled. `reasons` has a code for each of its writes.
    pub(super) fn cancelled(reasons: &[&str]) -> Self {
        Self::new(Kind::Failed, format!("DynamoDB cancelled the transaction: {}", reasons.join(", ")), None)
    }

    /// A request that this code builds wrongly.
    pub(super) fn from_build(error: BuildError) -> Self {
        let what = "a request is incomplete".to_owned();
        Self::new(Kind::Failed, what, Some(Box::new(error)))
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
        let unreachable = match &error {
            SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout(),
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
            SdkError::ServiceError(service) => service.err().code().is_none(),
            _ => false,
        };
        Self { unreachable, ..Self::new(kind, what.to_owned(), Some(Box::new(error))) }
    }

    /// Whether nobody answered, or somebody who is no DynamoDB: the endpoint may be wrong.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}

/// `error` and what caused it, each by its `Display`, for a log line. The SDK's `Debug` output would
/// hold items; where its `Display` shows a request by that, it is cut.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = without_request(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&without_request(error));
        cause = error.source();
    }
    text
}

/// What `error` says, up to the `Debug` output of a request.
fn without_request(error: &dyn Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find("Request {") {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot send `Request {{ body: \"8799361139\" }}`")]
    struct Telling;

    #[test]
    fn no_chain_of_errors_shows_a_request() {
        let error = StoreError::new(Kind::Failed, "DynamoDB fails".to_owned(), Some(Box::new(Telling)));
        assert_eq!(error_chain(&error), "DynamoDB fails: cannot send `…");
    }
}
