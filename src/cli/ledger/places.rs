//! Implements `ledger migrate` and `ledger copy`, which open ledgers without a gateway.

use serde_json::{Map, Value, json};

use crate::app::{LedgerPlace, find_ledger};
use crate::cli::ask::Asker;
use crate::cli::failed::{Failed, Result};
use crate::cli::output::{self, Output};
use crate::clock::Clock;

pub(super) fn migrate(asker: &Asker, abandons_journal: bool) -> Result {
    let place = find(&asker.config.to_string_lossy())?;
    let version = place.migrate(abandons_journal)?;
    asker.output.record(&json!({ "ledger": place.to_string(), "version": version }))
}

pub(super) fn copy(asker: &Asker, from: &str, to: &str) -> Result {
    let (from, to) = (find(from)?, find(to)?);
    let copied = from.copy(&to, Clock::system())?;
    let rows: Map<String, Value> =
        copied.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
    if asker.output == Output::Json {
        let all = json!({
            "from": from.to_string(), "to": to.to_string(), "rows": rows, "entries": copied.entries,
            "put_in_doubt": copied.doubts,
        });
        return output::json(&all);
    }
    let count = |table: &str| rows.get(table).cloned().unwrap_or_default();
    let doubts = match copied.doubts {
        0 => String::new(),
        count => {
            format!("{count} holds that a crash had left open are listed by `tollgate ledger in-doubt`\n")
        }
    };
    output::text(&format!(
        "copied {from} to {to}: {} accounts, {} keys, {} entries; both are verified, and equal\n{doubts}",
        count("accounts"),
        count("keys"),
        copied.entries
    ))
}

fn find(text: &str) -> Result<LedgerPlace> {
    find_ledger(text).map_err(|error| Failed(error.message()))
}
