//! Implements `reconcile`: compares an upstream's bill with what its requests were charged, and lists what differs.

mod bill;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output, Table};
use crate::control::command::Command;
use crate::control::operations::ChargesQuery;
use crate::policy::price::Decimal;
use crate::types::{Credits, RequestId};
use bill::{Bill, Billed};

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
    /// Do not list requests that are billed and charged if they differ by so many credits or less.
    #[arg(long, value_name = "CREDITS", default_value = "0")]
    within: Credits,
    /// The start of the time that the bill is for: a time, or how long ago. Default: since when requests are listed.
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
struct Compared {
    output: Output,
    /// The table of what differs, once there is something.
    table: Option<Table>,
    within: Credits,
    agree: u64,
    differ: u64,
    elsewhere: u64,
    only_billed: u64,
    only_charged: u64,
    charged: i128,
    billed: i128,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let mut bill = bill::read(&arguments)?;
    let Arguments { within, from, to, upstream, route, .. } = arguments;
    let mut compared = Compared::new(asker.output, within, bill.sum());
    let mut printed = Ok(());
    let query = ChargesQuery { from, to, upstream, route };
    let done = asker.each(&Command::Charges(query), |row| {
        if printed.is_ok() {
            printed = compared.charged(row, &mut bill);
        }
    })?;
    printed?;
    for billed in bill.into_billed() {
        compared.billed(billed)?;
    }
    compared.table.take().map_or(Ok(()), Table::finish)?;
    compared.report(&done["since"])
}

impl Compared {
    const fn new(output: Output, within: Credits, billed: i128) -> Self {
        let (agree, differ, elsewhere, only_billed, only_charged, charged) = (0, 0, 0, 0, 0, 0);
        let table = None;
        Self { output, table, within, agree, differ, elsewhere, only_billed, only_charged, charged, billed }
    }

    /// Looks a request that was charged up in the bill. Prints it if the bill should have it.
    fn charged(&mut self, mut row: Value, bill: &mut Bill) -> Result {
        let id = row["request"].as_str().and_then(|id| id.parse::<RequestId>().ok());
        let charged: Option<Credits> = serde_json::from_value(row["charged"].clone()).ok();
        let (Some(id), Some(charged)) = (id, charged) else { return Ok(()) };
        let is_selected = row["is_selected"].as_bool().unwrap_or_default();
        if let Some(billed) = bill.find(id) {
            self.charged += i128::from(charged.millionths());
            billed.charged = billed.charged.unwrap_or_default().checked_add(charged);
            billed.row.get_or_insert(row);
            return Ok(());
        }
        if !is_selected || charged.is_zero() {
            return Ok(()); // the bill is not for it, or need not name it
        }
        self.charged += i128::from(charged.millionths());
        self.only_charged += 1;
        let difference = Credits::ZERO.checked_sub(charged).unwrap_or_default();
        self.print("not billed", &mut row, None, difference)
    }

    /// Compares an entry of the bill with what its requests were charged.
    fn billed(&mut self, mut billed: Billed) -> Result {
        let cost = billed.cost();
        let (Some(charged), Some(mut row)) = (billed.charged, billed.row.take()) else {
            if cost.is_zero() {
                self.agree += 1; // on a route without a price
                return Ok(());
            }
            self.only_billed += 1;
            return self.print("not charged", &mut json!({ "request": billed.name }), Some(cost), cost);
        };
        let difference = cost.checked_sub(charged).unwrap_or(Credits::MAX);
        let what = match row["is_named"].as_bool() {
            _ if cost.is_zero() && charged.is_zero() => {
                self.agree += 1;
                return Ok(());
            }
            Some(true) if difference.millionths().abs() <= self.within.millionths() => {
                self.agree += 1;
                return Ok(());
            }
            Some(true) => {
                self.differ += 1;
                "differs"
            }
            _ => {
                self.elsewhere += 1;
                "of another route"
            }
        };
        row["charged"] = json!(charged);
        self.print(what, &mut row, Some(cost), difference)
    }

    fn print(&mut self, what: &str, row: &mut Value, billed: Option<Credits>, difference: Credits) -> Result {
        if let Some(fields) = row.as_object_mut() {
            fields.retain(|name, _| !name.starts_with("is_"));
            let added = [("what", json!(what)), ("billed", json!(billed)), ("difference", json!(difference))];
            fields.extend(added.map(|(name, value)| (name.to_owned(), value)));
        }
        self.table.get_or_insert_with(|| self.output.rows(COLUMNS)).add(row)
    }

    /// Says how much agrees. `since`: since when requests are listed.
    ///
    /// # Errors
    /// If anything differs.
    fn report(self, since: &Value) -> Result {
        let Self { output, agree, differ, elsewhere, only_billed, only_charged, charged, billed, .. } = self;
        let credits = |sum: i128| Credits::from_millionths(i64::try_from(sum).unwrap_or(i64::MAX));
        let mut counts = vec![format!("{agree} agree")];
        for (count, what) in [
            (differ, "differ"),
            (elsewhere, "of another upstream or route"),
            (only_billed, "billed and not charged"),
            (only_charged, "charged and not billed"),
        ] {
            counts.extend((count > 0).then(|| format!("{count} {what}")));
        }
        let (counts, since) = (counts.join(", "), since.as_str().unwrap_or("now"));
        let sums =
            format!("{} credits billed, {} charged; listed since {since}", credits(billed), credits(charged));
        if output == Output::Text {
            output::text(&format!("requests: {counts}\n{sums}\n"))?;
        }
        match differ + elsewhere + only_billed + only_charged {
            0 => Ok(()),
            _ if output == Output::Text => Err(Failed("error: the bill and the ledger differ".to_owned())),
            _ => Err(Failed(format!("error: the bill and the ledger differ: {counts}; {sums}"))),
        }
    }
}
