//! The ledger's two threads and what passes between them.
//!
//! The commit thread owns the journal: it takes the workers' records and makes them durable. The books thread owns
//! the books: entries, accounts, keys and limit states. So no fold, command or limit save delays a commit.

mod barrier;
mod booking;
mod books;
mod commit;
mod handoff;
mod limit_saves;
mod shared;
mod signal;
mod sync;

#[cfg(test)]
pub(super) use barrier::Written;
pub(super) use books::{BooksThread, Job};
pub(super) use commit::CommitThread;
pub use limit_saves::LimitSource;
pub use shared::Counters;
pub(super) use shared::Shared;
