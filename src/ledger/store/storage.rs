//! Defines the storage of a ledger, and how readers of it are opened.

use std::sync::Arc;

use super::{Books, BooksReader, Journal, Leases, Result};

/// The storage of a ledger: two or three parts, each used by one thread.
pub struct Storage {
    /// Entries, accounts, keys and limit states.
    pub books: Box<dyn Books>,
    /// Records that are not folded yet.
    pub journal: Box<dyn Journal>,
    /// Leases of credits; `None` if all credits are this gateway's.
    pub leases: Option<Box<dyn Leases>>,
}

/// Opens readers, which see what was committed before.
#[derive(Clone)]
pub struct Readers(Arc<dyn Fn() -> Result<Box<dyn BooksReader>> + Send + Sync>);

impl Readers {
    /// Opens readers with a function.
    pub fn new(open: impl Fn() -> Result<Box<dyn BooksReader>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Opens a reader.
    ///
    /// # Errors
    /// If the store fails, or its books were dropped.
    pub fn open(&self) -> Result<Box<dyn BooksReader>> {
        (self.0)()
    }
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}
