//! Reads the bill of an upstream.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use serde_json::{Map, Value};

use super::Arguments;
use crate::cli::failed::{Failed, Result};
use crate::policy::price::Decimal;
use crate::types::{Credits, ProxyMark, RequestId};

/// Most requests of a bill.
const MAX_BILLED: usize = 20_000_000;
/// Longest line with a JSON object, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Names of the columns, unless the command line has others.
const ID_COLUMNS: [&str; 3] = ["request_id", "request", "id"];
const COST_COLUMNS: [&str; 3] = ["cost", "credits", "amount"];

/// How a bill names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Own(RequestId),
    /// By the id of a trusted proxy.
    OfProxy(ProxyMark),
}

impl Name {
    fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::OfProxy(RequestId::proxy_mark(text.as_bytes())), Self::Own)
    }
}

/// The requests of a bill: what they cost in credits, and how the bill names them.
pub(super) type Bill = HashMap<Name, (Credits, String)>;

/// Reads a bill. Several lines with the same id are added up.
pub(super) fn read(arguments: &Arguments) -> Result<Bill> {
    let mut bill = Bill::new();
    each_line(&arguments.file, |line, record| {
        let wrong = |what: &str| Failed(format!("error: line {line}: {what}"));
        let field = |own: &Option<String>, usual: &[&str]| -> Result<String> {
            let found = match own {
                Some(name) => record.get(name),
                None => usual.iter().find_map(|name| record.get(*name)),
            };
            match found {
                Some(Value::String(text)) => Ok(text.trim().to_owned()),
                Some(Value::Number(number)) => Ok(number.to_string()),
                _ => {
                    Err(wrong(&format!("there is no column {}", own.as_deref().unwrap_or(&usual.join(", ")))))
                }
            }
        };
        let (id, cost) = (field(&arguments.id, &ID_COLUMNS)?, field(&arguments.cost, &COST_COLUMNS)?);
        if id.is_empty() {
            return Err(wrong("the request has no id"));
        }
        let credits = Decimal::parse(&cost).and_then(|cost| cost.times(arguments.unit)?.credits());
        let credits = credits.ok_or_else(|| wrong(&format!("{cost:?} is no cost")))?;
        let (sum, _) = bill.entry(Name::of(&id)).or_insert_with(|| (Credits::ZERO, id));
        *sum = sum.checked_add(credits).ok_or_else(|| wrong("the cost is too large"))?;
        match bill.len() {
            ..=MAX_BILLED => Ok(()),
            _ => Err(wrong(&format!(
                "a bill has at most {MAX_BILLED} requests; compare it in parts, with --from and --to"
            ))),
        }
    })?;
    Ok(bill)
}

/// Calls `each` for the fields of each line, with its number.
fn each_line(path: &Path, mut each: impl FnMut(u64, &Map<String, Value>) -> Result) -> Result {
    let failed = |error: std::io::Error| Failed(format!("error: {}: {error}", path.display()));
    let mut input: Box<dyn BufRead> = match path.as_os_str() == "-" {
        true => Box::new(stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let is_json = input.fill_buf().map_err(failed)?.trim_ascii_start().first() == Some(&b'{');
    if !is_json {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        for row in reader.records() {
            let row = row?;
            let fields = names.iter().cloned().zip(row.iter().map(Value::from)).collect();
            each(row.position().map_or(0, csv::Position::line), &fields)?;
        }
        return Ok(());
    }
    for number in 1.. {
        let mut line = String::new();
        let read = input.by_ref().take(MAX_LINE).read_line(&mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |error| {
            Failed(format!(
                "error: line {number}: it is no JSON object of at most {MAX_LINE} bytes ({error})"
            ))
        };
        each(number, &serde_json::from_str(&line).map_err(wrong)?)?;
    }
    Ok(())
}
