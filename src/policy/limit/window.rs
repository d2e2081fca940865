//! Counts requests in a strict sliding window, which consists of sixty past parts and the current one.
//!
//! These 61 parts cover at least one whole window, wherever it begins, so no window contains more requests than
//! the limit. They cover at most 61/60 of a window, so a request is refused only if a window that is a sixtieth
//! longer would refuse it too. A window needs 260 bytes; limits without a sliding window need none of them.

use std::time::Duration;

use super::definition::LimitStatus;

/// Number of parts of a window.
pub const BUCKETS: u64 = 60;
const SLOTS: usize = 61;

/// Request counts of the parts of a window, in a ring buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    bucket: u64,
    newest: u64,
    counts: [u32; SLOTS],
}

impl Window {
    pub(super) fn new(bucket: u64) -> Self {
        Self { bucket: bucket.max(1), newest: 0, counts: [0; SLOTS] }
    }

    pub(super) fn bucket(&self) -> u64 {
        self.bucket
    }

    #[expect(clippy::cast_possible_truncation, reason = "below 61")]
    fn slot(index: u64) -> usize {
        (index % SLOTS as u64) as usize
    }

    /// Clears the counts of the parts that are more than a window old.
    pub(super) fn roll(&mut self, now: u64) {
        let current = now / self.bucket;
        if current <= self.newest {
            return;
        }
        let gone = (current - self.newest).min(SLOTS as u64);
        for index in current - gone + 1..=current {
            self.counts[Self::slot(index)] = 0;
        }
        self.newest = current;
    }

    pub(super) fn add(&mut self, now: u64, count: u32) {
        self.roll(now);
        let slot = &mut self.counts[Self::slot(self.newest)];
        *slot = slot.saturating_add(count);
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    pub(super) fn total_at(&self, now: u64) -> u64 {
        self.parts()
            .filter(|(index, _)| now / self.bucket <= index + BUCKETS)
            .map(|(_, n)| u64::from(n))
            .sum()
    }

    /// Index and count of each part with requests, oldest first.
    fn parts(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let oldest = self.newest.saturating_sub(BUCKETS);
        (oldest..=self.newest)
            .map(|index| (index, self.counts[Self::slot(index)]))
            .filter(|(_, count)| *count > 0)
    }

    /// The time from which the part with this index is no longer counted, in nanoseconds of [`crate::types::Moment`].
    fn expiry(&self, index: u64) -> u64 {
        (index + SLOTS as u64).saturating_mul(self.bucket)
    }

    pub(super) fn peek(&self, limit: u32, now: u64) -> LimitStatus {
        let (limit, total) = (u64::from(limit), self.total());
        let until = |moment: u64| Duration::from_nanos(moment.saturating_sub(now));
        if total < limit {
            let remaining = u32::try_from(limit - total - 1).unwrap_or(u32::MAX);
            let after = until(self.expiry((now / self.bucket).max(self.newest)));
            return LimitStatus { admitted: true, remaining, after, next: 0 };
        }
        let mut surplus = total - limit + 1;
        let mut free_at = now;
        for (index, count) in self.parts() {
            free_at = self.expiry(index);
            surplus = surplus.saturating_sub(u64::from(count));
            if surplus == 0 {
                break;
            }
        }
        LimitStatus { admitted: false, remaining: 0, after: until(free_at), next: 0 }
    }

    /// Converts the counts to parts of another length. Each request counts at the latest time at which it can
    /// have been made.
    pub(super) fn with_bucket(&self, bucket: u64, now: u64) -> Self {
        let mut other = Self::new(bucket);
        for (index, count) in self.parts() {
            let last = (index + 1).saturating_mul(self.bucket) - 1;
            other.add(last.min(now), count);
        }
        other.roll(now);
        other
    }

    /// The requests that count at `now`, with the least age that they may have, latest first.
    pub(super) fn history(&self, now: u64) -> Vec<(Duration, u32)> {
        let counts = |(index, _): &(u64, u32)| now / self.bucket <= index + BUCKETS;
        let age = |(index, count): (u64, u32)| {
            let last = (index + 1).saturating_mul(self.bucket) - 1;
            (Duration::from_nanos(now.saturating_sub(last)), count)
        };
        let mut history: Vec<_> = self.parts().filter(counts).map(age).collect();
        history.reverse();
        history
    }

    pub(super) fn save(&self, now: u64, out: &mut Vec<u8>) {
        let parts: Vec<(u64, u32)> = self.parts().collect();
        out.extend_from_slice(&self.bucket.to_le_bytes());
        out.push(u8::try_from(parts.len()).unwrap_or(u8::MAX)); // at most 61
        for (index, count) in parts {
            let last = (index + 1).saturating_mul(self.bucket) - 1;
            out.extend_from_slice(&now.saturating_sub(last).to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    pub(super) fn restore(bytes: &mut &[u8], elapsed: u64, now: u64) -> Option<Self> {
        let mut window = Self::new(u64::from_le_bytes(take_array(bytes)?));
        let [parts] = take_array(bytes)?;
        for _ in 0..parts {
            let age = u64::from_le_bytes(take_array(bytes)?).saturating_add(elapsed);
            let count = u32::from_le_bytes(take_array(bytes)?);
            if age <= now && age < window.bucket.saturating_mul(SLOTS as u64) {
                window.add(now - age, count);
            }
        }
        window.roll(now);
        Some(window)
    }
}

/// Removes the first `N` bytes and returns them; `None` if there are fewer.
pub fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}
