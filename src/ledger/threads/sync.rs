//! The standard library's atomics and parking, in one place so that `tests/wakeups.rs` can exchange them for loom's.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
pub(super) use std::thread::{Thread, current, park_timeout};
