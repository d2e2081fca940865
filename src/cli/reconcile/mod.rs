//! Implements `reconcile`: compares an upstream's bill with what its requests were charged, and lists what differs.

mod bill;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::control::command::Command;
use crate::control::operations::ChargesQuery;
use crate::policy::price::Decimal;
use crate::types::{Credits, RequestId};
use bill::{Bill, Name};

const COLUMNS: &[&str] =
    &["what", "request", "at", "account", "key", "route", "charged", "billed", "difference"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bill: comma-separated values with the names of the columns in the first line, or a JSON object per line; - for
    /// standard input.
    file: PathBuf,
    /// The column with the request's id, as the upstream got it in X-Request-Id. Default: request_id, request or id.
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// The column with the cost. Default: cost, credits or amount.
    #[arg(long, value_name = "NAME")]
    cost: Option<String>,
    /// How many credits one unit of the bill is, such as 0.5.
    #[arg(long, value_name = "CREDITS", default_value = "1", value_parser = factor)]
    unit: Decimal,
    /// List no difference up to so many credits.
    #[arg(long, value_name = "CREDITS", default_value = "0")]
    within: Credits,
    /// The start of the time that the bill is for: a time, or how long ago. Default: all requests that are listed.
    #[arg(long)]
    from: Option<String>,
    /// The end of that time. Default: now.
    #[arg(long)]
    to: Option<String>,
    /// The upstream that the bill is from. Default: all.
    #[arg(long)]
    upstream: Option<String>,
    /// The route that the bill is for. Default: all.
    #[arg(long)]
    route: Option<String>,
}

fn factor(text: &str) -> std::result::Result<Decimal, String> {
    let factor = Decimal::parse(text).filter(|factor| factor.is_factor() && !factor.is_negative());
    factor.ok_or_else(|| "a number with at most 18 decimals".to_owned())
}

/// What was compared.
#[derive(Default)]
struct Sums {
    agree: u64,
    differ: u64,
    only_billed: u64,
    only_charged: u64,
    charged: i128,
    billed: i128,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let mut bill = bill::read(&arguments)?;
    let Arguments { within, from, to, upstream, route, .. } = arguments;
    let mut sums = Sums {
        billed: bill.values().map(|(cost, _)| i128::from(cost.millionths())).sum(),
        ..Sums::default()
    };
    let mut table = asker.output.rows(COLUMNS);
    let mut printed = Ok(());
    let query = ChargesQuery { from, to, upstream, route };
    asker.each(&Command::Charges(query), |row| {
        if printed.is_ok() {
            printed = compare(row, &mut bill, within, &mut sums).map_or(Ok(()), |row| table.add(&row));
        }
    })?;
    printed?;
    let (mut left, free): (Vec<_>, Vec<_>) = bill.into_values().partition(|(cost, _)| !cost.is_zero());
    sums.agree += free.len() as u64; // on routes without a price
    left.sort_by(|one, other| one.1.cmp(&other.1));
    for (billed, request) in left {
        sums.only_billed += 1;
        let row =
            json!({ "what": "not charged", "request": request, "billed": billed, "difference": billed });
        table.add(&row)?;
    }
    table.finish()?;
    sums.report(asker.output)
}

/// Compares what a request was charged with the bill. Returns the row of a difference.
fn compare(mut row: Value, bill: &mut Bill, within: Credits, sums: &mut Sums) -> Option<Value> {
    let id: RequestId = row["request"].as_str()?.parse().ok()?;
    let charged: Credits = serde_json::from_value(row["charged"].clone()).ok()?;
    let of_proxy = |bill: &mut Bill| id.mark().and_then(|mark| bill.remove(&Name::OfProxy(mark)));
    let billed = bill.remove(&Name::Own(id)).or_else(|| of_proxy(bill)).map(|(cost, _)| cost);
    let is_selected = row["is_selected"].as_bool().unwrap_or_default();
    if billed.is_none() && (!is_selected || charged.is_zero()) {
        return None; // the bill is not for it, or need not name it
    }
    sums.charged += i128::from(charged.millionths());
    let difference = billed.unwrap_or_default().checked_sub(charged)?;
    let what = match billed {
        Some(_) if difference.millionths().abs() <= within.millionths() => {
            sums.agree += 1;
            return None;
        }
        Some(_) => {
            sums.differ += 1;
            "differs"
        }
        None => {
            sums.only_charged += 1;
            "not billed"
        }
    };
    let fields = row.as_object_mut()?;
    fields.remove("is_selected");
    let added = [("what", json!(what)), ("billed", json!(billed)), ("difference", json!(difference))];
    fields.extend(added.map(|(name, value)| (name.to_owned(), value)));
    Some(row)
}

impl Sums {
    /// Says how much agrees.
    ///
    /// # Errors
    /// If anything differs.
    fn report(self, output: Output) -> Result {
        let Self { agree, differ, only_billed, only_charged, charged, billed } = self;
        let credits = |sum: i128| Credits::from_millionths(i64::try_from(sum).unwrap_or(i64::MAX));
        let (charged, billed) = (credits(charged), credits(billed));
        let text = format!(
            "{agree} requests agree, {differ} differ, {only_billed} were billed and not charged, {only_charged} were charged and not billed; {billed} credits billed, {charged} charged"
        );
        if output == Output::Text {
            output::text(&format!("{text}\n"))?;
        }
        match differ + only_billed + only_charged {
            0 => Ok(()),
            _ if output == Output::Text => Err(Failed("error: the bill and the ledger differ".to_owned())),
            _ => Err(Failed(format!("error: the bill and the ledger differ: {text}"))),
        }
    }
}
