//! Writes logs and counts requests, connections and charges.

pub mod lines;
pub mod logs;
mod stats;

pub use stats::{Lane, Stats};
