//! Counts values in buckets, from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of buckets of durations that clients notice, in nanoseconds: from 0.5 ms to 60 s.
pub const LONG: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];
/// Upper bounds of buckets of durations within the gateway, in nanoseconds: from 10 µs to 1 s.
pub const SHORT: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
];
/// Upper bounds of buckets of sizes: from 1 to 4096.
pub const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];

/// Counts values in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The counts of histograms with the same buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramCounts {
    /// The upper bounds of the buckets.
    pub bounds: &'static [u64],
    /// The counts of the buckets, and of larger values.
    pub counts: Vec<u64>,
    /// The sum of the values.
    pub sum: u64,
}

impl Histogram {
    /// A histogram with these upper bounds of its buckets, in ascending order.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn add(&self, value: u64) {
        let bucket = self.bounds.iter().position(|&bound| value <= bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a duration, in nanoseconds.
    pub fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> HistogramCounts {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        HistogramCounts { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl HistogramCounts {
    /// No values.
    #[must_use]
    pub fn none(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// Adds the counts of another histogram with the same buckets.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_in_the_first_bucket_that_has_them() {
        let histogram = Histogram::new(&[1, 4]);
        [0, 1, 2, 4, 5, 100].into_iter().for_each(|value| histogram.add(value));
        let mut counts = histogram.counts();
        assert_eq!((&counts.counts[..], counts.sum), (&[2, 2, 2][..], 112));
        counts.merge(&histogram.counts());
        assert_eq!((&counts.counts[..], counts.sum), (&[4, 4, 4][..], 224));
        assert_eq!(HistogramCounts::none(SIZES).counts.len(), SIZES.len() + 1);
    }
}
