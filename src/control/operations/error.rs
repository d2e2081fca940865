//! Says why an operation failed, for commands, the admin API and pages alike.

use serde_json::Value;

use crate::config::{ProblemJson, Report};
use crate::ledger::store::LedgerError;

/// Why an operation failed. It has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// A value is not accepted.
    #[error("{field}: {message}")]
    Invalid {
        /// The field of the input.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The object does not exist.
    #[error("{0}")]
    Missing(String),
    /// The operation contradicts the present state.
    #[error("{0}")]
    Conflict(String),
    /// The object is defined in the configuration file, which is the only place to change it.
    #[error("{0}")]
    InFile(String),
    /// The object was changed since the version that the change is based on.
    #[error("{0}")]
    Stale(String),
    /// The account has fewer credits available.
    #[error("{0}")]
    InsufficientCredits(String),
    /// The caller's role does not allow the operation.
    #[error("{0}")]
    Forbidden(String),
    /// This was tried too often.
    #[error("{message}")]
    Throttled {
        /// What was tried too often.
        message: String,
        /// The seconds after which to try again.
        seconds: u64,
    },
    /// The configuration was refused: the report with its problems.
    #[error("{0}")]
    Config(Box<Report>),
    /// The ledger or the operating system failed. The same call may succeed later.
    #[error("{0}")]
    Unavailable(String),
}

/// The result of an operation.
pub type Result<T, E = OperationError> = std::result::Result<T, E>;

impl OperationError {
    /// A value of the input is not accepted.
    pub(in crate::control) fn invalid<T>(field: &'static str, message: impl Into<String>) -> Result<T> {
        Err(Self::Invalid { field, message: message.into() })
    }

    /// There is no such thing.
    pub(in crate::control) fn missing<T>(message: impl Into<String>) -> Result<T> {
        Err(Self::Missing(message.into()))
    }

    /// A stable name of the reason, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_value",
            Self::Missing(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::InFile(_) => "defined_in_file",
            Self::Stale(_) => "stale_version",
            Self::InsufficientCredits(_) => "insufficient_credits",
            Self::Forbidden(_) => "forbidden",
            Self::Throttled { .. } => "rate_limited",
            Self::Config(_) => "configuration_refused",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The problems of the configuration if it was refused, otherwise none.
    #[must_use]
    pub fn problems(&self) -> Vec<ProblemJson> {
        match self {
            Self::Config(report) => report.to_json(),
            _ => Vec::new(),
        }
    }

    /// The problems of the configuration as JSON.
    #[must_use]
    pub fn problems_json(&self) -> Value {
        serde_json::to_value(self.problems()).unwrap_or_default() // plain values always serialise
    }
}

impl From<LedgerError> for OperationError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unknown(message) => Self::Missing(message),
            LedgerError::Refused(message) | LedgerError::Taken(message) => Self::Conflict(message),
            LedgerError::Stale(message) => Self::Stale(message),
            LedgerError::Insufficient(message) => Self::InsufficientCredits(message),
            error @ (LedgerError::Unusable(_)
            | LedgerError::Failed(_)
            | LedgerError::Uncertain(_)
            | LedgerError::Damaged(_)
            | LedgerError::Closed) => Self::Unavailable(error.to_string()),
        }
    }
}
