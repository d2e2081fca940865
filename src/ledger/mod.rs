//! Keeps the credits of accounts: holds them in memory immediately, makes holds and charges durable in batches, and
//! books them in double entry.
//!
//! The data plane gets a [`Spender`], which can only hold and settle. The control plane gets a [`Bookkeeper`], which
//! can only book and read. Two threads do the work: the commit thread owns the journal, and the books thread owns the
//! entries, accounts, keys and limit states (see `threads/`).
//!
//! How promise 2 survives a crash: credits that a settlement returns can be spent immediately, so the settlement's
//! record must never reach the disk after the record of the hold that spent them. Therefore each batch is taken from
//! all outboxes while all of them are locked, and a booking that takes credits away first waits for a barrier.

mod adoption;
mod bookkeeper;
mod caps;
mod claims;
pub mod entry;
mod fleet;
mod handle;
mod jobs;
pub mod memory;
pub mod outbox;
mod place;
pub mod postgres;
mod purse;
pub mod record;
#[cfg(test)]
mod simulation;
mod spender;
mod sql;
pub mod sqlite;
pub mod store;
pub mod tally;
mod threads;
pub mod verify;

use std::time::Duration;

pub use adoption::{PassedOn, Settlement};
pub use bookkeeper::Bookkeeper;
pub use caps::{Capped, KeyCaps, SpendCap};
pub use claims::{Claim, ClaimChange, Found, NotFound, Repeatable};
pub use fleet::{Lease, NoLease};
pub use handle::{Ledger, Opened};
pub use jobs::{FoundJob, MAX_OPEN_JOBS, MAX_SETTLED_JOBS, OpenJob};
pub use place::{Copied, Place};
pub use purse::{JobSlot, Purse};
pub use spender::{Hold, HoldError, HoldRequest, Settled, Spender, SpenderSeed};
pub use threads::{Counters, LimitSource, RefillOrder, RefillWhat, UsageSource};

/// Interval at which limit states are saved: a crash loses at most the last second of them. This holds for up to about
/// 100,000 states that change in a second; more take longer to write.
pub const LIMITS_SAVED_EVERY: Duration = Duration::from_secs(1);
