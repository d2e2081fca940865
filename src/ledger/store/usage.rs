//! Defines what is stored about the usage of accounts, keys and routes.

use crate::policy::outcome::usage::Durations;
use crate::types::{AccountId, Credits, KeyId, RequestId, WallTime};

/// Milliseconds of a minute, the shortest interval of usage.
pub const MINUTE: i64 = 60_000;

/// The lengths of intervals, in minutes. Each moment is counted in an interval of each length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageStep {
    /// A minute.
    #[default]
    Minute,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl UsageStep {
    /// All lengths, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The length in minutes.
    #[must_use]
    pub const fn minutes(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 1440,
        }
    }

    /// The start of the interval that a minute is in.
    #[must_use]
    pub const fn floor(self, at: i64) -> i64 {
        at.div_euclid(self.minutes()) * self.minutes()
    }

    /// The start of the first interval that does not begin before a minute.
    #[must_use]
    pub const fn ceil(self, at: i64) -> i64 {
        self.floor(at + self.minutes() - 1)
    }

    const fn shorter(self) -> Option<Self> {
        match self {
            Self::Minute => None,
            Self::Hour => Some(Self::Minute),
            Self::Day => Some(Self::Hour),
        }
    }
}

/// From when on there are intervals of each length: times in minutes since the Unix epoch. Older ones are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageRetention {
    /// From here on there are minutes. A multiple of 60.
    pub minutes: i64,
    /// From here on there are hours. A multiple of 1440.
    pub hours: i64,
    /// From here on there are days.
    pub days: i64,
}

/// What rows tell apart, besides time and outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageDetail {
    /// Account, key and route.
    #[default]
    Each,
    /// Only the route. Account and key may be left out.
    Routes,
    /// Nothing: account, key and route may be left out.
    Sums,
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
    /// The longest intervals that rows may have.
    pub longest: UsageStep,
    /// What must be told apart.
    pub detail: UsageDetail,
}

/// Intervals of one length, in minutes since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRange {
    /// Their length.
    pub step: UsageStep,
    /// The start of the first one.
    pub from: i64,
    /// The end of the last one.
    pub to: i64,
}

impl UsageFilter {
    /// The fewest intervals that together are the range of the filter, at most [`Self::longest`] where shorter ones are
    /// kept. An interval that is kept only as a whole belongs to it if its middle does, so that ranges that follow one
    /// another share none.
    #[must_use]
    pub fn ranges(&self, kept: &UsageRetention) -> Vec<UsageRange> {
        let shortest = |at: i64| match at {
            at if at < kept.hours => UsageStep::Day,
            at if at < kept.minutes => UsageStep::Hour,
            _ => UsageStep::Minute,
        };
        let near = |at: i64| shortest(at).floor(at + shortest(at).minutes() / 2);
        let (from, to) = (near(self.from), near(self.to));
        let mut ranges = Vec::new();
        let hours = kept.hours.max(from).min(to);
        let minutes = kept.minutes.max(hours).min(to);
        split(UsageRange { step: UsageStep::Day, from, to: hours }, UsageStep::Day, &mut ranges);
        let longest = self.longest.max(UsageStep::Hour);
        split(UsageRange { step: longest, from: hours, to: minutes }, UsageStep::Hour, &mut ranges);
        split(UsageRange { step: self.longest, from: minutes, to }, UsageStep::Minute, &mut ranges);
        ranges
    }
}

/// Splits a range in whole intervals of its length, and shorter ones before and after.
fn split(range: UsageRange, shortest: UsageStep, ranges: &mut Vec<UsageRange>) {
    let UsageRange { step, from, to } = range;
    if from >= to {
        return;
    }
    let Some(shorter) = step.shorter().filter(|_| step > shortest) else {
        return ranges.push(range);
    };
    let first = step.ceil(from).min(to);
    let last = step.floor(to).max(first);
    split(UsageRange { step: shorter, from, to: first }, shortest, ranges);
    if first < last {
        ranges.push(UsageRange { step, from: first, to: last });
    }
    split(UsageRange { step: shorter, from: last, to }, shortest, ranges);
}

/// Usage of one account, key, route and outcome in one interval, or of several (see [`UsageDetail`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The start of the interval, in minutes since the Unix epoch.
    pub at: i64,
    /// The account; `None` for requests without a key that works, and in sums.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = UsageStep> {
        proptest::sample::select(UsageStep::ALL.to_vec())
    }

    proptest! {
            /// The ranges follow one another without a gap, are of kept intervals, and as long as they may be.
            #[test]
            fn ranges_are_whole(from in 0_i64..6_000, length in 1_i64..6_000, longest in step(), hours in 0_i64..4, minutes in 0_i64..80) {
                let kept = UsageRetention { hours: hours * 1440, minutes: (minutes * 60).max(hours * 1440), days: 0 };
                let to = from + length;
                let ranges = UsageFilter { from, to, longest, ..UsageFilter::default() }.ranges(&kept);
                prop_assert!(ranges.windows(2).all(|pair| pair[0].to == pair[1].from));
                let shortest = |at: i64| match at {
                    at if at < kept.hours => UsageStep::Day,
                    at if at < kept.minutes => UsageStep::Hour,
                    _ => UsageStep::Minute,
                };
                if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
                    for (end, wanted) in [(first.from, from), (last.to, to)] {
                        prop_assert!((end - wanted).abs() <= shortest(wanted).minutes() / 2);
                    }
                }
                for range in &ranges {
                    let UsageRange { step, from, to } = *range;
                    prop_assert!(from < to && step.floor(from) == from && step.floor(to) == to);
    let shortest = shortest(from);
                    prop_assert!(step >= shortest && step <= longest.max(shortest));
                }
                let count = |step: UsageStep| ranges.iter().filter(|range| range.step == step).count();
                prop_assert!(ranges.len() <= 9 && count(UsageStep::Day) <= 3);
            }
        }
}
