//! The budget of retries of one upstream: a share of its requests of the last seconds, so that retries do not add to an
//! overload.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Retries that are allowed in each second whatever the number of requests is.
const LEAST_RETRIES: u64 = 10;
/// How many seconds of requests count.
const WINDOW: usize = 10;

/// The retries that are allowed until the next [`RetryBudget::tick`].
#[derive(Debug)]
pub struct RetryBudget {
    left: AtomicU64,
    /// How many requests had been started at each of the last ticks, the oldest first.
    started: Mutex<Vec<u64>>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { left: AtomicU64::new(LEAST_RETRIES), started: Mutex::default() }
    }
}

impl RetryBudget {
    /// Takes one retry of the budget; false if it is used up.
    pub fn take(&self) -> bool {
        let next = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Renews the budget for the next second. `started`: the requests that were started so far. `percent`: the share of
    /// them that may be retried.
    pub fn tick(&self, started: u64, percent: u32) {
        let mut known = self.started.lock();
        if known.len() > WINDOW {
            known.remove(0);
        }
        known.push(started);
        let seconds = known.len().saturating_sub(1).max(1) as u64;
        let recent = started.saturating_sub(known.first().copied().unwrap_or(started)) / seconds;
        self.left.store(LEAST_RETRIES + recent * u64::from(percent) / 100, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_recent_requests() {
        let budget = RetryBudget::default();
        let taken = || std::iter::repeat_with(|| budget.take()).take_while(|taken| *taken).count() as u64;
        assert_eq!(taken(), LEAST_RETRIES);
        for second in 0..=30 {
            budget.tick(second * 1000, 20);
        }
        assert_eq!(taken(), LEAST_RETRIES + 200);
        for _ in 0..=WINDOW {
            budget.tick(30_000, 20);
        }
        assert_eq!(taken(), LEAST_RETRIES, "the requests are long ago");
    }
}
