//! Re-exports the standard library's atomics and parking, so that `tests/wakeups.rs` can replace them with loom's.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
pub(super) use std::thread::{Thread, current, park_timeout};
