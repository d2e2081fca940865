//! Reads the lines of a file: comma-separated values, or JSON objects.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::progress::Progress;
use super::{Arguments, Format};
use crate::cli::failed::{Failed, Result};

/// Longest line with a JSON object, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// The fields of a line.
pub(in crate::cli) type Record = Map<String, Value>;
/// The names of columns, and what is in their cells.
pub(in crate::cli) type Columns = &'static [(&'static str, Cell)];

/// What is in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Cell {
    /// Text.
    Text,
    /// Items with spaces or semicolons between them.
    List,
    /// JSON.
    Json,
}

/// A line.
pub(super) struct Line {
    /// Its number in the file, from 1 on.
    pub(super) number: u64,
    /// Bytes of the file up to its end.
    pub(super) position: u64,
    /// Its fields, or what is wrong.
    pub(super) record: std::result::Result<Record, String>,
}

type Input = Box<dyn BufRead>;

/// The lines of a file.
pub(super) enum Lines {
    Csv { reader: Box<csv::Reader<Input>>, names: Vec<(String, Cell)> },
    Jsonl { input: Input, number: u64, position: u64 },
}

impl Lines {
    /// Opens the file of an import.
    pub(super) fn open(arguments: &Arguments, columns: &Columns) -> Result<(Self, Progress)> {
        let path = &arguments.file;
        let failed = |error: std::io::Error| Failed(format!("error: {}: {error}", path.display()));
        let (mut input, length): (Input, _) = if path.as_os_str() == "-" {
            (Box::new(stdin().lock()), None)
        } else {
            let file = File::open(path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            (Box::new(BufReader::new(file)), Some(length))
        };
        let start = input.fill_buf().map_err(failed)?;
        let is_json = start.trim_ascii_start().first() == Some(&b'{');
        let lines = match arguments.format.or(format_of(path)).unwrap_or(if is_json {
            Format::Jsonl
        } else {
            Format::Csv
        }) {
            Format::Jsonl => Self::Jsonl { input, number: 0, position: 0 },
            Format::Csv => Self::csv(input, columns)?,
        };
        Ok((lines, Progress::new(length)))
    }

    fn csv(input: Input, columns: &Columns) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let mut names = Vec::new();
        // A name is not repeated: without a first line with names, it could be a key.
        for (at, name) in reader.headers()?.iter().enumerate() {
            let Some((_, cell)) = columns.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = columns.iter().map(|(known, _)| *known).collect();
                let message = format!(
                    "error: line 1: the name of column {} is unknown (known: {})",
                    at + 1,
                    known.join(", ")
                );
                return Err(Failed(message));
            };
            names.push((name.to_owned(), *cell));
        }
        Ok(Self::Csv { reader: Box::new(reader), names })
    }
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        _ => None,
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Csv { reader, names } => next_record(reader, names),
            Self::Jsonl { input, number, position } => next_object(input, number, position).transpose(),
        }
    }
}

fn next_record(reader: &mut csv::Reader<Input>, names: &[(String, Cell)]) -> Option<Result<Line>> {
    let mut row = csv::StringRecord::new();
    let read = reader.read_record(&mut row);
    let place = row.position().or(Some(reader.position()).filter(|_| read.is_err())).cloned();
    let number = place.as_ref().map_or(0, csv::Position::line);
    let position = reader.position().byte();
    match read {
        Ok(false) => None,
        Ok(true) => {
            let cells = names.iter().zip(&row).filter(|(_, text)| !text.is_empty());
            let fields = cells.map(|((name, cell), text)| Ok((name.clone(), cell.value(text)?)));
            Some(Ok(Line { number, position, record: fields.collect() }))
        }
        Err(error) if error.is_io_error() => Some(Err(error.into())),
        // The error shows no text of the file.
        Err(error) => {
            let number = error.position().map_or(number, csv::Position::line);
            let message = match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("the line has {len} columns instead of {expected_len}")
                }
                csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8".to_owned(),
                _ => "the line is malformed".to_owned(),
            };
            Some(Ok(Line { number, position, record: Err(message) }))
        }
    }
}

fn next_object(input: &mut Input, number: &mut u64, position: &mut u64) -> Result<Option<Line>> {
    loop {
        let mut text = Vec::new();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut text)? as u64;
        if read == 0 {
            return Ok(None);
        }
        *number += 1;
        *position += read;
        if read == MAX_LINE && text.last() != Some(&b'\n') {
            return Err(Failed(format!("error: line {number} is longer than {MAX_LINE} bytes")));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        // The error shows no text of the file.
        let wrong =
            |error: serde_json::Error| format!("this is not a JSON object (column {})", error.column());
        let record = serde_json::from_slice(&text).map_err(wrong);
        return Ok(Some(Line { number: *number, position: *position, record }));
    }
}

impl Cell {
    fn value(self, text: &str) -> std::result::Result<Value, String> {
        match self {
            Self::Text => Ok(Value::String(text.to_owned())),
            Self::List => {
                let items = text.split([' ', ';']).filter(|item| !item.is_empty());
                Ok(items.map(|item| Value::String(item.to_owned())).collect())
            }
            Self::Json => serde_json::from_str(text).map_err(|error| format!("a cell is not JSON: {error}")),
        }
    }
}

/// Reads a record as a value.
pub(super) fn value_of<T: DeserializeOwned>(record: Record) -> std::result::Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(record)).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        if field == "." { inner.to_string() } else { format!("{field}: {inner}") }
    })
}
