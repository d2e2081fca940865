//! Decides rate limits, by GCRA (with the governor crate) or by a strict sliding window.

mod definition;
mod gcra;
pub mod headers;
mod state;
mod window;

pub use definition::{Algorithm, Limit, MAX_WINDOW, MIN_WINDOW, Numbers, Scope, Standing};
pub use state::State;
pub use window::{BUCKETS, take_array};

#[cfg(test)]
mod tests;
