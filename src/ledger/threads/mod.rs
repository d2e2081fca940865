//! Runs the ledger's two threads, and passes data between them.
//!
//! The commit thread owns the journal: it takes the workers' records and makes them durable. The books thread owns the
//! books: entries, accounts, keys and limit states. Therefore no fold, command or save of limit states delays a commit.

mod adopted;
mod barrier;
mod booking;
mod books;
mod commit;
mod handoff;
mod kept;
mod limit_saves;
mod limits;
mod lots;
mod opening;
mod shared;
mod signal;
mod sync;
mod usage_counts;

pub(super) use barrier::{WaitForCommit, Written};
pub(super) use books::{BooksThread, Job};
pub(super) use commit::CommitThread;
pub use limit_saves::LimitSource;
pub use lots::{RefillOrder, RefillWhat};
pub(super) use opening::open_job;
pub use shared::Counters;
pub(super) use shared::Shared;
pub use usage_counts::UsageSource;
