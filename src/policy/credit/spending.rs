//! Limits on what a key or an account may spend, in all or in each period. Periods are those of the calendar in UTC.

use jiff::tz::TimeZone;

use super::refill::{Calendar, Every};
use crate::types::{Credits, WallTime};

/// A Monday, so that weeks begin on Mondays, and the first day of a month and of a year otherwise.
const MONDAY: WallTime = WallTime(4 * 86_400_000);

/// The most that may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// The credits.
    pub credits: Credits,
    /// In each period of this length; `None`: in all.
    pub every: Option<Every>,
}

impl SpendLimit {
    /// The start of the period that contains a time; `None` if the limit has no periods.
    #[must_use]
    pub fn period(&self, now: WallTime) -> Option<WallTime> {
        let every = self.every?;
        let anchor = if every == Every::Week { MONDAY } else { WallTime(0) };
        let calendar = Calendar { every, zone: TimeZone::UTC };
        calendar.period(anchor, now).map(|period| period.start)
    }

    /// The latest start of a period that is believed: a period after now. A later one comes from a clock that was wrong.
    #[must_use]
    pub fn latest(&self, now: WallTime) -> WallTime {
        WallTime(now.0.saturating_add(self.every.map_or(i64::MAX, Every::length)))
    }
}

/// What was spent, and the limit on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// The limit; `None` for none.
    pub limit: Option<SpendLimit>,
    /// What was spent in all.
    pub spent: Credits,
    /// What of it was spent before the limit's period began; zero without a period.
    pub before: Credits,
    /// When the limit's period began; `None` without a period.
    pub period: Option<WallTime>,
}

impl Spending {
    /// Sets the limit. What was spent counts against it, but for a limit with other periods than before, only what is spent
    /// from now on.
    pub fn set_limit(&mut self, limit: Option<SpendLimit>, now: WallTime) {
        let every = |limit: &Option<SpendLimit>| limit.and_then(|limit| limit.every);
        if every(&self.limit) != every(&limit) {
            self.period = limit.and_then(|limit| limit.period(now));
            self.before = if self.period.is_some() { self.spent } else { Credits::ZERO };
        }
        self.limit = limit;
    }

    /// What counts against the limit.
    #[must_use]
    pub fn counted(&self) -> Credits {
        self.spent.checked_sub(self.before).unwrap_or_default()
    }

    /// What the limit leaves, which is negative if it was lowered below what was spent; `None` without a limit.
    #[must_use]
    pub fn left(&self) -> Option<Credits> {
        self.limit.map(|limit| limit.credits.checked_sub(self.counted()).unwrap_or_default())
    }

    /// True if another period has begun. A clock that was set back begins none, unless it was wrong by more than a period.
    #[must_use]
    pub fn is_over(&self, now: WallTime) -> bool {
        let (Some(limit), Some(began)) = (self.limit, self.period) else { return false };
        limit.period(now).is_some_and(|start| start > began) || began > limit.latest(now)
    }

    /// Begins a period. Returns by how much the limit now leaves more.
    pub fn begin(&mut self, now: WallTime) -> Credits {
        let more = self.counted();
        self.period = self.limit.and_then(|limit| limit.period(now));
        self.before = self.spent;
        more
    }
}
