//! Decides rate limits, by GCRA (with the governor crate) or by a strict sliding window.

mod definition;
mod gcra;
pub mod headers;
mod state;
mod window;

pub use definition::{Algorithm, Limit, LimitStatus, MAX_WINDOW, MIN_WINDOW, Numbers, ReachedLimit, Scope};
pub use state::LimitState;
pub use window::{BUCKETS, take_array};

#[cfg(test)]
mod tests;
