//! What the pages of an account show: its balance, and its usage of the last days, read at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{UsageReport, UsageView};
use crate::control::Control;
use crate::control::operations::accounts::AccountView;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::Result;
use crate::control::operations::keys::KeyView;
use crate::ledger::store::{BooksReader, MINUTE, UsageDetail, UsageFilter, UsageRow, UsageStep};
use crate::policy::outcome::usage::Durations;
use crate::types::{AccountId, Credits, KeyId, WallTime};

/// Days that are shown.
const DAYS: i64 = 30;
/// Hours of a day.
const HOURS: i64 = 24;

/// The requests of a time, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaySums {
    /// Those that the API answered with a status below 400.
    pub ok: u64,
    /// Those that a limit refused.
    pub limited: u64,
    /// Those that were refused for another reason.
    pub denied: u64,
    /// Those that failed: the API answered with a status from 400 on, or not at all.
    pub failed: u64,
    /// Their credits in millionths, less what was given back.
    pub millionths: i64,
}

/// The requests with each key on each of the last 30 days, the oldest first.
pub type KeyDays = BTreeMap<KeyId, Vec<DaySums>>;

/// An account and its usage at one moment.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The account.
    pub account: AccountView,
    /// The moment.
    pub at: WallTime,
    /// The usage of the last 24 hours, of which the current one is the last.
    pub day: DaySums,
    /// 95 % of the requests of the last 24 hours took at most this long; `None` if there were none.
    pub p95: Option<Duration>,
    /// The usage of the 24 hours before.
    pub day_before: DaySums,
    /// The usage of each of the last 30 days in UTC, with the day as its number since the Unix epoch, the oldest first.
    pub days: Vec<(i64, DaySums)>,
    /// The newest keys.
    pub keys: Vec<KeyView>,
}

impl DaySums {
    /// The number of requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.ok + self.limited + self.denied + self.failed
    }

    /// The requests that were answered without an error, of all, in percent; `None` if there were none.
    #[must_use]
    pub fn success(&self) -> Option<f64> {
        let all = self.requests();
        #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
        (all > 0).then(|| self.ok as f64 * 100.0 / all as f64)
    }

    /// The credits.
    #[must_use]
    pub fn credits(&self) -> Credits {
        Credits::from_millionths(self.millionths)
    }

    /// The sums of a row of a report.
    #[must_use]
    pub fn of(row: &UsageView) -> Self {
        let mut sums = Self { millionths: row.credits.millionths(), ..Self::default() };
        row.outcomes.iter().for_each(|(outcome, requests)| sums.add(outcome, *requests));
        sums
    }

    /// The sums of all rows of a report.
    #[must_use]
    pub fn total(report: &UsageReport) -> Self {
        let mut total = Self::default();
        for row in report.data.iter().map(Self::of) {
            total.ok += row.ok;
            total.limited += row.limited;
            total.denied += row.denied;
            total.failed += row.failed;
            total.millionths = total.millionths.saturating_add(row.millionths);
        }
        total
    }

    /// Adds requests with an outcome: the class of a status, or the reason of a refusal.
    fn add(&mut self, outcome: &str, requests: u64) {
        match outcome {
            "1xx" | "2xx" | "3xx" | "answered" | "replayed" => self.ok += requests,
            "rate_limited" | "concurrency_limited" => self.limited += requests,
            "4xx"
            | "5xx"
            | "none"
            | "cut"
            | "key_ended"
            | "in_doubt"
            | "upstream_unreachable"
            | "upstream_timeout"
            | "overloaded"
            | "client_gone" => {
                self.failed += requests;
            }
            _ => self.denied += requests,
        }
    }

    fn add_row(&mut self, row: &UsageRow) {
        self.add(&row.outcome, row.requests);
        self.millionths = self.millionths.saturating_add(row.credits.millionths());
    }
}

impl Summary {
    /// For how many days the available credits last, if they are used as in the last seven days; `None` if none were.
    #[must_use]
    pub fn days_left(&self) -> Option<i64> {
        let week: Vec<i64> = self.days.iter().rev().take(7).map(|(_, day)| day.millionths).collect();
        let days = week.iter().rposition(|used| *used > 0)? + 1; // since the first use
        let used: i64 = week.iter().sum();
        let available = self.account.available.millionths().max(0);
        (used > 0).then(|| available.saturating_mul(i64::try_from(days).unwrap_or(7)) / used)
    }
}

/// The usage of an account in hours or days, the last of which is not over.
fn sums(
    reader: &mut dyn BooksReader,
    account: &AccountId,
    key: Option<KeyId>,
    (step, number): (UsageStep, i64),
    now: i64,
    each: &mut dyn FnMut(usize, &UsageRow),
) -> Result<()> {
    let from = step.floor(now) - (number - 1) * step.minutes();
    let to = step.floor(now) + step.minutes();
    let detail = UsageDetail::Sums;
    let filter =
        UsageFilter { account: Some(account.clone()), key, route: None, from, to, longest: step, detail };
    let mut add = |row: UsageRow| {
        if let Ok(at) = usize::try_from((row.at - from).div_euclid(step.minutes())) {
            each(at, &row);
        }
    };
    Ok(reader.usage(&filter, &mut add)?)
}

fn days(
    reader: &mut dyn BooksReader,
    account: &AccountId,
    key: Option<KeyId>,
    now: i64,
) -> Result<Vec<DaySums>> {
    let mut days = vec![DaySums::default(); usize::try_from(DAYS).unwrap_or_default()];
    sums(reader, account, key, (UsageStep::Day, DAYS), now, &mut |at, row| {
        days.get_mut(at).into_iter().for_each(|day| day.add_row(row));
    })?;
    Ok(days)
}

impl Control {
    /// An account, its usage and its newest keys, at most `keys`, at one moment.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn summary(&self, caller: &Caller, id: AccountId, keys: usize) -> Result<Summary> {
        caller.may_in(Permission::ReadAccounts, &id)?;
        let (describe, at) = (self.describer(), self.clock.wall());
        self.read_page(move |reader: &mut dyn BooksReader| {
            let row = reader.account(&id)?.ok_or_else(|| id.clone())?;
            let now = at.0.div_euclid(MINUTE);
            let (mut day, mut day_before, mut durations) = Default::default();
            let last_day = usize::try_from(HOURS).unwrap_or_default();
            sums(reader, &id, None, (UsageStep::Hour, 2 * HOURS), now, &mut |hour, row| {
                let sums: &mut DaySums = if hour < last_day { &mut day_before } else { &mut day };
                sums.add_row(row);
                if hour >= last_day {
                    Durations::merge(&mut durations, &row.durations);
                }
            })?;
            let first_day = UsageStep::Day.floor(now) / UsageStep::Day.minutes() - DAYS + 1;
            let days = (first_day..).zip(days(reader, &id, None, now)?).collect();
            let keys = reader.newest_keys(&id, None, keys)?;
            Ok(Summary {
                account: describe.account(&row),
                at,
                day,
                p95: durations.quantile(950),
                day_before,
                days,
                keys: keys.iter().map(|(row, owner)| describe.key(row, owner)).collect(),
            })
        })
        .await
    }

    /// The requests with keys of an account on each of the last 30 days.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn key_days(&self, caller: &Caller, account: AccountId, keys: Vec<KeyId>) -> Result<KeyDays> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let now = self.clock.wall().0.div_euclid(MINUTE);
        self.read_page(move |reader: &mut dyn BooksReader| {
            keys.into_iter().map(|key| Ok((key, days(reader, &account, Some(key), now)?))).collect()
        })
        .await
    }
}
