//! Defines the plain values that all modules share: identities, credits, outcomes and points in time.
//!
//! Nothing here blocks, logs or reads a clock.

mod credits;
mod histogram;
mod ids;
mod money;
mod number_map;
mod outcome;
mod repeats;
mod request_id;
pub mod seal;
mod trace_context;

pub use credits::{Credits, CreditsError, CreditsText};
pub use histogram::{Histogram, HistogramCounts, LONG, SHORT, SIZES};
pub use ids::{
    AccountId, AccountNum, BucketName, GroupName, IdError, KeyHash, KeyId, KeyNum, NameId, RouteName,
    RouteNum, Secret,
};
pub use money::{Currency, Money};
pub use number_map::{NumberHasher, NumberMap};
pub use outcome::StatusClass;
pub use request_id::{ProxyMark, RequestId, RequestIdStart, RequestIdText};
pub use trace_context::{TraceContext, TraceParent};

pub use repeats::Repeats;

use std::time::Duration;

/// A point of monotonic time: nanoseconds since an arbitrary origin, about two years before the process began.
///
/// Starts high enough that moments before the process began can be expressed. Never decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `later` after this one; saturates about 580 years after the process began.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }

    /// Time that passed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds, saturating at 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wall time: milliseconds since the Unix epoch. For messages, files and expiry dates; never for limits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The time `later` after this one; saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl std::fmt::Display for WallTime {
    /// Writes RFC 3339 in UTC. A time outside the calendar's range is written as its milliseconds.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => at.fmt(out),
            Err(_) => self.0.fmt(out),
        }
    }
}
