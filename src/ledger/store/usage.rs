//! Defines what is stored about the usage of accounts, keys and routes.

use crate::policy::outcome::usage::Durations;
use crate::types::{AccountId, Credits, KeyId, RequestId, WallTime};

/// Milliseconds of a minute, the shortest interval of usage.
pub const MINUTE: i64 = 60_000;

/// The lengths of intervals, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageStep {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl UsageStep {
    /// The length in minutes.
    #[must_use]
    pub const fn minutes(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 1440,
        }
    }
}

/// Until when usage is kept in intervals of each length: times in minutes since the Unix epoch. Older rows are added up
/// in longer intervals, and at last deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRetention {
    /// Minutes before this are added up in hours. A multiple of 60.
    pub minutes: i64,
    /// Hours before this are added up in days. A multiple of 1440.
    pub hours: i64,
    /// Days before this are deleted.
    pub days: i64,
}

/// Which usage to read.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// Only this account; `None` for all, and requests of none.
    pub account: Option<AccountId>,
    /// Only this key.
    pub key: Option<KeyId>,
    /// Only this route.
    pub route: Option<String>,
    /// From this minute on, since the Unix epoch.
    pub from: i64,
    /// Before this minute.
    pub to: i64,
}

/// Usage of one account, key, route and outcome in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The start of the interval, in minutes since the Unix epoch.
    pub at: i64,
    /// The account; `None` for requests without a key that works.
    pub account: Option<AccountId>,
    /// The key.
    pub key: Option<KeyId>,
    /// The route's name.
    pub route: Option<String>,
    /// The outcome: a class of status, a reason, `in_doubt` or `given_back`.
    pub outcome: String,
    /// Number of requests.
    pub requests: u64,
    /// The credits that were charged, less those given back.
    pub credits: Credits,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Durations of the requests.
    pub durations: Durations,
}

/// A refused request of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRow {
    /// The number of the row, which grows.
    pub number: u64,
    /// When it was refused.
    pub at: WallTime,
    /// The request's id.
    pub id: RequestId,
    /// The key.
    pub key: Option<KeyId>,
    /// The route's name.
    pub route: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// The name of the limit that refused it.
    pub limit: Option<String>,
}

/// Most refusals that are kept for an account.
pub const MAX_REFUSALS: u32 = 1_000;
