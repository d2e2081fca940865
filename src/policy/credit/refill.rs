//! Computes when a plan's refill is due for an account, and what it adds.
//!
//! Periods are counted from an anchor day in a time zone, so that a month that begins on the 31st begins on the last day
//! of shorter months, and on the 31st again after them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::{MAX_BALANCE, Wallet};
use crate::types::{BucketName, Credits, WallTime};

/// Milliseconds in an hour.
const HOUR: i64 = 3_600_000;

/// The beginning of the references of refills.
pub const REFERENCE: &str = "refill ";

/// How often an account is refilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Every hour since the start of the anchor day.
    Hour,
    /// At the start of each day.
    Day,
    /// At the start of each day that is the anchor's day of the week.
    Week,
    /// At the start of each day that is the anchor's day of the month, or of the last day of a shorter month.
    Month,
    /// At the start of each day that is the anchor's day of the year; in years without it, of February 28.
    Year,
}

impl Every {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The usual length, in milliseconds.
    pub(super) const fn length(self) -> i64 {
        match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 30 * 24 * HOUR + 10 * HOUR,
            Self::Year => 365 * 24 * HOUR + 6 * HOUR,
        }
    }

    fn span(self, number: i64) -> Option<Span> {
        let span = Span::new();
        match self {
            Self::Hour | Self::Day => span.try_days(number).ok(),
            Self::Week => span.try_weeks(number).ok(),
            Self::Month => span.try_months(number).ok(),
            Self::Year => span.try_years(number).ok(),
        }
    }
}

/// A calendar of periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The length of a period.
    pub every: Every,
    /// The time zone in which days begin.
    pub zone: TimeZone,
}

/// A period of a [`Calendar`]: from `start`, and before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Number of periods since the one that begins on the anchor day.
    pub number: i64,
    /// The first moment.
    pub start: WallTime,
    /// The first moment of the next period.
    pub end: WallTime,
}

impl Calendar {
    /// The period that contains a time. `anchor`: any time of the anchor day. `None` if a time is beyond the calendar, the
    /// year 9999.
    #[must_use]
    pub fn period(&self, anchor: WallTime, now: WallTime) -> Option<Period> {
        let anchor = Timestamp::from_millisecond(anchor.0).ok()?.to_zoned(self.zone.clone()).date();
        let first = self.start(anchor, 0)?;
        let mut number = now.0.saturating_sub(first.0).div_euclid(self.every.length());
        while self.start(anchor, number)? > now {
            number -= 1;
        }
        loop {
            let (start, end) = (self.start(anchor, number)?, self.start(anchor, number + 1)?);
            if now < end {
                return Some(Period { number, start, end });
            }
            number += 1;
        }
    }

    fn start(&self, anchor: Date, number: i64) -> Option<WallTime> {
        let (days, hours) = if self.every == Every::Hour { (0, number) } else { (number, 0) };
        let day = anchor.checked_add(self.every.span(days)?).ok()?;
        let start = day.to_zoned(self.zone.clone()).ok()?.timestamp().as_millisecond();
        Some(WallTime(start.checked_add(hours.checked_mul(HOUR)?)?))
    }
}

/// What a refill does with what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What earlier refills left expires, except this much, which rolls over.
    Reset {
        /// The most that rolls over.
        rollover: Credits,
    },
    /// Adds to what is left.
    Add {
        /// The most that the bucket has after it; `None` for no limit.
        cap: Option<Credits>,
    },
}

/// Credits that the accounts on a plan get again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The credits.
    pub credits: Credits,
    /// When.
    pub calendar: Calendar,
    /// What happens to what is left.
    pub mode: Mode,
    /// The bucket that gets them.
    pub bucket: BucketName,
}

impl Refill {
    /// True if the refill ends this lot when it is due.
    #[must_use]
    pub fn ends(&self, lot: &super::Lot) -> bool {
        matches!(self.mode, Mode::Reset { .. })
            && lot.of_refill
            && lot.ended.is_none()
            && lot.bucket == self.bucket
    }

    /// The credits to grant. `periods`: how many began since the last refill, never 0. `left`: what the lots that it ends
    /// have left, besides what holds in flight need.
    #[must_use]
    pub fn grant(&self, periods: u64, left: Credits, wallet: &Wallet) -> Credits {
        let sum = |one: Credits, other: Credits| {
            one.checked_add(other).map_or(MAX_BALANCE, |sum| sum.min(MAX_BALANCE))
        };
        match self.mode {
            Mode::Reset { rollover } => {
                let mut rolled = left.min(rollover);
                for _ in 1..periods {
                    let next = sum(self.credits, rolled).min(rollover);
                    if next == rolled {
                        break;
                    }
                    rolled = next;
                }
                sum(self.credits, rolled)
            }
            Mode::Add { cap } => {
                let all = i128::from(self.credits.millionths()) * i128::from(periods);
                let all = i64::try_from(all).map_or(MAX_BALANCE, Credits::from_millionths).min(MAX_BALANCE);
                let room = cap.map(|cap| cap.checked_sub(wallet.left_in(&self.bucket)).unwrap_or_default());
                room.map_or(all, |room| all.min(room)).max(Credits::ZERO)
            }
        }
    }

    /// The reference of the refill of a plan in a period, which makes it unique: with the period's first day in the time zone,
    /// which stays the same in another zone.
    #[must_use]
    pub fn reference(&self, plan: &str, period: &Period) -> String {
        let name = self.calendar.every.name();
        let start = Timestamp::from_millisecond(period.start.0).unwrap_or_default();
        let day = start.to_zoned(self.calendar.zone.clone()).date();
        match self.calendar.every {
            Every::Hour => format!("{REFERENCE}{plan} {name} {}", period.start),
            _ => format!("{REFERENCE}{plan} {name} {day}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn calendar(every: Every, zone: &str) -> Calendar {
        Calendar { every, zone: TimeZone::get(zone).unwrap() }
    }

    fn at(zone: &TimeZone, day: Date, hour: i8) -> WallTime {
        WallTime(day.at(hour, 30, 0, 0).to_zoned(zone.clone()).unwrap().timestamp().as_millisecond())
    }

    /// The first moment of a day, found second by second of a day's hours before noon.
    fn midnight(zone: &TimeZone, day: Date) -> WallTime {
        let noon = at(zone, day, 12).0 / 1_000;
        let is_of_day =
            |second: &i64| Timestamp::from_second(*second).unwrap().to_zoned(zone.clone()).date() == day;
        let first = (noon - 15 * 3_600..=noon).find(is_of_day).unwrap();
        WallTime(first * 1_000)
    }

    /// True if a period begins on this day, according to the words of [`Every`].
    fn begins(every: Every, anchor: Date, day: Date) -> bool {
        let last_of_month = day.days_in_month();
        match every {
            Every::Hour | Every::Day => true,
            Every::Week => anchor.weekday() == day.weekday(),
            Every::Month => day.day() == anchor.day().min(last_of_month),
            Every::Year => day.month() == anchor.month() && day.day() == anchor.day().min(last_of_month),
        }
    }

    const ZONES: [&str; 7] = [
        "UTC",
        "Europe/Paris",
        "America/New_York",
        "America/Sao_Paulo",   // the clock changed at midnight until 2019
        "Australia/Lord_Howe", // by half an hour
        "Asia/Kathmandu",
        "Pacific/Apia", // had no December 30 in 2011
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        /// The model walks over the days one by one.
        #[test]
        fn periods_begin_on_the_anchors_day(
            zone in prop::sample::select(&ZONES[..]),
            every in prop::sample::select(vec![Every::Day, Every::Week, Every::Month, Every::Year]),
            (anchor, day) in (0..3_650_i32, -400..4_000_i32),
            hour in 0..24_i8,
        ) {
            let first = date(2012, 1, 1);
            let anchor = first.checked_add(Span::new().days(anchor)).unwrap();
            let day = anchor.checked_add(Span::new().days(day)).unwrap();
            let calendar = calendar(every, zone);
            let zone = &calendar.zone;
            let mut start = day;
            if at(zone, day, hour) < midnight(zone, day) {
                start = start.yesterday().unwrap();
            }
            while !begins(every, anchor, start) {
                start = start.yesterday().unwrap();
            }
            let mut end = day.tomorrow().unwrap();
            while !begins(every, anchor, end) {
                end = end.tomorrow().unwrap();
            }
            let now = at(zone, day, hour);
            let period = calendar.period(at(zone, anchor, 12), now).unwrap();
            prop_assert_eq!((period.start, period.end), (midnight(zone, start), midnight(zone, end)));
            let next = calendar.period(at(zone, anchor, 12), period.end).unwrap();
            prop_assert_eq!((next.number, next.start), (period.number + 1, period.end));
        }

        #[test]
        fn hours_have_an_hour(zone in prop::sample::select(&ZONES[..]), hours in -9_000..90_000_i64, rest in 0..HOUR) {
            let calendar = calendar(Every::Hour, zone);
            let anchor = midnight(&calendar.zone, date(2020, 2, 29));
            let period = calendar.period(anchor, WallTime(anchor.0 + hours * HOUR + rest)).unwrap();
            prop_assert_eq!(period.number, hours);
            prop_assert_eq!(period.start.0, anchor.0 + hours * HOUR);
            prop_assert_eq!(period.end.0, period.start.0 + HOUR);
        }

        /// The model refills once for each period.
        #[test]
        fn several_missed_refills_are_like_one_after_the_other(
            credits in 1..50_i64, left in 0..80_i64, periods in 1..9_u64, rollover in 0..60_i64, cap in prop::option::of(0..300_i64),
        ) {
            let amount = Credits::from_millionths;
            let refill = |mode| Refill { credits: amount(credits), calendar: calendar(Every::Month, "UTC"), mode, bucket: BucketName::default() };
            let mut pot = left;
            for _ in 0..periods {
                pot = credits + pot.min(rollover);
            }
            let reset = refill(Mode::Reset { rollover: amount(rollover) });
            prop_assert_eq!(reset.grant(periods, amount(left), &Wallet::default()), amount(pot));
            let mut pot = left;
            for _ in 0..periods {
                pot = cap.map_or(pot + credits, |cap| (pot + credits).min(cap).max(pot));
            }
            let wallet = Wallet { rest: amount(left), ..Wallet::default() };
            let add = refill(Mode::Add { cap: cap.map(amount) });
            prop_assert_eq!(add.grant(periods, Credits::ZERO, &wallet), amount(pot - left));
        }
    }

    #[test]
    fn the_last_days_of_months_stay_anchors() {
        let calendar = calendar(Every::Month, "Europe/Paris");
        let anchor = at(&calendar.zone, date(2027, 10, 31), 9);
        let mut now = anchor;
        let starts: Vec<String> = (0..6)
            .map(|_| {
                let period = calendar.period(anchor, now).unwrap();
                now = period.end;
                period.start.to_string()
            })
            .collect();
        let expected = [
            "2027-10-30T22:00:00Z",
            "2027-11-29T23:00:00Z",
            "2027-12-30T23:00:00Z",
            "2028-01-30T23:00:00Z",
            "2028-02-28T23:00:00Z",
            "2028-03-30T22:00:00Z",
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn times_beyond_the_calendar_have_no_period() {
        let calendar = calendar(Every::Year, "UTC");
        assert_eq!(calendar.period(WallTime(0), WallTime(i64::MAX)), None);
        assert_eq!(calendar.period(WallTime(i64::MIN), WallTime(0)), None);
    }
}
