//! Decides about automatic top-ups: how much may be paid in a month, and when a payment is tried again.

use std::time::Duration;

use super::SpendLimit;
use super::refill::Every;
use crate::types::{Credits, WallTime};

/// Time until an answer that did not come is asked for again: first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Longest time of a payment that is under way, such as a direct debit.
const MAX_PROCESSING: Duration = Duration::from_secs(30 * 24 * 3600);
/// Time until a card that was refused is tried again.
const AFTER_REFUSAL: Duration = Duration::from_secs(24 * 3600);
/// Time until a month that has no room is looked at again: another may have begun.
const WHILE_FULL: Duration = Duration::from_secs(3600);
/// How often a card may be refused in succession until an account is not topped up any more.
pub const MAX_REFUSALS: u32 = 3;
/// How long an answer that did not come is asked for. The payment service knows a repeated payment for a day.
const MAX_UNKNOWN: Duration = Duration::from_secs(20 * 3600);

/// What was paid in a month, in the smallest unit of money. Months are those of the calendar in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MonthSum {
    /// When the month began.
    pub month: WallTime,
    /// What was paid.
    pub paid: u64,
}

fn after(now: WallTime, time: Duration) -> WallTime {
    WallTime(now.0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

/// The start of the month.
fn month(now: WallTime) -> WallTime {
    let limit = SpendLimit { credits: Credits::ZERO, every: Some(Every::Month) };
    limit.period(now).unwrap_or_default()
}

impl MonthSum {
    /// What was paid in this month.
    #[must_use]
    pub fn at(self, now: WallTime) -> Self {
        let month = month(now);
        // A clock that was set back begins no month anew.
        if month > self.month { Self { month, paid: 0 } } else { self }
    }

    /// Adds a payment.
    #[must_use]
    pub fn plus(self, price: u64, now: WallTime) -> Self {
        let sum = self.at(now);
        Self { paid: sum.paid.saturating_add(price), ..sum }
    }

    /// True if a price may be paid too.
    #[must_use]
    pub fn has_room(self, price: u64, most: u64, now: WallTime) -> bool {
        self.at(now).paid.saturating_add(price) <= most
    }
}

/// When to ask again for an answer that did not come; `None` if it is not asked for any more. `tries`: how often it was asked
/// for.
#[must_use]
pub fn ask_again(since: WallTime, tries: u32, now: WallTime) -> Option<WallTime> {
    let (first, most) = RETRY;
    let wait = first.saturating_mul(1 << tries.min(16)).min(most);
    (now < after(since, MAX_UNKNOWN)).then(|| after(now, wait))
}

/// When a card that was refused is tried again.
#[must_use]
pub fn after_refusal(now: WallTime) -> WallTime {
    after(now, AFTER_REFUSAL)
}

/// When a payment that is under way has failed if no message came.
#[must_use]
pub fn latest_message(now: WallTime) -> WallTime {
    after(now, MAX_PROCESSING)
}

/// When to look again whether a month has room for a payment.
#[must_use]
pub fn after_full_month(now: WallTime) -> WallTime {
    after(now, WHILE_FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WallTime {
        WallTime(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn a_month_has_room_for_so_much() {
        let now = at("2028-02-29T23:59:59Z");
        let sum = MonthSum::default().plus(700, now);
        assert!(sum.has_room(300, 1000, now) && !sum.has_room(301, 1000, now));
        assert!(sum.has_room(1000, 1000, at("2028-03-01T00:00:00Z")));
        assert!(!sum.has_room(1000, 1000, at("2028-01-31T00:00:00Z")), "the clock was set back");
        assert_eq!(sum.plus(1, at("2028-03-01T00:00:00Z")).paid, 1);
        assert!(!MonthSum { paid: u64::MAX, ..sum }.has_room(1, u64::MAX - 1, now));
    }

    #[test]
    fn answers_are_asked_for_less_and_less_often() {
        let (start, mut now, mut tries) = (at("2028-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"), 0);
        while let Some(next) = ask_again(start, tries, now) {
            assert!((30_000..=3_600_000).contains(&(next.0 - now.0)), "{tries}");
            (now, tries) = (next, tries + 1);
        }
        assert!((now.0 - start.0) / 3_600_000 < 22 && tries < 40, "{tries} in {} ms", now.0 - start.0);
    }
}
