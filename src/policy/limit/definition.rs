//! Defines configured limits, and the result of checking a request against one.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::window::BUCKETS;
use crate::policy::route::{Methods, glob_matches};
use crate::types::{NameId, nanos};

/// Longest window: with it, no computation in nanoseconds comes near an overflow.
pub const MAX_WINDOW: Duration = Duration::from_secs(400 * 24 * 3600);
/// Shortest window: a sixtieth of a shorter one could not be measured.
pub const MIN_WINDOW: Duration = Duration::from_millis(1);

/// The algorithm of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The generic cell rate algorithm (ITU-T I.371): admits at most burst + elapsed/window × requests in any
    /// span of length `elapsed`.
    Gcra,
    /// Admits at most `requests` in any span of length `window`. May count requests up to a sixtieth of the
    /// window longer than necessary.
    SlidingWindow,
}

/// The requests that a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All requests with one key.
    Key,
    /// All requests with one key to one route.
    KeyRoute,
    /// All requests with any key of one account.
    Account,
    /// All requests from one client address.
    Address,
}

/// What happens to a request while the store does not answer in which a fleet counts a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// Each gateway admits its part of the limit.
    #[default]
    LocalShare,
    /// It is admitted.
    Open,
    /// It is refused.
    Closed,
}

/// A configured limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name in headers, logs and `explain`.
    pub name: Arc<str>,
    /// The id by which the states of the limit are found. It depends only on the name, and on the route for a
    /// limit of a route, so that it stays the same across reloads.
    pub id: NameId,
    /// Requests per window; at least 1.
    pub requests: u32,
    /// Length of the window, from [`MIN_WINDOW`] to [`MAX_WINDOW`].
    pub window: Duration,
    /// For GCRA: number of requests that are admitted at the same moment; at least 1.
    pub burst: u32,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The requests that are counted together.
    pub scope: Scope,
    /// Name patterns of the routes that the limit applies to; empty for all routes.
    pub routes: Vec<String>,
    /// Name patterns of the routes that the limit does not apply to.
    pub except: Vec<String>,
    /// The methods that the limit applies to.
    pub methods: Methods,
    /// True if it refuses no request, but counts those that it would refuse.
    pub shadow: bool,
    /// True for a limit of a key that applies together with those of the plan, not in their place.
    pub adds: bool,
    /// What happens while the fleet's store does not answer; `None` for what is set for all limits.
    pub outage: Option<Outage>,
    /// Values derived from the other fields.
    pub numbers: Numbers,
}

/// The limit that refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachedLimit {
    /// Its name.
    pub name: Arc<str>,
    /// The length of its window.
    pub window: Duration,
}

/// Values derived from the definition of a limit, computed once instead of for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Nanoseconds of the window per request, rounded up so that a limit never admits too many requests.
    pub(super) interval: u64,
    /// Length of each of the sixty parts of the window in nanoseconds, rounded up.
    pub(super) bucket: u64,
    /// The entry of this limit in `RateLimit-Policy`.
    pub(super) policy: Box<str>,
}

impl Numbers {
    /// Computes the values for a limit of this name, with `requests` (at least 1) per `window`.
    #[must_use]
    pub fn of(name: &str, requests: u32, window: Duration) -> Self {
        Self {
            interval: nanos(window).div_ceil(u64::from(requests.max(1))).max(1),
            bucket: nanos(window).div_ceil(BUCKETS).max(1),
            policy: policy(name, requests, window),
        }
    }
}

/// How many requests a limit admits: what its states are counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Requests per window; at least 1.
    pub requests: u32,
    /// For GCRA: number of requests that are admitted at the same moment; at least 1.
    pub burst: u32,
    /// Nanoseconds of the window per request.
    pub interval: u64,
    /// Length of each of the sixty parts of the window in nanoseconds.
    pub bucket: u64,
}

impl Rate {
    /// One of so many equal parts, but at least one request.
    #[must_use]
    pub fn part(self, parts: u32) -> Self {
        let parts = parts.max(1);
        Self {
            requests: (self.requests / parts).max(1),
            burst: (self.burst / parts).max(1),
            interval: self.interval.saturating_mul(parts.into()),
            ..self
        }
    }

    /// Most requests that count at the same time.
    #[must_use]
    pub fn most(&self) -> u32 {
        match self.algorithm {
            Algorithm::Gcra => self.burst,
            Algorithm::SlidingWindow => self.requests,
        }
    }
}

impl Limit {
    /// How many requests it admits.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let Self { algorithm, requests, burst, ref numbers, .. } = *self;
        Rate { algorithm, requests, burst, interval: numbers.interval, bucket: numbers.bucket }
    }

    /// What a request that this limit refuses has reached.
    #[must_use]
    pub fn reached(&self) -> ReachedLimit {
        ReachedLimit { name: Arc::clone(&self.name), window: self.window }
    }

    /// True if the limit applies to requests to `route` with `method`.
    #[must_use]
    pub fn covers(&self, route: &str, method: &Method) -> bool {
        let listed = |list: &[String]| list.iter().any(|pattern| glob_matches(pattern, route));
        self.methods.admit(method)
            && (self.routes.is_empty() || listed(&self.routes))
            && !listed(&self.except)
    }
}

/// The result of checking the next request against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    /// True if the limit admits the request.
    pub admitted: bool,
    /// Number of requests left; does not include this request if it is admitted.
    pub remaining: u32,
    /// If refused: the time until a request would be admitted. If admitted: the time until the whole quota is
    /// available again.
    pub after: Duration,
    /// The theoretical arrival time that [`super::LimitState::take`] stores (GCRA only).
    pub(super) next: u64,
}

impl LimitStatus {
    /// A request is admitted although nobody knows how many are left.
    pub const OPEN: Self = Self { admitted: true, remaining: 0, after: Duration::ZERO, next: 0 };

    /// The result for a request that this limit did not count because another limit refused it: one more is left.
    #[must_use]
    pub fn not_taken(self) -> Self {
        let remaining = self.remaining.saturating_add(u32::from(self.admitted));
        Self { remaining, ..self }
    }

    /// [`LimitStatus::after`] in whole seconds, rounded up.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.after.as_secs() + u64::from(self.after.subsec_nanos() > 0)
    }
}

/// The entry of a limit in `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
fn policy(name: &str, requests: u32, window: Duration) -> Box<str> {
    let window = window.as_secs() + u64::from(window.subsec_nanos() > 0);
    format!("\"{name}\";q={requests};w={window}").into()
}
