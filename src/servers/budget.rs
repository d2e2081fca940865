//! The budget of retries of one upstream: a share of its requests of the last seconds, so that retries do not add to an
//! overload.

use std::sync::atomic::{AtomicU64, Ordering};

/// Retries that are allowed in each second whatever the number of requests is.
const LEAST_RETRIES: u64 = 10;

/// The retries that are allowed until the next [`RetryBudget::renew`].
#[derive(Debug)]
pub struct RetryBudget(AtomicU64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU64::new(LEAST_RETRIES))
    }
}

impl RetryBudget {
    /// Takes one retry of the budget; false if it is used up.
    pub fn take(&self) -> bool {
        let next = |left: u64| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Renews the budget for the next second. `requests`: how many there were per second. `percent`: the share of them
    /// that may be retried.
    pub fn renew(&self, requests: u64, percent: u32) {
        self.0.store(LEAST_RETRIES + requests * u64::from(percent) / 100, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = RetryBudget::default();
        let taken = || std::iter::repeat_with(|| budget.take()).take_while(|taken| *taken).count() as u64;
        assert_eq!(taken(), LEAST_RETRIES);
        budget.renew(1000, 20);
        assert_eq!(taken(), LEAST_RETRIES + 200);
        budget.renew(0, 20);
        budget.renew(0, 20);
        assert_eq!(taken(), LEAST_RETRIES, "what is left does not add up");
    }
}
