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

/// A request of a bill.
pub(super) struct Billed {
    /// How the bill names it.
    pub(super) name: String,
    /// The cost, in credits: the sum of its lines.
    cost: Decimal,
    /// What the requests with this name were charged.
    pub(super) charged: Option<Credits>,
    /// The first of them.
    pub(super) row: Option<Value>,
}

impl Billed {
    /// The cost, rounded up once.
    pub(super) fn cost(&self) -> Credits {
        self.cost.credits().unwrap_or_default() // `read` has tried it
    }
}

/// The requests of a bill. A trusted proxy may have given several requests one id; and 40 bits of the hash of its id are
/// compared, so that some of ten million such ids are taken for others.
#[derive(Default)]
pub(super) struct Bill {
    billed: Vec<Billed>,
    own: HashMap<RequestId, usize>,
    /// By the id of a trusted proxy.
    of_proxies: HashMap<ProxyMark, usize>,
}

impl Bill {
    /// The entry for a request that is listed.
    pub(super) fn find(&mut self, id: RequestId) -> Option<&mut Billed> {
        let of_proxy = || self.of_proxies.get(&id.mark()?);
        let at = self.own.get(&id).or_else(of_proxy)?;
        self.billed.get_mut(*at)
    }

    /// All entries, in the order of the bill.
    pub(super) fn into_billed(self) -> Vec<Billed> {
        self.billed
    }

    /// The sum of the costs, in millionths.
    pub(super) fn sum(&self) -> i128 {
        self.billed.iter().map(|billed| i128::from(billed.cost().millionths())).sum()
    }

    /// The entry with a name, which may be a request's own id, or that of a proxy.
    fn entry(&mut self, name: String) -> &mut Billed {
        let mark = RequestId::proxy_mark(name.as_bytes());
        let at = *self.of_proxies.entry(mark).or_insert(self.billed.len());
        if at == self.billed.len() {
            if let Ok(id) = name.parse() {
                self.own.insert(id, at);
            }
            self.billed.push(Billed { name, cost: Decimal::default(), charged: None, row: None });
        }
        &mut self.billed[at]
    }
}

/// Reads a bill. The costs of several lines with the same id are added up.
pub(super) fn read(arguments: &Arguments) -> Result<Bill> {
    let mut bill = Bill::default();
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
        let credits = Decimal::parse(&cost).ok_or_else(|| wrong(&format!("{cost:?} is no cost")))?;
        let billed = bill.entry(id);
        let sum = credits.times(arguments.unit).and_then(|credits| billed.cost.plus(credits));
        let fits = sum.filter(|sum| sum.credits().is_some());
        billed.cost = fits.ok_or_else(|| wrong(&format!("a cost of {cost} does not fit")))?;
        match bill.billed.len() {
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
