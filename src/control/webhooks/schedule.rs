//! Decides what follows an attempt to deliver a message.

use std::time::Duration;

use crate::ledger::store::AfterAttempt;
use crate::types::WallTime;

/// Times between attempts, as Standard Webhooks recommends: about three days in all.
const WAITS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];
/// Longest time that an endpoint can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What an endpoint answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// The status; `None` if there was no answer.
    pub(super) status: Option<u16>,
    /// The time that the endpoint asks to wait.
    pub(super) retry_after: Option<Duration>,
}

/// What follows an attempt. `before`: attempts before this one. `jitter`: from 0 to 1; waits are up to a tenth longer.
pub(super) fn after(answer: Answer, before: u32, jitter: f64, now: WallTime) -> AfterAttempt {
    match answer.status {
        Some(200..=299) => return AfterAttempt::Delivered,
        Some(410) => return AfterAttempt::Disable,
        _ => {}
    }
    let Some(wait) = usize::try_from(before).ok().and_then(|before| WAITS.get(before)) else {
        return AfterAttempt::GiveUp;
    };
    let asked = answer.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let wait = wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0).max(asked);
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    AfterAttempt::Retry(WallTime(now.0.saturating_add(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: Option<u64>) -> Answer {
        Answer { status: Some(status), retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn only_2xx_is_delivered_and_only_410_disables() {
        for status in 100..=599 {
            let then = after(answered(status, None), 0, 0.0, WallTime(0));
            match status {
                200..=299 => assert_eq!(then, AfterAttempt::Delivered),
                410 => assert_eq!(then, AfterAttempt::Disable),
                _ => assert_eq!(then, AfterAttempt::Retry(WallTime(5_000)), "{status}"),
            }
        }
    }

    #[test]
    fn a_message_is_tried_ten_times_in_three_days() {
        let none = Answer { status: None, retry_after: None };
        let (mut now, mut attempts) = (WallTime(0), 1);
        while let AfterAttempt::Retry(next) = after(none, attempts - 1, 0.0, now) {
            (now, attempts) = (next, attempts + 1);
        }
        assert_eq!(attempts, 10);
        assert_eq!(now.0 / 3_600_000, 75);
    }

    #[test]
    fn an_endpoint_may_ask_for_more_time_but_not_for_less() {
        let wait = |asked, jitter| after(answered(503, Some(asked)), 1, jitter, WallTime(0));
        assert_eq!(wait(1, 0.0), AfterAttempt::Retry(WallTime(300_000)));
        assert_eq!(wait(1, 1.0), AfterAttempt::Retry(WallTime(330_000)));
        assert_eq!(wait(3_600, 0.0), AfterAttempt::Retry(WallTime(3_600_000)));
        assert_eq!(wait(u64::MAX, 0.0), AfterAttempt::Retry(WallTime(86_400_000)));
    }
}
