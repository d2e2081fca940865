//! Money: credits are held in memory at once, made durable in batches, and booked in double entry.
//!
//! The data plane gets a [`Spender`], which can only hold and settle. The control plane gets a [`Bookkeeper`], which can
//! only book and read. Two threads stand behind them: the commit thread with the journal, and the books thread with the
//! books (see `threads/`).
//!
//! How promise 2 survives a crash: credits that a settlement returns can be spent at once, so the settlement's record must
//! never reach the disk after the record of the hold that spent them. Therefore each batch is taken from all outboxes under
//! all their locks, and a booking that takes credits away waits for a barrier first.

mod bookkeeper;
pub mod entry;
mod handle;
pub mod memory;
pub mod outbox;
mod purse;
pub mod record;
#[cfg(test)]
mod simulation;
mod spender;
pub mod sqlite;
pub mod store;
pub mod tally;
mod threads;
pub mod verify;

use std::time::Duration;

pub use bookkeeper::Bookkeeper;
pub use handle::{Ledger, Opened};
pub use purse::Purse;
pub use spender::{Hold, HoldError, Settled, Spender, SpenderSeed};
pub use threads::{Counters, LimitSource};

/// How often limit states are saved: after a crash at most the last second of them is forgotten. That holds for some
/// 100,000 states that change in a second; more take longer to write.
pub const LIMITS_SAVED_EVERY: Duration = Duration::from_secs(1);
