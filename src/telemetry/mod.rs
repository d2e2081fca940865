//! What Tollgate says about itself: logs and counters.

pub mod lines;
pub mod logs;
mod stats;

pub use stats::{Lane, Stats};
