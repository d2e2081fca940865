//! Why a call of the ledger failed.

/// An error of the ledger. Its message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, locked or interpreted. The gateway does not start.
    #[error("{0}")]
    Unusable(String),
    /// The store failed. The same call may succeed later.
    #[error("the ledger failed: {0}")]
    Failed(String),
    /// The store was lost while a change was committed, and nobody can tell if it was made.
    #[error("it is not known if the change was made: {0}")]
    Uncertain(String),
    /// The file contains data that no ledger writes. Trying again does not help.
    #[error("the ledger is damaged ({0}); restore a backup: see the README")]
    Damaged(String),
    /// The change contradicts the ledger, for example because the credits are not available.
    #[error("{0}")]
    Refused(String),
    /// The account has fewer credits available.
    #[error("{0}")]
    Insufficient(String),
    /// The account, key, token or hold does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The id, hash, reference or name is used already.
    #[error("{0}")]
    Taken(String),
    /// The account or key was changed since the version that the change is based on.
    #[error("{0}")]
    Stale(String),
    /// The ledger's thread has ended, because the process is stopping.
    #[error("the ledger is closed")]
    Closed,
}

/// The result of a ledger call.
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;
