//! Logs and counters.

pub mod lines;
pub mod logs;
mod stats;

pub use stats::{Lane, Stats};
