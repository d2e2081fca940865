//! Prints records as tables or as JSON.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

use super::failed::{Failed, Result};

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table.
    Text,
    /// JSON; lists as one object per line.
    Json,
}

/// Widest cell of a table, in characters; longer text is truncated.
const MAX_CELL: usize = 60;

/// Prints text. A reader that closes early (`| head`) is not an error.
pub(super) fn text(text: &str) -> Result {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &Value) -> Result {
    text(&format!("{}\n", serde_json::to_string_pretty(value).map_err(Failed::from)?))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

impl Output {
    /// Prints one record.
    pub(super) fn record(self, record: &Value) -> Result {
        let (Self::Text, Value::Object(fields)) = (self, record) else { return json(record) };
        let width = fields.keys().map(String::len).max().unwrap_or(0);
        let lines = fields.iter().map(|(name, value)| format!("{name:width$}  {}\n", cell(value)));
        text(&lines.collect::<String>())
    }

    /// Prints records as they arrive: as a table with these columns, or as one JSON object per line.
    pub(super) fn rows(self, columns: &'static [&'static str]) -> Table {
        Table { output: self, columns, first: Vec::new(), widths: Vec::new() }
    }
}

/// Rows that are measured before the first is printed; later ones may be wider.
const MEASURED: usize = 100;

/// A table that is printed while its rows arrive.
pub(super) struct Table {
    output: Output,
    columns: &'static [&'static str],
    /// Rows that are not printed yet, since the widths of the columns are not known.
    first: Vec<Vec<String>>,
    /// The widths of the columns, once the first rows are printed.
    widths: Vec<usize>,
}

impl Table {
    /// Adds a row.
    pub(super) fn add(&mut self, row: &Value) -> Result {
        if self.output == Output::Json {
            return text(&format!("{row}\n"));
        }
        let cells = self.columns.iter().map(|column| cell(&row[*column]).chars().take(MAX_CELL).collect());
        self.first.push(cells.collect());
        if self.widths.is_empty() && self.first.len() < MEASURED { Ok(()) } else { self.print() }
    }

    /// Prints the rows that are left, and the header of an empty table.
    pub(super) fn finish(mut self) -> Result {
        if self.output == Output::Json { Ok(()) } else { self.print() }
    }

    fn print(&mut self) -> Result {
        if self.widths.is_empty() {
            self.first.insert(0, self.columns.iter().map(|name| name.to_uppercase()).collect());
            let width = |at: usize| self.first.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
            self.widths = (0..self.columns.len()).map(width).collect();
        }
        let mut out = String::new();
        for line in self.first.drain(..) {
            let padded = line.iter().zip(&self.widths).map(|(cell, &width)| format!("{cell:width$}"));
            out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        text(&out)
    }
}
