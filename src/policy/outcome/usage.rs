//! Counts what requests used: by account, key, route and outcome.
//!
//! Requests that held credits are counted from the entries of the ledger, so that their number and their credits equal
//! the books, also after a crash. The workers count the others, and bytes and durations of all.

use std::time::Duration;

use super::Outcome;
use crate::policy::limit::ReachedLimit;
use crate::policy::reject::Reason;
use crate::types::{AccountNum, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// Buckets per doubling of a duration. A quantile is at most a fifth too high.
const PER_DOUBLING: u32 = 4;
/// The upper bound of the first bucket is 2^FIRST microseconds: 64 µs.
const FIRST: u32 = 6;
/// Number of buckets: the last one has all durations above 2^26 µs, 67 s.
const BUCKETS: usize = 81;

/// The outcome of a request as it is counted: the class of the upstream's status, or the name of what else happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageOutcome(u8);

impl UsageOutcome {
    /// The outcome of a request. `status`: the status of its response.
    #[must_use]
    pub fn of(outcome: Outcome, status: u16) -> Self {
        let index = match outcome {
            Outcome::Proxied => Outcome::COUNT + usize::from(StatusClass::of_status(status).code()),
            other => other.index(),
        };
        Self(u8::try_from(index).unwrap_or(u8::MAX))
    }

    /// The name in the ledger and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        let index = usize::from(self.0);
        if let Some(code) = index.checked_sub(Outcome::COUNT) {
            let class = u8::try_from(code).ok().and_then(StatusClass::of_code);
            return class.unwrap_or_default().name();
        }
        Outcome::all().nth(index).map_or("", Outcome::code)
    }
}

/// What usage is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// The account; number 0 if the request had no key that works.
    pub account: AccountNum,
    /// The key; number 0 if the request had none that works.
    pub key: KeyNum,
    /// The route; number 0 if there was none.
    pub route: RouteNum,
    /// The outcome.
    pub outcome: UsageOutcome,
}

/// What the requests of one [`UsageKey`] used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageCount {
    /// Number of requests that held no credits. The entries of the ledger have the others.
    pub requests: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Durations, from the end of the request head to the end of the response.
    pub durations: Durations,
}

impl UsageCount {
    /// Adds the counts of other requests.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.durations.merge(&other.durations);
    }

    /// Adds a request.
    pub fn add(&mut self, held: bool, bytes_in: u64, bytes_out: u64, duration: Duration) {
        self.requests += u64::from(!held);
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
        self.durations.add(duration);
    }
}

/// A refused request, for the list of an account's refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// When it was refused.
    pub at: WallTime,
    /// The request's id.
    pub id: RequestId,
    /// The account.
    pub account: AccountNum,
    /// The key.
    pub key: KeyNum,
    /// The route; number 0 if there was none.
    pub route: RouteNum,
    /// Why it was refused.
    pub reason: Reason,
    /// The limit that refused it.
    pub limit: Option<ReachedLimit>,
}

/// What one worker counted in about a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePart {
    /// When the counting ended.
    pub at: WallTime,
    /// The counts.
    pub counts: Vec<(UsageKey, UsageCount)>,
    /// Refusals of accounts.
    pub refusals: Vec<RefusedRequest>,
}

/// A histogram of durations, whose buckets grow by a quarter of a doubling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations(Box<[u32; BUCKETS]>);

impl Default for Durations {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Durations {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.0[bucket(micros)];
        *count = count.saturating_add(1);
    }

    /// Adds the durations of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0.iter()) {
            *count = count.saturating_add(*more);
        }
    }

    /// Number of durations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&count| u64::from(count)).sum()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The duration that this many of a thousand durations do not exceed: the upper bound of its bucket. `None` if there
    /// are none.
    #[must_use]
    pub fn quantile(&self, per_mille: u32) -> Option<Duration> {
        let wanted = (self.len() * u64::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.0.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        });
        found.map(|bucket| Duration::from_micros(upper(bucket)))
    }

    /// The buckets that are not empty, as pairs of bucket and count: a byte, and a count of four bytes each.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = (0_u8..).zip(self.0.iter()).filter(|(_, count)| **count > 0);
        used.flat_map(|(bucket, count)| [&[bucket][..], &count.to_le_bytes()].concat()).collect()
    }

    /// Reads what [`Durations::to_bytes`] wrote; `None` for other bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pairs, rest) = bytes.as_chunks::<5>();
        let mut durations = Self::default();
        for &[bucket, a, b, c, d] in pairs {
            *durations.0.get_mut(usize::from(bucket))? = u32::from_le_bytes([a, b, c, d]);
        }
        rest.is_empty().then_some(durations)
    }
}

/// The bucket of a duration in microseconds.
fn bucket(micros: u64) -> usize {
    let Some(above) = micros.checked_sub(1 << FIRST) else { return 0 };
    let base = above + (1 << FIRST);
    let doubling = base.ilog2() - FIRST;
    let part = (base >> (base.ilog2() - PER_DOUBLING.ilog2())) & u64::from(PER_DOUBLING - 1);
    let bucket = 1 + doubling * PER_DOUBLING + u32::try_from(part).unwrap_or(0);
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The upper bound of a bucket in microseconds.
fn upper(bucket: usize) -> u64 {
    let Some(bucket) = bucket.checked_sub(1) else { return 1 << FIRST };
    let (doubling, part) = (bucket / PER_DOUBLING as usize, bucket % PER_DOUBLING as usize);
    let base = 1_u64 << (FIRST as usize + doubling);
    base + base / u64::from(PER_DOUBLING) * (part as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reject::Reason;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_quarter_too_high(mut micros in prop::collection::vec(0_u64..60_000_000, 1..200), per_mille in 1_u32..=1000) {
            let mut durations = Durations::default();
            micros.iter().for_each(|&micros| durations.add(Duration::from_micros(micros)));
            micros.sort_unstable();
            let wanted = (micros.len() * per_mille as usize).div_ceil(1000).max(1);
            let exact = micros[wanted - 1];
            let found = u64::try_from(durations.quantile(per_mille).unwrap().as_micros()).unwrap();
            prop_assert!(found >= exact && found <= (exact + exact / 4 + 1).max(64), "{} for {}", found, exact);
            prop_assert_eq!(Durations::from_bytes(&durations.to_bytes()), Some(durations));
        }

        #[test]
        fn merged_histograms_have_the_durations_of_both(one in prop::collection::vec(0_u64..1_000_000, 0..50), two in prop::collection::vec(0_u64..1_000_000, 0..50)) {
            let of = |list: &[u64]| {
                let mut durations = Durations::default();
                list.iter().for_each(|&micros| durations.add(Duration::from_micros(micros)));
                durations
            };
            let mut merged = of(&one);
            merged.merge(&of(&two));
            prop_assert_eq!(merged, of(&[one, two].concat()));
        }
    }

    #[test]
    fn outcomes_have_the_names_of_the_ledger_and_of_refusals() {
        let name = |outcome, status| UsageOutcome::of(outcome, status).name();
        assert_eq!((name(Outcome::Proxied, 204), name(Outcome::Proxied, 404)), ("2xx", "4xx"));
        assert_eq!(name(Outcome::Refused(Reason::RateLimited), 429), "rate_limited");
        assert_eq!(name(Outcome::ClientGone, 499), "client_gone");
        assert_eq!(Durations::default().quantile(500), None);
        assert_eq!(Durations::from_bytes(&[1, 2]), None);
    }
}
