//! Limits as they are configured, and what they say of a request.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::window::BUCKETS;
use crate::policy::route::{Methods, glob_matches};
use crate::types::{NameId, nanos};

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
    pub(super) interval: u64,
    /// Length of one of the window's sixty parts in nanoseconds, rounded up.
    pub(super) bucket: u64,
    /// What `RateLimit-Policy` says.
    pub(super) policy: Box<str>,
}

impl Numbers {
    /// For a limit of this name, with `requests` (at least 1) per `window`.
    #[must_use]
    pub fn of(name: &str, requests: u32, window: Duration) -> Self {
        Self {
            interval: nanos(window).div_ceil(u64::from(requests.max(1))).max(1),
            bucket: nanos(window).div_ceil(BUCKETS).max(1),
            policy: policy(name, requests, window),
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
    /// What [`super::State::take`] writes.
    pub(super) next: u64,
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

/// The `RateLimit-Policy` of a limit (draft-ietf-httpapi-ratelimit-headers-10).
fn policy(name: &str, requests: u32, window: Duration) -> Box<str> {
    let window = window.as_secs() + u64::from(window.subsec_nanos() > 0);
    format!("\"{name}\";q={requests};w={window}").into()
}
