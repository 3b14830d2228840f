//! Single calls to AWS that find out whether something is as it must be: their time limit, and
//! what a failure says.

use std::{error::Error, future::Future, time::Duration};

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::store::error_chain;

/// How long one call may take, with all its attempts.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Why a call was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The caller has no permission for the action. Contains AWS's own text.
    #[error("{0}")]
    Denied(String),
    /// There are no credentials, or AWS does not accept them.
    #[error("{0}")]
    Credentials(String),
    #[error("there is no such resource")]
    NotFound,
    /// The service does not have the operation. Local engines lack some.
    #[error("this service does not have the operation")]
    Unsupported,
    /// There was no answer, or one that is not of the service.
    #[error("{0}")]
    Unreachable(String),
    /// The service refused for another reason.
    #[error("{0}")]
    Refused(String),
}

pub(crate) const DENIED: &[&str] = &["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"];

pub(crate) const CREDENTIALS: &[&str] = &[
    "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException",
    "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "RequestExpired",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
];

const NOT_FOUND: &[&str] = &["NotFoundException", "ResourceNotFoundException", "TableNotFoundException"];

const UNSUPPORTED: &[&str] = &["InvalidAction", "UnknownOperation", "UnknownOperationException"];

/// Waits for the answer to a call, for [`TIME_LIMIT`] at most.
///
/// # Errors
/// [`CallError`] when there is no answer, or the service refuses.
pub async fn call<T, E>(
    sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, CallError>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match tokio::time::timeout(TIME_LIMIT, sending).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(CallError::Unreachable(format!("no answer within {} s", TIME_LIMIT.as_secs()))),
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(service) = error else {
        let cause = error_chain(error);
        // What the SDK says where no provider of credentials has any.
        let no_credentials = cause.contains("credentials") || cause.contains("identity");
        return if no_credentials { CallError::Credentials(cause) } else { CallError::Unreachable(cause) };
    };
    let status = service.raw().status().as_u16();
    let Some(code) = service.err().code() else {
        return match status {
            404 | 501 => CallError::Unsupported,
            _ => CallError::Unreachable(format!("HTTP status {status} without an error code")),
        };
    };
    let text = match service.err().message() {
        Some(message) if !message.is_empty() => format!("{code}: {message}"),
        _ => code.to_owned(),
    };
    if DENIED.contains(&code) {
        CallError::Denied(text)
    } else if CREDENTIALS.contains(&code) {
        CallError::Credentials(text)
    } else if NOT_FOUND.contains(&code) {
        CallError::NotFound
    } else if UNSUPPORTED.contains(&code) {
        CallError::Unsupported
    } else {
        CallError::Refused(text)
    }
}
