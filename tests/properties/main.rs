//! Tests credits and limits against models, with random interleavings and several threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a test that meets the unexpected ends, and looks at the real clock"
)]

#[path = "../engines/redis.rs"]
mod engine;
mod ledger_model;
mod limits_oracle;
mod shared_limits;
#[path = "../skips.rs"]
#[allow(dead_code, reason = "nothing is skipped here for lack of rights")]
mod skips;
