//! Why a gateway did not start, or why it stopped.

use crate::config::Report;
use crate::control::operations::OperationError;
use crate::ledger::store::LedgerError;

/// Why the gateway did not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(Box<Report>),
    /// Any other error, as a message for the operator.
    #[error("{0}")]
    Other(String),
}

impl From<LedgerError> for StartError {
    fn from(error: LedgerError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<OperationError> for StartError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Config(report) => Self::Config(report),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<String> for StartError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}
