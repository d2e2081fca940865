//! Rate limits: GCRA by the governor crate, and a strict sliding window.
//!
//! A limit's definition and its state are apart. The state belongs to a key, an account or an
//! address and outlives every definition: it describes itself, so that a limit whose numbers
//! changed takes the new ones with what was already used still counted.

mod gcra;
pub mod headers;
mod window;

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::route::{Methods, glob_matches};
use crate::types::{Moment, NameId, nanos};
pub use window::BUCKETS;
use window::Window;

/// Longest window, so that all arithmetic in nanoseconds stays far from its bounds.
pub const MAX_WINDOW: Duration = Duration::from_secs(400 * 24 * 3600);
/// Shortest window: below this a sixtieth of it is no longer measurable.
pub const MIN_WINDOW: Duration = Duration::from_millis(1);

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// At most burst + elapsed/window × requests (the generic cell rate algorithm, ITU-T I.371).
    Gcra,
    /// At most `requests` in any span of `window`, to a sixtieth of it.
    SlidingWindow,
}

/// Whose requests a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one key.
    Key,
    /// Those of one key on one route.
    KeyRoute,
    /// Those of all keys of an account.
    Account,
    /// Those from one client address.
    Address,
}

/// A limit as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Stands in headers, logs and `explain`.
    pub name: Arc<str>,
    /// What its states are found by: the same name (on the same route, if it is a route's limit)
    /// keeps its id across reloads.
    pub id: NameId,
    /// Requests per window; at least 1.
    pub requests: u32,
    /// From [`MIN_WINDOW`] to [`MAX_WINDOW`].
    pub window: Duration,
    /// For GCRA: how many may come at once; at least 1.
    pub burst: u32,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Whose requests it counts.
    pub scope: Scope,
    /// Route names it is narrowed to; empty for all.
    pub routes: Vec<String>,
    /// Route names it leaves out.
    pub except: Vec<String>,
    /// Methods it is narrowed to.
    pub methods: Methods,
    /// What follows from the above, for requests.
    pub numbers: Numbers,
}

/// What a limit's numbers come to, worked out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Nanoseconds that one request uses up, rounded up so that the bound holds exactly.
    interval: u64,
    /// Length of one of the window's sixty parts in nanoseconds, rounded up.
    bucket: u64,
    /// What `RateLimit-Policy` says.
    policy: Box<str>,
}

impl Numbers {
    /// For a limit of this name, with `requests` (at least 1) per `window`.
    #[must_use]
    pub fn of(name: &str, requests: u32, window: Duration) -> Self {
        Self {
            interval: nanos(window).div_ceil(u64::from(requests.max(1))).max(1),
            bucket: nanos(window).div_ceil(BUCKETS).max(1),
            policy: headers::policy(name, requests, window),
        }
    }
}

impl Limit {
    /// Whether a request to `route` with `method` counts.
    #[must_use]
    pub fn covers(&self, route: &str, method: &Method) -> bool {
        let listed = |list: &[String]| list.iter().any(|pattern| glob_matches(pattern, route));
        self.methods.admit(method)
            && (self.routes.is_empty() || listed(&self.routes))
            && !listed(&self.except)
    }
}

/// What a limit says about the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may pass.
    pub admitted: bool,
    /// Requests left: after this one if it was admitted.
    pub remaining: u32,
    /// Where refused: how long until a request would be admitted. Where admitted: until all of
    /// the quota is there again.
    pub after: Duration,
    /// What [`State::take`] writes.
    next: u64,
}

impl Standing {
    /// The same for a limit that would have admitted a request which another one refused.
    #[must_use]
    pub fn untaken(self) -> Self {
        let remaining = self.remaining.saturating_add(u32::from(self.admitted));
        Self { remaining, ..self }
    }

    /// [`Standing::after`] in whole seconds, never too early.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.after.as_secs() + u64::from(self.after.subsec_nanos() > 0)
    }
}

/// What is remembered of a limit's past: 16 bytes, and for a window its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The theoretical arrival time, and the interval it was counted with.
    Gcra {
        /// When the bucket is full again, in nanoseconds of [`Moment`].
        arrival: u64,
        /// Nanoseconds per request.
        interval: u64,
    },
    /// Counts of the last sixty parts of the window.
    Window(Box<Window>),
}

impl State {
    /// The state of a limit that nobody used yet.
    #[must_use]
    pub fn fresh(limit: &Limit) -> Self {
        match limit.algorithm {
            Algorithm::Gcra => Self::Gcra { arrival: 0, interval: limit.numbers.interval },
            Algorithm::SlidingWindow => Self::Window(Box::new(Window::new(limit.numbers.bucket))),
        }
    }

    /// Brings the state up to `now` and to the limit's present numbers. Counts what was used.
    pub fn adapt(&mut self, limit: &Limit, now: Moment) {
        let (interval, bucket) = (limit.numbers.interval, limit.numbers.bucket);
        match (&mut *self, limit.algorithm) {
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

    /// What the limit says, without taking anything. The state must have been adapted to `now`.
    #[must_use]
    pub fn peek(&self, limit: &Limit, now: Moment) -> Standing {
        match self {
            Self::Gcra { arrival, interval } => gcra::peek(*arrival, *interval, limit.burst, now.0),
            Self::Window(window) => window.peek(limit.requests, now.0),
        }
    }

    /// Counts the request that `standing` admitted.
    pub fn take(&mut self, standing: &Standing, now: Moment) {
        match self {
            Self::Gcra { arrival, .. } => *arrival = standing.next,
            Self::Window(window) => window.add(now.0, 1),
        }
    }

    /// Whether forgetting this state would change nothing.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        match self {
            Self::Gcra { arrival, .. } => *arrival <= now.0,
            Self::Window(window) => window.total_at(now.0) == 0,
        }
    }

    /// Writes the state relative to `now`, for a process with another origin of time.
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

    /// Reads what [`State::save`] wrote `elapsed` ago. `None` where the bytes are not a state.
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

/// Splits the first `N` bytes off.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests;
