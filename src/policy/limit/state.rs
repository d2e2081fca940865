//! Stores how much of a limit was used, separately from the limit's definition.
//!
//! A state belongs to a key, an account or an address, and survives changes of the definition. It contains the
//! interval or bucket length that it was counted with, so that a changed limit still counts earlier requests.

use std::time::Duration;

use super::definition::{Algorithm, LimitStatus, Rate};
use super::gcra;
use super::window::{Window, take_array};
use crate::types::{Moment, nanos};

/// The requests that a limit has counted: two 64-bit numbers for GCRA, boxed counts for a sliding window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitState {
    /// The theoretical arrival time, and the interval that was used to compute it.
    Gcra {
        /// The theoretical arrival time, when the whole quota is available again, in nanoseconds of [`Moment`].
        arrival: u64,
        /// Nanoseconds per request.
        interval: u64,
    },
    /// Counts of the last sixty parts of the window, and of the current part.
    Window(Box<Window>),
}

impl LimitState {
    /// The state of a limit that has counted no request.
    #[must_use]
    pub fn fresh(rate: &Rate) -> Self {
        match rate.algorithm {
            Algorithm::Gcra => Self::Gcra { arrival: 0, interval: rate.interval },
            Algorithm::SlidingWindow => Self::Window(Box::new(Window::new(rate.bucket))),
        }
    }

    /// Advances the state to `now`, and converts it to the current definition of the limit. Requests that were
    /// already counted stay counted.
    pub fn adapt(&mut self, rate: &Rate, now: Moment) {
        let Rate { interval, bucket, .. } = *rate;
        match (&mut *self, rate.algorithm) {
            (Self::Gcra { arrival, interval: old }, Algorithm::Gcra) => {
                if *old != interval {
                    *arrival = gcra::rescale(*arrival, now.0, *old, interval);
                    *old = interval;
                }
            }
            (Self::Window(window), Algorithm::SlidingWindow) => {
                window.roll(now.0);
                if window.bucket() != bucket {
                    **window = window.with_bucket(bucket, now.0);
                }
            }
            (Self::Gcra { arrival, interval: old }, Algorithm::SlidingWindow) => {
                let used = arrival.saturating_sub(now.0).div_ceil(*old);
                let mut window = Window::new(bucket);
                window.add(now.0, u32::try_from(used).unwrap_or(u32::MAX));
                *self = Self::Window(Box::new(window));
            }
            (Self::Window(window), Algorithm::Gcra) => {
                window.roll(now.0);
                let used = interval.saturating_mul(window.total());
                *self = Self::Gcra { arrival: now.0.saturating_add(used), interval };
            }
        }
    }

    /// Checks the next request without counting it. [`LimitState::adapt`] must have been called for `now`.
    #[must_use]
    pub fn peek(&self, rate: &Rate, now: Moment) -> LimitStatus {
        match self {
            Self::Gcra { arrival, interval } => gcra::peek(*arrival, *interval, rate.burst, now.0),
            Self::Window(window) => window.peek(rate.requests, now.0),
        }
    }

    /// Counts the request that `status` admitted.
    pub fn take(&mut self, status: &LimitStatus, now: Moment) {
        match self {
            Self::Gcra { arrival, .. } => *arrival = status.next,
            Self::Window(window) => window.add(now.0, 1),
        }
    }

    /// Counts a request, whether or not the limit admits it. Of a GCRA limit at most the whole burst counts.
    pub fn count(&mut self, rate: &Rate, now: Moment) {
        match self {
            Self::Gcra { arrival, interval } => {
                let most = now.0.saturating_add(interval.saturating_mul(rate.burst.into()));
                *arrival = (*arrival).max(now.0).saturating_add(*interval).min(most);
            }
            Self::Window(window) => window.add(now.0, 1),
        }
    }

    /// The requests that count at `now`, with their age, latest first. Each is at least as young as it is said to be; so is
    /// what a GCRA limit has counted, of which only the sum is known.
    #[must_use]
    pub fn history(&self, now: Moment) -> Vec<(Duration, u32)> {
        match self {
            Self::Gcra { arrival, interval } => {
                let used = arrival.saturating_sub(now.0).div_ceil((*interval).max(1));
                let used = u32::try_from(used).unwrap_or(u32::MAX);
                Vec::from_iter((used > 0).then_some((Duration::ZERO, used)))
            }
            Self::Window(window) => window.history(now.0),
        }
    }

    /// True if the state has no effect any more: it can be replaced by [`LimitState::fresh`].
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        match self {
            Self::Gcra { arrival, .. } => *arrival <= now.0,
            Self::Window(window) => window.total_at(now.0) == 0,
        }
    }

    /// Appends the state with times relative to `now`, since [`Moment`] has another origin in the next process.
    pub fn save(&self, now: Moment, out: &mut Vec<u8>) {
        match self {
            Self::Gcra { arrival, interval } => {
                out.push(0);
                out.extend_from_slice(&arrival.saturating_sub(now.0).to_le_bytes());
                out.extend_from_slice(&interval.to_le_bytes());
            }
            Self::Window(window) => {
                out.push(1);
                window.save(now.0, out);
            }
        }
    }

    /// Reads a state that [`LimitState::save`] wrote `elapsed` ago. `None` if the bytes are not a state.
    pub fn restore(bytes: &mut &[u8], elapsed: Duration, now: Moment) -> Option<Self> {
        let elapsed = nanos(elapsed);
        match take_array::<1>(bytes)? {
            [0] => {
                let ahead = u64::from_le_bytes(take_array(bytes)?).saturating_sub(elapsed);
                let interval = u64::from_le_bytes(take_array(bytes)?).max(1);
                Some(Self::Gcra { arrival: now.0.saturating_add(ahead), interval })
            }
            [1] => Window::restore(bytes, elapsed, now.0).map(|window| Self::Window(Box::new(window))),
            _ => None,
        }
    }
}
