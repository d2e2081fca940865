//! Implements `usage`: reports requests, credits, bytes and durations by time.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::ask::Asker;
use super::failed::Result;
use super::output::{self, Output};
use crate::control::command::Command;
use crate::control::operations::{Grouping, Step, UsageQuery};
use crate::types::{AccountId, KeyId};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this account.
    #[arg(long)]
    account: Option<AccountId>,
    /// Only this key.
    #[arg(long)]
    key: Option<KeyId>,
    /// Only this route.
    #[arg(long)]
    route: Option<String>,
    /// From here on: a time, or how long ago.
    #[arg(long, default_value = "24h")]
    from: String,
    /// Until here: a time, or how long ago. Default: now.
    #[arg(long)]
    to: Option<String>,
    /// The length of the intervals.
    #[arg(long, value_enum, default_value_t = StepArgument::Hour)]
    step: StepArgument,
    /// What else to tell apart.
    #[arg(long, value_enum)]
    by: Option<GroupingArgument>,
    /// Print comma-separated values with a header line (RFC 4180).
    #[arg(long)]
    csv: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StepArgument {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
    /// The whole time in one row.
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GroupingArgument {
    /// The account.
    Account,
    /// The key.
    Key,
    /// The route.
    Route,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let Arguments { account, key, route, from, to, step, by, csv } = arguments;
    let step = match step {
        StepArgument::Minute => Step::Minute,
        StepArgument::Hour => Step::Hour,
        StepArgument::Day => Step::Day,
        StepArgument::All => Step::All,
    };
    let by = by.map(|by| match by {
        GroupingArgument::Account => Grouping::Account,
        GroupingArgument::Key => Grouping::Key,
        GroupingArgument::Route => Grouping::Route,
    });
    let query = UsageQuery { account, key, route, from: Some(from), to, step, by, zone: 0 };
    if csv {
        let report = asker.one(&Command::UsageCsv(query))?;
        return output::text(report["csv"].as_str().unwrap_or_default());
    }
    if asker.output == Output::Json {
        return asker.table(&Command::Usage(query), &[]);
    }
    let columns: &[&str] = match by {
        None => {
            &["at", "requests", "refused", "failed", "credits", "bytes_in", "bytes_out", "p50_ms", "p99_ms"]
        }
        Some(_) => &["at", "of", "requests", "refused", "failed", "credits", "p50_ms", "p99_ms"],
    };
    let mut table = asker.output.rows(columns);
    let mut printed = Ok(());
    asker.each(&Command::Usage(query), |row| {
        if printed.is_ok() {
            printed = table.add(&summary(row));
        }
    })?;
    printed.and_then(|()| table.finish())
}

/// A row with what a table has room for.
fn summary(mut row: Value) -> Value {
    let count = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let outcomes = row["outcomes"].as_object().into_iter().flatten();
        outcomes.filter(|(name, _)| wanted(name)).filter_map(|(_, requests)| requests.as_u64()).sum()
    };
    let failed = |name: &str| matches!(name, "5xx" | "none") || name.starts_with("upstream_");
    let answered = |name: &str| name.ends_with("xx") || matches!(name, "answered" | "charge" | "in_doubt");
    let refused = count(&|name| !failed(name) && !answered(name));
    let failed = count(&failed);
    let quantiles = row["durations"].take();
    row["refused"] = json!(refused);
    row["failed"] = json!(failed);
    row["p50_ms"] = rounded(&quantiles["p50"]);
    row["p99_ms"] = rounded(&quantiles["p99"]);
    row
}

fn rounded(millis: &Value) -> Value {
    millis.as_f64().map_or(Value::Null, |millis| Value::String(format!("{millis:.1}")))
}
