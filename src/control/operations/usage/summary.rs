//! What the pages of an account show: its balance, and its usage of the last days, read at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{UsageReport, UsageView};
use crate::control::Control;
use crate::control::operations::accounts::AccountView;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::Result;
use crate::control::operations::keys::KeyView;
use crate::ledger::store::{BooksReader, MINUTE, UsageFilter, UsageRow};
use crate::policy::outcome::usage::Durations;
use crate::types::{AccountId, Credits, KeyId, KeyNum, WallTime};

/// Minutes of a day.
const DAY: i64 = 24 * 60;
/// Days that are shown.
const DAYS: i64 = 30;

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

/// The number of requests with a key on each of the last 30 days, and how many of them failed or were refused.
pub type KeyDays = BTreeMap<KeyId, Vec<(u64, u64)>>;

/// An account and its usage at one moment.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The account.
    pub account: AccountView,
    /// The moment.
    pub at: WallTime,
    /// The usage of the last 24 hours.
    pub day: DaySums,
    /// 95 % of the requests of the last 24 hours took at most this long; `None` if there were none.
    pub p95: Option<Duration>,
    /// The usage of the 24 hours before.
    pub day_before: DaySums,
    /// The usage of each of the last 30 days in UTC, with the day as its number since the Unix epoch, the oldest first.
    pub days: Vec<(i64, DaySums)>,
    /// The first keys of the page.
    pub keys: Vec<KeyView>,
    /// Where the next page of keys begins.
    pub next_key: Option<KeyNum>,
    /// What each key was used.
    pub key_days: KeyDays,
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
            "1xx" | "2xx" | "3xx" | "answered" => self.ok += requests,
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

/// What is summed up in one pass over the rows.
struct Pass {
    now: i64,
    first_day: i64,
    day: DaySums,
    durations: Durations,
    before: DaySums,
    days: Vec<DaySums>,
    keys: KeyDays,
}

impl Pass {
    fn new(now: i64) -> Self {
        let days = usize::try_from(DAYS).unwrap_or_default();
        Self {
            now,
            first_day: now.div_euclid(DAY) - DAYS + 1,
            day: DaySums::default(),
            durations: Durations::default(),
            before: DaySums::default(),
            days: vec![DaySums::default(); days],
            keys: KeyDays::new(),
        }
    }

    fn add(&mut self, row: &UsageRow) {
        let age = self.now - row.at;
        if age < DAY {
            self.day.add_row(row);
            self.durations.merge(&row.durations);
        } else if age < 2 * DAY {
            self.before.add_row(row);
        }
        let Ok(at) = usize::try_from(row.at.div_euclid(DAY) - self.first_day) else { return };
        let Some(day) = self.days.get_mut(at) else { return };
        day.add_row(row);
        if let Some(key) = row.key {
            let length = self.days.len();
            let days = self.keys.entry(key).or_insert_with(|| vec![(0, 0); length]);
            if let Some((requests, failed)) = days.get_mut(at) {
                let mut sums = DaySums::default();
                sums.add_row(row);
                *requests += row.requests;
                *failed += row.requests - sums.ok;
            }
        }
    }
}

impl Control {
    /// An account, its usage and a page of its keys, at one moment. `after`: where the page of keys begins; `keys`: how many
    /// there are on it.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn summary(
        &self,
        caller: &Caller,
        id: AccountId,
        after: Option<KeyNum>,
        keys: usize,
    ) -> Result<Summary> {
        caller.may_in(Permission::ReadAccounts, &id)?;
        let (describe, at) = (self.describer(), self.clock.wall());
        let reader = self.page_reader().await?;
        let (after, most) = (after.unwrap_or(KeyNum(0)), keys);
        crate::control::operations::aside(reader, move |reader: &mut dyn BooksReader| {
            let row = reader.account(&id)?.ok_or_else(|| id.clone())?;
            let now = at.0.div_euclid(MINUTE);
            let mut pass = Pass::new(now);
            let filter = UsageFilter {
                account: Some(id.clone()),
                key: None,
                route: None,
                from: pass.first_day * DAY,
                to: now + 1,
            };
            reader.usage(&filter, &mut |row| pass.add(&row))?;
            let mut rows = reader.keys(Some(&id), after, most + 1)?;
            let has_more = rows.len() > most;
            rows.truncate(most);
            let next_key = rows.last().filter(|_| has_more).map(|(row, _)| row.num);
            let Pass { first_day, day, durations, before, days, keys, .. } = pass;
            Ok(Summary {
                account: describe.account(&row),
                at,
                day,
                p95: durations.quantile(950),
                day_before: before,
                days: (first_day..).zip(days).collect(),
                keys: rows.iter().map(|(row, owner)| describe.key(row, owner)).collect(),
                next_key,
                key_days: keys,
            })
        })
        .await
    }
}
