//! Implements `account import` and `key import`: reads lines, sends them in parts, and names every refused one. An import
//! may be repeated: what is there already is left as it is.

mod accounts;
mod keys;
mod lines;
mod progress;

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Asker, Session};
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::config::mask;
use crate::control::command::Command;
use crate::control::operations::MAX_IMPORTED;
use lines::{Columns, Lines, Record};
use progress::Progress;

pub(super) use accounts::Accounts;
pub(super) use keys::Keys;

/// Most bytes of a part, as JSON: less than the longest command.
const MAX_PART: usize = 48 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file; - for standard input.
    file: PathBuf,
    /// The format; default: by the name of the file, or by its first character.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Read and check the lines, but import nothing.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values, with the names of the columns in the first line.
    Csv,
    /// A JSON object per line.
    Jsonl,
}

/// What is imported.
pub(super) trait Kind {
    /// A line as the gateway takes it.
    type Line: Serialize;
    /// The columns of the file.
    const COLUMNS: Columns;
    /// Reads a line. `is_private`: it comes from standard input, and may have a raw key.
    fn read(line: u64, record: Record, is_private: bool) -> std::result::Result<Self::Line, String>;
    /// The command that imports lines.
    fn command(lines: Vec<Self::Line>) -> Command;
}

/// What became of a part.
#[derive(Deserialize)]
struct Told {
    imported: u64,
    known: u64,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    line: u64,
    message: String,
}

/// What became of the lines so far.
#[derive(Default)]
struct Sums {
    imported: u64,
    known: u64,
    refused: u64,
    /// The refused lines, for JSON.
    listed: Vec<Refused>,
}

pub(super) fn run<K: Kind>(asker: &Asker, arguments: &Arguments) -> Result {
    let is_private = arguments.file.as_os_str() == "-";
    let (lines, progress) = Lines::open(arguments, &K::COLUMNS)?;
    let mut import = Import::<K> {
        session: None,
        asker,
        output: asker.output,
        progress,
        sums: Sums::default(),
        part: Vec::new(),
        bytes: 0,
    };
    if !arguments.check {
        import.session = Some(asker.session()?);
    }
    for line in lines {
        let line = line?;
        import.progress.at(line.position, line.number);
        let read = line.record.and_then(|record| K::read(line.number, record, is_private));
        match read {
            Ok(read) => import.add(line.number, read)?,
            Err(message) => import.refuse(line.number, &message),
        }
    }
    import.finish()
}

struct Import<'a, K: Kind> {
    /// `None` if the lines are only checked.
    session: Option<Session<'a>>,
    asker: &'a Asker,
    output: Output,
    progress: Progress,
    sums: Sums,
    part: Vec<K::Line>,
    bytes: usize,
}

impl<K: Kind> Import<'_, K> {
    fn add(&mut self, number: u64, line: K::Line) -> Result {
        let bytes = serde_json::to_vec(&line)?.len() + 1;
        if bytes > MAX_PART {
            self.refuse(number, "the line is too long");
            return Ok(());
        }
        if self.bytes + bytes > MAX_PART || self.part.len() == MAX_IMPORTED {
            self.send()?;
        }
        self.bytes += bytes;
        self.part.push(line);
        Ok(())
    }

    fn refuse(&mut self, line: u64, message: &str) {
        let message = mask(message);
        if self.output == Output::Text {
            self.progress.tell(&format!("line {line}: {message}"));
        } else {
            self.sums.listed.push(Refused { line, message });
        }
        self.sums.refused += 1;
    }

    /// Sends a part.
    fn send(&mut self) -> Result {
        let part = std::mem::take(&mut self.part);
        self.bytes = 0;
        let Some(session) = &self.session else { return Ok(()) };
        if part.is_empty() {
            return Ok(());
        }
        let told: Told = serde_json::from_value(session.one(&K::command(part))?)?;
        self.sums.imported += told.imported;
        self.sums.known += told.known;
        for Refused { line, message } in told.refused {
            self.refuse(line, &message);
        }
        Ok(())
    }

    fn finish(mut self) -> Result {
        self.send()?;
        self.progress.finish();
        if let Some(session) = self.session {
            session.close()?;
        }
        let Sums { imported, known, refused, listed } = self.sums;
        match self.asker.output {
            Output::Json => {
                output::json(&json!({ "imported": imported, "known": known, "refused": listed }))?;
            }
            Output::Text => {
                output::text(&format!("{imported} imported, {known} already there, {refused} refused\n"))?;
            }
        }
        match refused {
            0 => Ok(()),
            _ => Err(Failed("error: lines were refused; correct them, and import the file again".to_owned())),
        }
    }
}
