//! Decides rate limits, by GCRA (with the governor crate) or by a strict sliding window.

mod counter;
mod definition;
mod gcra;
pub mod headers;
pub mod share;
mod state;
mod window;

pub use counter::Counter;
pub use definition::{
    Algorithm, Limit, LimitStatus, MAX_WINDOW, MIN_WINDOW, Numbers, Outage, Rate, ReachedLimit, Scope,
};
pub use state::LimitState;
pub use window::{BUCKETS, take_array};

#[cfg(test)]
mod tests;
