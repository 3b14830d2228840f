//! Errors of DynamoDB. Callers of the store ask what an error means by its methods, and never see a
//! type of the SDK.

use std::{error::Error, fmt};

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::update_item::UpdateItemError,
    types::error::ConditionalCheckFailedException,
};

/// A failed operation. An expected failure of a condition is not an error: it is a variant of the
/// operation's result.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// There was no response, or one that is not from DynamoDB.
    unreachable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A later attempt may succeed.
    Unavailable,
    /// Other callers kept changing the same items. DynamoDB works, and a later attempt may succeed.
    Contended,
    /// Every attempt fails until an operator repairs something: a missing table, a denied action.
    Failed,
    /// An item is corrupt. Other items may not be.
    Corrupt,
}

/// Service errors after which the same request may succeed later.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const TRANSIENT: &[&str] = &[
    // The function's environment is older than its credentials. Another environment has fresh ones.
    "ExpiredTokenException", "InternalServerError", "ProvisionedThroughputExceededException",
    "RequestLimitExceeded", "ServiceUnavailable", "ServiceUnavailableException", "ThrottlingException",
    "TransactionConflictException", "TransactionInProgressException",
];

impl StoreError {
    const fn new(kind: Kind, what: String, source: Option<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, what, source, unreachable: false }
    }

    /// An item does not have the form that this code writes. `what` names attributes, never their
    /// values.
    pub(crate) fn corrupt(what: impl fmt::Display) -> Self {
        Self::new(Kind::Corrupt, format!("an item is corrupt: {what}"), None)
    }

    /// An operation was abandoned. It may succeed later.
    pub(super) fn gave_up(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, what.into(), None)
    }

    /// An operation was abandoned, because others kept changing what it had read.
    pub(super) fn contended(what: impl Into<String>) -> Self {
        Self::new(Kind::Contended, what.into(), None)
    }

    /// DynamoDB cancelled a transaction. `reasons` has a code for each of its writes.
    pub(super) fn cancelled(kind: Kind, reasons: &[&str]) -> Self {
        Self::new(kind, format!("DynamoDB cancelled the transaction: {}", reasons.join(", ")), None)
    }

    /// This code built an incomplete request.
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

    /// A corrupt item that more depends on than the operation's own one, such as an org. The
    /// operation must be tried again when an operator has repaired it.
    pub(super) fn until_repaired(self) -> Self {
        Self { kind: if self.is_corrupt() { Kind::Failed } else { self.kind }, ..self }
    }

    /// Whether there was no response, or one that is not from DynamoDB. The endpoint may be wrong.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// Whether the operation fails because of one item, and DynamoDB works.
    pub fn is_corrupt(&self) -> bool {
        self.kind == Kind::Corrupt
    }

    /// Whether a later attempt may succeed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Contended)
    }

    /// Whether other callers kept changing the same items, and nothing is wrong with DynamoDB.
    pub fn is_contended(&self) -> bool {
        self.kind == Kind::Contended
    }
}

/// The exception of an update whose condition was not met. `None` for other errors.
pub(super) fn unmet_condition(
    error: &SdkError<UpdateItemError, HttpResponse>,
) -> Option<&ConditionalCheckFailedException> {
    match error.as_service_error()? {
        UpdateItemError::ConditionalCheckFailedException(exception) => Some(exception),
        _ => None,
    }
}

/// The `Display` text of `error` and of its causes, for a log line. `Debug` is not used, because
/// the SDK's output contains items. A `Display` text that embeds the `Debug` output of a request is
/// truncated there.
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

/// The `Display` text of `error`, truncated at the `Debug` output of a request.
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
    struct LeakingError;

    #[test]
    fn no_chain_of_errors_shows_a_request() {
        let error = StoreError::new(Kind::Failed, "DynamoDB fails".to_owned(), Some(Box::new(LeakingError)));
        assert_eq!(error_chain(&error), "DynamoDB fails: cannot send `…");
    }
}
