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

    /// Prints records as a table with these columns.
    pub(super) fn table(self, rows: &[Value], columns: &[&str]) -> Result {
        if self == Self::Json {
            return rows.iter().try_for_each(|row| text(&format!("{row}\n")));
        }
        let cells = |row: &Value| -> Vec<String> {
            columns.iter().map(|column| cell(&row[*column]).chars().take(MAX_CELL).collect()).collect()
        };
        let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|name| name.to_uppercase()).collect()];
        lines.extend(rows.iter().map(cells));
        let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let mut out = String::new();
        for line in &lines {
            let padded = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        text(&out)
    }
}
