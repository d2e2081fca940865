//! Implements `ledger`: verifies, exports, backs up, migrates and copies the ledger; lists and returns holds in doubt.

mod places;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::control::command::Command;

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Check balances, links, entry numbers and the operator's accounts against the entries.
    Verify,
    /// List holds in doubt: holds of requests that a crash interrupted. They are charged in full unless given back.
    InDoubt {
        /// Only the hold of this request: Tollgate's id, or the id that a trusted proxy sent.
        #[arg(long, value_name = "ID")]
        request: Option<String>,
    },
    /// Return the credits of one hold in doubt. Repeating the command changes nothing.
    GiveBack {
        /// The hold's id, as `in-doubt` lists it.
        id: String,
    },
    /// Print every entry.
    Export {
        /// The format.
        #[arg(long, value_enum, default_value_t = ExportFormat::Json)]
        format: ExportFormat,
    },
    /// Copy the ledger to a new file, whether or not a gateway runs.
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Migrate the tables to this version, or create them, without starting a gateway.
    Migrate {
        /// Give up the journal of a machine that is lost, with the charges that were only there. Only for PostgreSQL with
        /// `journal = "local"`.
        #[arg(long)]
        abandon_journal: bool,
    },
    /// Copy the whole ledger to a place that has none, while no gateway serves it, and verify both.
    Copy {
        /// The ledger: a configuration file, `sqlite:FILE`, `postgres://…`, or `env:NAME` for a variable with one of these.
        from: String,
        /// Where it is copied to, in the same forms.
        to: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// One JSON object per line.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

const COLUMNS: [&str; 14] = [
    "number",
    "at",
    "account",
    "kind",
    "amount",
    "balance_after",
    "bucket",
    "key",
    "route",
    "outcome",
    "requests",
    "reference",
    "by",
    "link",
];

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    match arguments {
        Arguments::Verify => verify(asker),
        Arguments::InDoubt { request } => {
            let columns = &["id", "account", "key", "route", "amount", "at", "given_back"];
            asker.table(&Command::InDoubt { request }, columns)
        }
        Arguments::GiveBack { id } => asker.output.record(&asker.one(&Command::GiveBack { id })?),
        Arguments::Export { format } => export(asker, format),
        Arguments::Backup { file } => {
            let to = std::path::absolute(file)?;
            asker.output.record(&asker.one(&Command::Backup { to })?)
        }
        Arguments::Migrate { abandon_journal } => places::migrate(asker, abandon_journal),
        Arguments::Copy { from, to } => places::copy(asker, &from, &to),
    }
}

fn verify(asker: &Asker) -> Result {
    let verified = asker.one(&Command::Verify)?;
    let differences = verified["differences"].as_array().cloned().unwrap_or_default();
    if asker.output == Output::Json {
        output::json(&verified)?;
    } else {
        let count = |name: &str| &verified[name];
        let (accounts, entries, found) = (count("accounts"), count("entries"), count("found"));
        output::text(&format!("{accounts} accounts, {entries} entries, {found} differences\n"))?;
        if !differences.is_empty() {
            let mut table = asker.output.rows(&["what", "account", "entry", "recorded", "computed"]);
            differences.iter().try_for_each(|row| table.add(row))?;
            table.finish()?;
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failed("error: the ledger and its entries differ; restore a backup: see the README".to_owned()))
}

fn export(asker: &Asker, format: ExportFormat) -> Result {
    if format == ExportFormat::Csv {
        output::text(&csv_line(COLUMNS.map(str::to_owned))?)?;
    }
    let mut printed = Ok(());
    asker.each(&Command::Export, |row| {
        if printed.is_ok() {
            let line = match format {
                ExportFormat::Json => Ok(format!("{row}\n")),
                ExportFormat::Csv => csv_line(COLUMNS.map(|name| csv_field(&row[name]))),
            };
            printed = line.and_then(|line| output::text(&line));
        }
    })?;
    printed
}

fn csv_line(fields: [String; COLUMNS.len()]) -> Result<String> {
    let mut writer = csv::WriterBuilder::new()
        .buffer_capacity(512)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(fields).map_err(Failed::from)?;
    let line = writer.into_inner().map_err(|error| Failed::from(error.into_error()))?;
    String::from_utf8(line).map_err(Failed::from)
}

/// Formats a value as text that spreadsheets do not interpret as a formula.
fn csv_field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
