//! Errors, as callers and the log see them.
//!
//! A [`Problem`] is one thing that is wrong with a request. The table below is the only place that
//! defines its HTTP status, code and message; [`ApiMessage`] has the warnings. An [`ApiError`] is
//! the error type of the handlers. It contains one problem or several with the same status, the
//! data for the response headers, and the cause. Only the log shows the cause.
//!
//! Every response body is one of two envelopes: [`SuccessBody`] for success and [`ErrorBody`] for
//! failure.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{model::customer::UserId, store::StoreError};

macro_rules! problems {
    ($( $(#[$meta:meta])* $problem:ident => $status:ident, $code:literal, $message:literal; )+) => {
        /// One thing that is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem { $( $(#[$meta])* $problem ),+ }

        impl Problem {
            /// Every problem.
            pub const ALL: &'static [Self] = &[$( Self::$problem ),+];

            const fn row(self) -> (StatusCode, u16, &'static str) {
                match self { $( Self::$problem => (StatusCode::$status, $code, $message) ),+ }
            }
        }
    };
}

// The codes of the documented API are unchanged. Where the documentation has none, the code is the
// HTTP status.
problems! {
    // The request itself.
    RouteUnknown => NOT_FOUND, 404, "No such resource";
    MethodNotAllowed => METHOD_NOT_ALLOWED, 405, "Method not allowed";
    RequestUnreadable => BAD_REQUEST, 400, "The request cannot be read";
    BodyIncomplete => BAD_REQUEST, 400, "The request body is incomplete";
    BodyTooSlow => REQUEST_TIMEOUT, 408, "The request body did not arrive in time";
    BodyTooLarge => PAYLOAD_TOO_LARGE, 413, "Request body exceeds 64 KiB";
    ContentTypeUnsupported => UNSUPPORTED_MEDIA_TYPE, 415, "Content-Type must be application/json";
    BodyMalformed => BAD_REQUEST, 400, "Request body is not a valid JSON object";
    PathAmbiguous => BAD_REQUEST, 400, "The parameters in the path cannot be told apart; pass them in the query";
    ParameterRepeated => BAD_REQUEST, 400, "A parameter is passed more than once with different values";

    IdempotencyKeyInvalid => BAD_REQUEST, 400, "Idempotency-Key must be one key of 1 to 255 visible ASCII characters";
    IdempotencyKeyReused => UNPROCESSABLE_ENTITY, 422, "Idempotency-Key was used for another request";

    // The caller.
    Unauthorized => UNAUTHORIZED, 401, "Till name, password or access token is wrong";
    CredentialsNotText => BAD_REQUEST, 400, "Key and secret must be text";
    NotPermitted => FORBIDDEN, 4000, "The till has no permission for this resource";
    V2NotEnabled => FORBIDDEN, 403, "V2 API is not enabled for the org";

    // Who the customer is.
    SourceMissing => BAD_REQUEST, 8016, "Source not passed";
    SourceUnknown => BAD_REQUEST, 8012, "Unknown source";
    SourceNotText => BAD_REQUEST, 8012, "Source must be text";
    AccountMissing => BAD_REQUEST, 8091, "Account id not passed for a source with multiple accounts";
    AccountNotConfigured => BAD_REQUEST, 8127, "Account id is not configured for the source";
    AccountNotText => BAD_REQUEST, 8127, "Account id must be text";
    IdentifierNameMissing => BAD_REQUEST, 8092, "Identifier name not passed";
    IdentifierNameUnknown => BAD_REQUEST, 8013, "Unknown identifier name";
    IdentifierNameNotText => BAD_REQUEST, 8013, "Identifier type must be text";
    IdentifierValueMissing => BAD_REQUEST, 8093, "Identifier value not passed";
    IdentifierValueMalformed => BAD_REQUEST, 8093, "Identifier value is not valid";
    IdentifierValueNotText => BAD_REQUEST, 8093, "Identifier value must be text";
    IdentifiersDiffer => BAD_REQUEST, 400, "The identifier is passed more than once with different values";
    MobileMalformed => BAD_REQUEST, 8056, "Invalid mobile number";
    EmailMalformed => BAD_REQUEST, 8057, "Invalid email address";
    CustomerNotFound => NOT_FOUND, 8015, "Customer not found for the given identifiers";

    // OTPs.
    ScopeInvalid => BAD_REQUEST, 600, "Scope (action) is missing or unknown";
    ScopeNotText => BAD_REQUEST, 600, "Action must be text";
    ThresholdInvalid => BAD_REQUEST, 400, "Threshold must be a whole number of seconds, 0 or more";
    EntityTypeInvalid => BAD_REQUEST, 601, "Entity type is missing or unknown";
    EntityTypeNotText => BAD_REQUEST, 601, "Entity type must be text";
    EntityValueMissing => BAD_REQUEST, 602, "Entity value is missing";
    EntityValueNotText => BAD_REQUEST, 602, "Entity value must be text";
    ChannelInvalid => BAD_REQUEST, 603, "A communication channel is unknown, or its value is missing or not valid; both must be text";
    ChannelNotOffered => BAD_REQUEST, 603, "The org sends no messages by a communication channel of the request";
    CountryNotAllowed => BAD_REQUEST, 603, "The org sends no messages to the country of a mobile";
    NoAddress => BAD_REQUEST, 603, "There is no address to send the OTP to";
    AddressNotOwn => FORBIDDEN, 4000, "An address is not the customer's own, and the till may not send to any other";
    TemplateInvalid => BAD_REQUEST, 400, "Template and email template body must be text of at most 10000 characters with {{ validation_code }} or {{ otp_code }} in it";
    SubjectInvalid => BAD_REQUEST, 400, "Email subject must be text in one line, without control characters";
    CodeMissing => BAD_REQUEST, 604, "No OTP passed";
    CodeNotText => BAD_REQUEST, 604, "Code must be text";
    OtpNotGenerated => SERVICE_UNAVAILABLE, 606, "Unable to generate OTP at the moment";
    OtpNotFound => NOT_FOUND, 9001, "No valid OTP found";
    OtpTooSoon => TOO_MANY_REQUESTS, 429, "The last OTP was issued a moment ago";
    OtpLimitReached => TOO_MANY_REQUESTS, 429, "The OTPs of the day are used up for the customer or an address";
    HourlyOtpLimitReached => TOO_MANY_REQUESTS, 429, "The OTPs of the hour are used up for an address";
    AttemptLimitReached => TOO_MANY_REQUESTS, 429, "Too many wrong OTPs; try again later";

    // Card numbers.
    CardNumbersDisabled => FORBIDDEN, 703, "Card number generation disabled";
    CardNumbersNotForAccount => FORBIDDEN, 8127, "Card number generation is not enabled for the source and account";
    CardNumberSettingsInvalid => INTERNAL_SERVER_ERROR, 701, "Invalid card number configuration";
    CardNumberLengthInvalid => INTERNAL_SERVER_ERROR, 704, "Invalid card number length";
    CardNumbersExhausted => CONFLICT, 702, "Card number range exhausted";

    // Registering customers. `{id}` stands for a user id.
    ProfilesMissing => BAD_REQUEST, 400, "Profiles must be an array of 1 to 20 objects";
    IdentifiersInvalid => BAD_REQUEST, 400, "Identifiers must be an array of objects, 40 in all profiles at most";
    NameInvalid => BAD_REQUEST, 400, "First and last name must be text of at most 255 characters";
    ExternalIdsDiffer => BAD_REQUEST, 400, "A customer has one external ID, and several are passed";
    CustomerExists => CONFLICT, 8006, "Add failed, Customer already exists with id {id} for same source";
    IdentifierTaken => CONFLICT, 8008, "The new identifier already exists in the same source";
    SeveralCustomers => CONFLICT, 8053, "The identifiers belong to different customers";

    TooManyIdentifiers => BAD_REQUEST, 400, "A customer has at most 500 identifiers";
    CustomerTooLarge => BAD_REQUEST, 400, "The customer would have too many bytes of profiles and identifiers";

    // Looking up and changing customers.
    CustomerElsewhere => NOT_FOUND, 8065, "Customer not found in the source; the identifier is registered in another source or account";
    CustomerUnknown => NOT_FOUND, 8009, "There is no customer with that id";
    ChangeInvalid => BAD_REQUEST, 400, "Add and remove must be arrays of objects, 1 to 40 identifiers in both";
    RemovedIdentifierOfAnother => BAD_REQUEST, 8013, "An identifier to be removed belongs to another customer";
    NoIdentifierLeft => BAD_REQUEST, 400, "A customer keeps at least one identifier";

    // The service.
    Unavailable => SERVICE_UNAVAILABLE, 503, "The service is unavailable at the moment";
    Internal => INTERNAL_SERVER_ERROR, 500, "Internal error";
}

impl Problem {
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    pub const fn code(self) -> u16 {
        self.row().1
    }

    pub const fn message(self) -> &'static str {
        self.row().2
    }
}

/// The problems of one request; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Combines the results of reading the parts of a request: all values, or the problems of all
/// parts.
pub trait Gather {
    type All;
    /// # Errors
    /// [`Problems`] of all parts together.
    fn gather(self) -> Result<Self::All, Problems>;
}

macro_rules! gather_tuples {
    ($( ($($part:ident),+) )+) => { $(
        #[expect(non_snake_case, reason = "a type and its value share the name")]
        impl<$($part),+> Gather for ($(Result<$part, Problems>,)+) {
            type All = ($($part,)+);
            fn gather(self) -> Result<Self::All, Problems> {
                match self {
                    ($(Ok($part),)+) => Ok(($($part,)+)),
                    ($($part,)+) => {
                        let mut problems = Vec::new();
                        $( problems.extend($part.err().into_iter().flat_map(|p| p.0)); )+
                        Err(Problems(problems))
                    }
                }
            }
        }
    )+ };
}
gather_tuples! { (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) }

/// The error type of the handlers.
#[derive(Debug)]
pub struct ApiError {
    problems: Problems,
    /// Seconds after which a retry may succeed.
    retry_after: Option<i64>,
    /// The methods that the resource supports.
    allow: Option<String>,
    /// The customer whom the message names.
    customer: Option<UserId>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// How many problems a response and a log line list at most. A body may contain many more.
const MAX_PROBLEMS: usize = 50;

/// In seconds. When DynamoDB throttles, its burst capacity recovers within a second.
const RETRY_AFTER_UNAVAILABLE: i64 = 1;

impl ApiError {
    /// A 429 with `Retry-After` in whole seconds, rounded up and at least 1.
    pub fn too_many(problem: Problem, retry_after: chrono::TimeDelta) -> Self {
        let seconds = (retry_after.num_milliseconds() + 999) / 1000;
        Self { retry_after: Some(seconds.max(1)), ..problem.into() }
    }

    /// A 405 with the allowed methods.
    pub fn method_not_allowed(allow: String) -> Self {
        Self { allow: Some(allow), ..Problem::MethodNotAllowed.into() }
    }

    /// A 409 that names the customer who has the identifiers.
    pub fn customer_exists(user: UserId) -> Self {
        Self { customer: Some(user), ..Problem::CustomerExists.into() }
    }

    /// An error with a cause that only the log shows. The response is that of `problem`.
    pub fn caused_by(problem: Problem, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Box::new(cause)), ..problem.into() }
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }

    /// Whether the cause is one corrupt item, while the service works.
    #[cfg(feature = "cli")]
    pub fn is_about_a_corrupt_item(&self) -> bool {
        self.store_error().is_some_and(StoreError::is_corrupt)
    }

    /// Whether the cause is that other requests kept changing the same items, while the service
    /// works.
    pub fn is_about_contention(&self) -> bool {
        self.store_error().is_some_and(StoreError::is_contended)
    }

    fn store_error(&self) -> Option<&StoreError> {
        self.cause()?.downcast_ref()
    }

    pub fn status(&self) -> StatusCode {
        self.problems.0.first().map_or(StatusCode::INTERNAL_SERVER_ERROR, |problem| problem.status())
    }

    /// The codes in the order of the response, for the log and the metrics.
    pub fn code_list(&self) -> Vec<String> {
        self.problems.0.iter().map(|problem| problem.code().to_string()).collect()
    }

    /// The codes and messages of the response, in one line.
    #[cfg(feature = "cli")]
    pub fn messages(&self) -> String {
        let errors = self.body().errors;
        let messages = errors.iter().map(|error| format!("{} {}", error.code(), error.message()));
        // Only in the rehearsal of an import, a customer has no id.
        messages.collect::<Vec<_>>().join("; ").replace("{id}", "of an earlier row")
    }

    pub fn body(&self) -> ErrorBody {
        let message = |problem: &Problem| match self.customer {
            Some(user) => ApiMessage::about(problem.code(), problem.message(), user),
            None => ApiMessage::from(*problem),
        };
        let errors = self.problems.0.iter().map(message).collect();
        ErrorBody { errors, warnings: Vec::new() }
    }

    /// The response headers of this error.
    pub fn headers(&self) -> Vec<(header::HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(seconds) = self.retry_after {
            headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::from_str) {
            headers.push((header::ALLOW, allow));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"loyalty\"")));
        }
        headers
    }
}

/// Only the first `MAX_PROBLEMS` are kept.
impl From<Problems> for ApiError {
    fn from(mut problems: Problems) -> Self {
        problems.0.truncate(MAX_PROBLEMS);
        let mut error = Self { problems, retry_after: None, allow: None, customer: None, cause: None };
        if error.status() == StatusCode::SERVICE_UNAVAILABLE {
            error.retry_after = Some(RETRY_AFTER_UNAVAILABLE);
        }
        error
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Problems::from(problem).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let problem = if error.is_unavailable() { Problem::Unavailable } else { Problem::Internal };
        Self::caused_by(problem, error)
    }
}

/// An error or a warning in a response body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiMessage {
    status: bool,
    code: u16,
    message: Cow<'static, str>,
}

impl ApiMessage {
    /// The warning that the source's only account was used, because the request named none.
    pub const ACCOUNT_DEFAULTED: Self = Self::new(8054, "Account id not passed");
    /// The warning that an identifier was added or removed before already.
    pub const IDENTIFIER_UNCHANGED: Self = Self::new(8007, "The identifier is as requested already");

    const fn new(code: u16, message: &'static str) -> Self {
        Self { status: false, code, message: Cow::Borrowed(message) }
    }

    pub const fn code(&self) -> u16 {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The warning that the profiles of a registration were added to a customer who is known from
    /// another source or account.
    pub fn joined(user: UserId) -> Self {
        const MESSAGE: &str =
            "Same identifier found in other source. Merging into the account with user id {id}";
        Self::about(8051, MESSAGE, user)
    }

    /// A message in which `{id}` stands for the user id.
    fn about(code: u16, message: &str, user: UserId) -> Self {
        Self { status: false, code, message: message.replace("{id}", &user.to_string()).into() }
    }
}

impl From<Problem> for ApiMessage {
    fn from(problem: Problem) -> Self {
        Self::new(problem.code(), problem.message())
    }
}

/// The body of every failure.
#[derive(Debug, Serialize)]
pub struct ErrorBody {
    errors: Vec<ApiMessage>,
    warnings: Vec<ApiMessage>,
}

/// The body of every success: the handler's response and the warnings. It does not implement
/// `Debug`, because it may contain an OTP.
pub struct SuccessBody(String);

#[derive(Serialize)]
struct WithWarnings<'a, T> {
    #[serde(flatten)]
    body: T,
    warnings: &'a [ApiMessage],
}

impl SuccessBody {
    /// # Errors
    /// [`Problem::Internal`] when the body cannot be serialized as JSON.
    pub fn new(body: impl Serialize, warnings: &[ApiMessage]) -> Result<Self, ApiError> {
        Self::serialized(&WithWarnings { body, warnings })
    }

    /// The body of a token request: `data`, and `errors` that are null. Existing clients expect
    /// both, and no warnings. No other success body has the key `errors`.
    ///
    /// # Errors
    /// [`Problem::Internal`] when the body cannot be serialized as JSON.
    pub fn with_null_errors(data: impl Serialize) -> Result<Self, ApiError> {
        #[derive(Serialize)]
        struct WithNullErrors<T> {
            data: T,
            errors: (),
        }
        Self::serialized(&WithNullErrors { data, errors: () })
    }

    fn serialized(body: &impl Serialize) -> Result<Self, ApiError> {
        let json = serde_json::to_string(body);
        json.map(Self).map_err(|error| ApiError::caused_by(Problem::Internal, error))
    }

    /// A stored response, unchanged.
    pub const fn replayed(json: String) -> Self {
        Self(json)
    }

    /// The JSON text.
    pub fn into_json(self) -> String {
        self.0
    }
}

/// The JSON text.
impl AsRef<str> for SuccessBody {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_all_parts_are_gathered_in_order() {
        let parts: (Result<u8, Problems>, Result<u8, Problems>, Result<u8, Problems>) = (
            Err(Problem::SourceMissing.into()),
            Ok(1),
            Err(Problems(vec![Problem::ScopeInvalid, Problem::ThresholdInvalid])),
        );
        assert_eq!(
            parts.gather(),
            Err(Problems(vec![Problem::SourceMissing, Problem::ScopeInvalid, Problem::ThresholdInvalid]))
        );
        assert_eq!((Ok::<_, Problems>(1), Ok::<_, Problems>(2)).gather(), Ok((1, 2)));
    }

    #[test]
    fn a_retry_is_never_suggested_too_early() {
        let error = ApiError::too_many(Problem::OtpLimitReached, chrono::TimeDelta::milliseconds(1001));
        assert!(error.headers().contains(&(header::RETRY_AFTER, HeaderValue::from(2))));
    }
}
