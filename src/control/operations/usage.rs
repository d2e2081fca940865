//! Reports usage: requests by outcome, credits, bytes and durations, by time, account, key and route; and the refusals of
//! an account.

mod refusals;
mod summary;

use std::collections::BTreeMap;

pub use refusals::RefusalView;
pub use summary::{DaySums, KeyDays, Summary};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::{Caller, Permission};
use super::error::{OperationError, Result};
use super::terms::{Time, past};
use crate::control::Control;
use crate::ledger::store::{BooksReader, MINUTE, UsageDetail, UsageFilter, UsageRow, UsageStep};
use crate::policy::outcome::usage::Durations;
use crate::types::{AccountId, Credits, KeyId, WallTime};

/// Most rows of a report.
pub const MAX_USAGE_ROWS: usize = 10_000;
/// The time zone that is farthest from UTC, in minutes.
const MAX_ZONE: i64 = 24 * 60;
/// How far back a report goes if it does not say.
const DEFAULT_SPAN: &str = "24h";

/// Which usage, in intervals of which length.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// Only this account.
    #[serde(default)]
    pub account: Option<AccountId>,
    /// Only this key.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// Only this route.
    #[serde(default)]
    pub route: Option<String>,
    /// From here on: a time, or how long ago, such as `7d`.
    #[serde(default)]
    pub from: Option<String>,
    /// Until here: a time, or how long ago; now if it is left out.
    #[serde(default)]
    pub to: Option<String>,
    /// The length of the intervals.
    #[serde(default)]
    pub step: Step,
    /// What else to tell apart.
    #[serde(default)]
    pub by: Option<Grouping>,
    /// Where days begin, as minutes east of UTC, rounded to whole hours.
    #[serde(default, skip_serializing_if = "is_utc")]
    pub zone: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_utc(zone: &i64) -> bool {
    *zone == 0
}

impl UsageQuery {
    /// Asks for so many whole hours or days, of which the current one is the last. `zone`: minutes east of UTC.
    #[must_use]
    pub fn last(number: i64, step: Step, zone: i64, now: WallTime) -> Self {
        let start = step.start(now.0.div_euclid(MINUTE), 0, zone) - (number - 1) * step.longest(0).minutes();
        Self { from: Some(WallTime(start * MINUTE).to_string()), step, zone, ..Self::default() }
    }
}

/// The length of intervals. Where minutes or hours are no longer kept, rows have longer ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UsageStep)]
pub enum Step {
    /// A minute.
    Minute,
    /// An hour.
    #[default]
    Hour,
    /// A day, in UTC.
    Day,
    /// The whole time in one row.
    All,
}

/// What rows are told apart by, besides time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UsageGrouping)]
pub enum Grouping {
    /// The account.
    Account,
    /// The key.
    Key,
    /// The route.
    Route,
}

/// Usage in one interval.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UsageRow)]
pub struct UsageView {
    /// The start of the interval.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// The account, key or route, if they are told apart; null for requests without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub of: Option<Option<String>>,
    /// Number of requests.
    pub requests: u64,
    /// Number of requests by outcome: the class of the upstream's status, or why the gateway refused them.
    pub outcomes: BTreeMap<String, u64>,
    /// The credits that were charged, less those given back: exactly those of the ledger's entries.
    #[schema(value_type = f64)]
    pub credits: Credits,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Durations in milliseconds that half of the requests, 95 % and 99 % do not exceed, at most a quarter too high.
    pub durations: Quantiles,
}

/// Durations in milliseconds; null if there were no requests.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Quantiles {
    /// Half of the requests took at most this long.
    pub p50: Option<f64>,
    /// 95 % of the requests took at most this long.
    pub p95: Option<f64>,
    /// 99 % of the requests took at most this long.
    pub p99: Option<f64>,
}

/// A report of usage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// The start of the report.
    #[schema(value_type = String, format = DateTime)]
    pub from: Time,
    /// The end of the report.
    #[schema(value_type = String, format = DateTime)]
    pub to: Time,
    /// The rows, in the order of their time.
    pub data: Vec<UsageView>,
}

/// The sums of one interval.
#[derive(Default)]
struct Sums {
    outcomes: BTreeMap<String, u64>,
    credits: i64,
    bytes_in: u64,
    bytes_out: u64,
    durations: Durations,
}

impl Sums {
    /// Adds a row. False if the credits overflow.
    fn add(&mut self, row: UsageRow) -> bool {
        *self.outcomes.entry(row.outcome).or_default() += row.requests;
        self.bytes_in = self.bytes_in.saturating_add(row.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(row.bytes_out);
        self.durations.merge(&row.durations);
        let sum = self.credits.checked_add(row.credits.millionths());
        self.credits = sum.unwrap_or(self.credits);
        sum.is_some()
    }

    fn view(mut self, at: i64, of: Option<Option<String>>) -> UsageView {
        self.outcomes.retain(|_, requests| *requests > 0);
        let millis = |per_mille| self.durations.quantile(per_mille).map(|time| time.as_secs_f64() * 1000.0);
        UsageView {
            at: Time(WallTime(at.saturating_mul(MINUTE))),
            of,
            requests: self.outcomes.values().sum(),
            credits: Credits::from_millionths(self.credits),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            durations: Quantiles { p50: millis(500), p95: millis(950), p99: millis(990) },
            outcomes: self.outcomes,
        }
    }
}

impl UsageReport {
    /// The rows as comma-separated values with a header line (RFC 4180).
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn to_csv(&self) -> Result<String, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([
            "at",
            "of",
            "requests",
            "outcomes",
            "credits",
            "bytes_in",
            "bytes_out",
            "p50_ms",
            "p95_ms",
            "p99_ms",
        ])?;
        for row in &self.data {
            let outcomes: Vec<String> =
                row.outcomes.iter().map(|(outcome, requests)| format!("{outcome}={requests}")).collect();
            let millis = |time: Option<f64>| time.map(|time| format!("{time:.3}")).unwrap_or_default();
            writer.write_record([
                row.at.0.to_string(),
                row.of.clone().flatten().unwrap_or_default(),
                row.requests.to_string(),
                outcomes.join(" "),
                row.credits.to_string(),
                row.bytes_in.to_string(),
                row.bytes_out.to_string(),
                millis(row.durations.p50),
                millis(row.durations.p95),
                millis(row.durations.p99),
            ])?;
        }
        let bytes = writer.into_inner().map_err(|error| error.into_error())?;
        Ok(String::from_utf8(bytes).unwrap_or_default()) // only text was written
    }
}

/// The nearest whole hours to minutes, since the hours of all zones are kept as those of UTC.
const fn whole_hours(zone: i64) -> i64 {
    UsageStep::Hour.floor(zone + 30)
}

impl Grouping {
    fn detail(self) -> UsageDetail {
        match self {
            Self::Account | Self::Key => UsageDetail::Each,
            Self::Route => UsageDetail::Routes,
        }
    }
}

impl Step {
    /// The longest intervals that are added up.
    fn longest(self, zone: i64) -> UsageStep {
        match self {
            Self::Minute => UsageStep::Minute,
            Self::Hour => UsageStep::Hour,
            Self::Day if whole_hours(zone) != 0 => UsageStep::Hour,
            Self::Day | Self::All => UsageStep::Day,
        }
    }

    fn start(self, at: i64, from: i64, zone: i64) -> i64 {
        let zone = whole_hours(zone);
        match self {
            Self::Minute => at,
            Self::Hour => UsageStep::Hour.floor(at),
            Self::Day => UsageStep::Day.floor(at + zone) - zone,
            Self::All => from,
        }
    }
}

/// A member reads the usage of one account only.
fn may_read(caller: &Caller, account: Option<&AccountId>) -> Result<()> {
    match account {
        Some(account) => caller.may_in(Permission::ReadAccounts, account),
        None => caller.may(Permission::ReadAccounts),
    }
}

/// What is asked for, with times in minutes.
struct Asked {
    filter: UsageFilter,
    /// The end that is reported.
    to: i64,
    step: Step,
    by: Option<Grouping>,
    zone: i64,
}

impl Asked {
    fn report(&self, reader: &mut dyn BooksReader) -> Result<UsageReport> {
        let (step, from) = (self.step, self.filter.from);
        let mut sums: BTreeMap<(i64, Option<Option<String>>), Sums> = BTreeMap::new();
        let (mut is_exact, mut is_long) = (true, false);
        reader.usage(&self.filter, &mut |row| {
            let of = self.by.map(|by| match by {
                Grouping::Account => row.account.as_ref().map(ToString::to_string),
                Grouping::Key => row.key.as_ref().map(ToString::to_string),
                Grouping::Route => row.route.clone(),
            });
            let id = (step.start(row.at, from, self.zone), of);
            is_long |= sums.len() >= MAX_USAGE_ROWS && !sums.contains_key(&id);
            if !is_long {
                is_exact &= sums.entry(id).or_default().add(row);
            }
        })?;
        if is_long {
            let message =
                format!("this report has more than {MAX_USAGE_ROWS} rows: ask for longer steps or less time");
            return OperationError::invalid("step", message);
        }
        if !is_exact {
            return Err(OperationError::Conflict("the sum of the credits overflows".to_owned()));
        }
        let data = sums.into_iter().map(|((at, of), sums)| sums.view(at, of)).collect();
        let time = |minute: i64| Time(WallTime(minute.saturating_mul(MINUTE)));
        Ok(UsageReport { from: time(self.filter.from), to: time(self.to), data })
    }
}

impl Control {
    /// Reports usage. The credits of all time are those of the ledger, to the millionth; what workers counted in the last
    /// second is not included yet.
    ///
    /// # Errors
    /// If there is no such account, a time cannot be read, or the report has more than [`MAX_USAGE_ROWS`] rows.
    pub async fn usage(&self, caller: &Caller, query: UsageQuery) -> Result<UsageReport> {
        let asked = self.asked(caller, query)?;
        let reader = self.bookkeeper.usage_reader().await?;
        let read = move |reader: &mut dyn BooksReader| {
            reader.freeze()?; // the rows of all intervals are of one moment
            asked.report(reader)
        };
        super::aside(reader, read).await
    }

    /// Reports usage in several ways at one moment, for a page.
    ///
    /// # Errors
    /// As [`Control::usage`].
    pub async fn usage_reports(&self, caller: &Caller, queries: Vec<UsageQuery>) -> Result<Vec<UsageReport>> {
        let asked = queries.into_iter().map(|query| self.asked(caller, query)).collect::<Result<Vec<_>>>()?;
        self.read_page(move |reader| asked.iter().map(|asked| asked.report(reader)).collect()).await
    }

    fn asked(&self, caller: &Caller, query: UsageQuery) -> Result<Asked> {
        may_read(caller, query.account.as_ref())?;
        let (from, to) = self.span(&query, self.clock.wall())?;
        if query.zone.abs() > MAX_ZONE {
            return OperationError::invalid("zone", "a time zone is at most a day from UTC");
        }
        let is_until_now = query.to.is_none();
        let UsageQuery { account, key, route, step, by, zone, .. } = query;
        if let Some(id) = account.clone().filter(|id| self.directory.account(id).is_none()) {
            return Err(id.into());
        }
        let (longest, detail) = (step.longest(zone), by.map_or(UsageDetail::Sums, Grouping::detail));
        // There is nothing in the future, and whole intervals are read from fewer rows.
        let end = if is_until_now { longest.ceil(to) } else { to };
        let filter = UsageFilter { account, key, route, from, to: end, longest, detail };
        Ok(Asked { filter, to, step, by, zone })
    }

    /// The start and the end of a report, in minutes.
    fn span(&self, query: &UsageQuery, now: WallTime) -> Result<(i64, i64)> {
        let from = past("from", query.from.as_deref().unwrap_or(DEFAULT_SPAN), now)?.0.div_euclid(MINUTE);
        let to = match query.to.as_deref() {
            Some(text) => past("to", text, now)?.0.div_euclid(MINUTE),
            None => now.0.div_euclid(MINUTE) + 1,
        };
        if from >= to {
            return OperationError::invalid("from", "the start must be before the end");
        }
        Ok((from, to))
    }
}
