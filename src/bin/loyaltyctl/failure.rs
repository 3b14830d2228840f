//! The error type of commands, and their exit codes.

use std::{io, process::ExitCode};

use http::StatusCode;
use loyalty_codes::{
    embedded::EngineError,
    settings::InvalidSetting,
    store::{ApplyError, StoreError, error_chain},
};

/// A failed command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The reader of the output has closed it, as `head` does.
    OutputClosed,
    Failed,
    /// DynamoDB cannot be reached.
    Unreachable,
    Usage,
    Refused,
    NotFound,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into() }
    }

    /// Standard output could not be written.
    pub fn output(error: &io::Error) -> Self {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        let kind = if closed { Kind::OutputClosed } else { Kind::Failed };
        Self { kind, message: format!("cannot write to standard output: {error}") }
    }

    /// Makes a closed output a failure, for a command whose output is essential. Adds `what` to the
    /// message.
    pub fn without_effect(self, what: &str) -> Self {
        Self::failed(format!("{self}; {what}"))
    }

    /// Adds a line to the message.
    pub fn with_detail(mut self, what: &str) -> Self {
        self.message.push('\n');
        self.message.push_str(what);
        self
    }

    /// Whether the command was refused, so that nothing can have changed.
    pub fn is_refusal(&self) -> bool {
        self.kind == Kind::Refused
    }

    /// The kind of failure in words, for the audit, which has no text that could name anybody.
    pub const fn kind(&self) -> &'static str {
        match self.kind {
            Kind::OutputClosed => "the output was closed",
            Kind::Failed => "DynamoDB, or the machine of the command, failed",
            Kind::Unreachable => "DynamoDB could not be reached",
            Kind::Usage => "the request was wrong",
            Kind::Refused => "refused",
            Kind::NotFound => "not found",
        }
    }

    /// The HTTP status of the page that shows the failure.
    pub fn http_status(&self) -> StatusCode {
        match self.kind {
            Kind::OutputClosed | Kind::Failed | Kind::Unreachable => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::Refused => StatusCode::CONFLICT,
            Kind::NotFound => StatusCode::NOT_FOUND,
        }
    }

    /// Whether the command ended by an answer: a refusal, or that there is no such thing.
    pub fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Refused | Kind::NotFound | Kind::Usage)
    }

    /// Whether no message is printed.
    pub fn is_quiet(&self) -> bool {
        self.kind == Kind::OutputClosed
    }

    /// Adds `endpoint` to the message if DynamoDB could not be reached.
    pub fn with_endpoint(self, endpoint: &str) -> Self {
        if self.kind == Kind::Unreachable {
            return self.with_detail(&format!("No DynamoDB answers at {endpoint}"));
        }
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::OutputClosed => 0,
            Kind::Failed | Kind::Unreachable => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::NotFound => 4,
        })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut message = error_chain(&error);
        if message.contains("ResourceNotFoundException") {
            message.push_str(
                "\nIs the table there? `loyaltyctl table create` creates it; --table names another one.",
            );
        }
        let kind = if error.is_unreachable() { Kind::Unreachable } else { Kind::Failed };
        Self { kind, message }
    }
}

impl From<InvalidSetting> for Failure {
    fn from(error: InvalidSetting) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Store(error) => error.into(),
            ApplyError::Invalid(invalid) => {
                Self::refused(format!("the definition is invalid:\n  - {}", invalid.0.join("\n  - ")))
            }
            ApplyError::PossibleDuplicate(_)
            | ApplyError::Outdated
            | ApplyError::Concurrent
            | ApplyError::Busy => Self::refused(error.to_string()),
        }
    }
}
