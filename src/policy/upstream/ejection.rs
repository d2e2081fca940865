//! Decides when a server that fails is left out, and how fast it is used again.

use std::time::Duration;

/// When servers are left out because requests to them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row after which a server is left out; 0: their number does not matter.
    pub failures: u32,
    /// The share of failed requests of the last seconds from which on a server is left out, in percent; `None`: it does
    /// not matter.
    pub rate: Option<u32>,
    /// How long a server is left out.
    pub time: Duration,
    /// The largest share of servers that may be left out at the same time, in percent.
    pub at_most: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, rate: None, time: Duration::from_secs(30), at_most: 50 }
    }
}

/// Fewest requests from which a rate of failures is computed.
pub const LEAST_REQUESTS: u64 = 20;

/// A full share of a server, in thousandths.
const FULL: u64 = 1000;
/// The share of a server that begins to be used again, in thousandths.
const FIRST: u64 = 100;

impl Ejection {
    /// True if one more of `servers` may be left out, of which `out` are.
    #[must_use]
    pub fn allows(&self, out: usize, servers: usize) -> bool {
        (out + 1).saturating_mul(100) <= servers.saturating_mul(self.at_most as usize)
    }

    /// True if so many of the last requests failed that a server is left out.
    #[must_use]
    pub fn is_rate_exceeded(&self, requests: u64, failed: u64) -> bool {
        let exceeds = |rate: u32| failed.saturating_mul(100) >= requests.saturating_mul(u64::from(rate));
        requests >= LEAST_REQUESTS && self.rate.is_some_and(exceeds)
    }
}

/// The weight of a server that was available again `since` a time ago, in thousandths of its configured weight. It grows
/// evenly within `slow_start`.
#[must_use]
pub fn ramped(weight: u32, since: Option<Duration>, slow_start: Duration) -> u64 {
    let share = match since {
        Some(since) if since < slow_start => {
            let share = since.as_millis() * u128::from(FULL) / slow_start.as_millis().max(1);
            u64::try_from(share).unwrap_or(FULL).clamp(FIRST, FULL)
        }
        _ => FULL,
    };
    u64::from(weight) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_share_of_servers_is_left_out() {
        let half = Ejection::default();
        let most = |servers: usize| (0..=servers).take_while(|out| half.allows(*out, servers)).count();
        let found: Vec<usize> = (0..=6).map(most).collect();
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3]);
        assert!(Ejection { at_most: 100, ..half }.allows(0, 1));
    }

    #[test]
    fn a_rate_needs_enough_requests() {
        let half = Ejection { rate: Some(50), ..Ejection::default() };
        for (requests, failed, exceeds) in [(19, 19, false), (20, 9, false), (20, 10, true), (20, 20, true)] {
            assert_eq!(half.is_rate_exceeded(requests, failed), exceeds, "{failed} of {requests}");
        }
        assert!(!Ejection::default().is_rate_exceeded(100, 100));
    }

    #[test]
    fn a_server_gets_its_share_step_by_step() {
        let ten = Duration::from_secs(10);
        for (millis, share) in
            [(0, 100), (500, 100), (5_000, 500), (9_999, 999), (10_000, 1000), (99_999, 1000)]
        {
            assert_eq!(ramped(3, Some(Duration::from_millis(millis)), ten), 3 * share, "{millis} ms");
        }
        assert_eq!(ramped(3, None, ten), 3000);
        assert_eq!(ramped(3, Some(Duration::ZERO), Duration::ZERO), 3000);
    }
}
