//! Why a command did not do what it was asked, and the exit code for it.

use std::{fmt, process::ExitCode};

use loyalty_codes::{
    embedded::EngineError,
    settings::InvalidSetting,
    store::{ApplyError, StoreError, error_chain},
};

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    NotFound = 4,
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

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
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
        Self::failed(message)
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
            ApplyError::PossibleDuplicate(_) | ApplyError::Concurrent | ApplyError::Busy => {
                Self::refused(error.to_string())
            }
        }
    }
}
