//! Instructions per request outside the kernel, as valgrind's callgrind counts them: a figure
//! that does not swing with the machine.
//!
//! Each gateway runs twice, with more requests the second time; the difference of the two counts
//! belongs to the requests alone. The ledger commits by the clock and valgrind is slow, so there
//! are more commits per request than in real load: their number is printed. Valgrind offers no
//! instructions made for SHA-256, so hashing weighs more than it does on a real processor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bench::Places;
use crate::cases::{self, Entrant};
use crate::keys::Keys;
use crate::load::{Length, Load};
use crate::options::Options;
use crate::peers::{self, Kind, Peer};
use crate::{Result, process};

const KEYS: usize = 1_000;
/// Requests of the first run: all keys, all connections, all code paths have been met.
const WARM_UP: u64 = 2_000;

/// What one run of a gateway counted.
struct Counted {
    instructions: u64,
    commits: Option<u64>,
    functions: HashMap<String, u64>,
}

/// Counts Tollgate, HAProxy, nginx and what else is asked for by `--peers`.
pub fn run(options: &Options, places: &Places) -> Result<Value> {
    let Some(valgrind) = process::find("valgrind") else { return Err("valgrind is not installed".into()) };
    let case = options.cases[0];
    let connections = options.connections.unwrap_or(case.connections);
    println!("\n== instructions: {}; {connections} connections, {} requests", case.about, options.requests);
    let wanted = |entrant: &&Entrant| match options.peers.is_empty() {
        true => matches!(entrant.kind, Kind::Tollgate | Kind::HaProxy | Kind::Nginx),
        false => options.wants(entrant.name),
    };
    let mut found = Vec::new();
    for entrant in case.entrants.iter().filter(wanted).filter(|entrant| entrant.kind.program().is_ok()) {
        let bench = Bench { options, places, valgrind: &valgrind, case, connections };
        let warm_up = bench.count(entrant, WARM_UP)?;
        let all = bench.count(entrant, WARM_UP + options.requests)?;
        let per = |all: u64, before: u64| (all as f64 - before as f64) / options.requests as f64;
        let instructions = per(all.instructions, warm_up.instructions);
        let commits = all.commits.zip(warm_up.commits).map(|(all, before)| per(all, before));
        let more = commits.map_or(String::new(), |commits| format!(", {commits:.4} commits"));
        println!("{:<14} {instructions:>9.0} instructions{more} per request", entrant.name);
        top(options, &all, &warm_up);
        found.push((entrant, instructions, commits));
    }
    let reference = found.iter().find(|(entrant, ..)| entrant.kind == Kind::HaProxy).map(|found| found.1);
    let mut rows = Vec::new();
    for (entrant, instructions, commits) in &found {
        let ratio = reference.map(|reference| instructions / reference);
        let shown = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.3}"));
        println!("{:<14} {instructions:>9.0}  ÷ HAProxy {shown}", entrant.name);
        rows.push(json!({
            "name": entrant.name, "instructions": instructions, "commits": commits, "to_haproxy": ratio,
        }));
    }
    let name =
        if case.name == cases::ALL[0].name { "callgrind".into() } else { format!("callgrind {}", case.name) };
    Ok(json!({ "case": name, "connections": connections, "requests": options.requests, "entrants": rows }))
}

/// What each run needs to know.
struct Bench<'a> {
    options: &'a Options,
    places: &'a Places,
    valgrind: &'a Path,
    case: &'static cases::Case,
    connections: u64,
}

impl Bench<'_> {
    /// One run of a gateway from its start to its end.
    fn count(&self, entrant: &Entrant, requests: u64) -> Result<Counted> {
        let places = self.places;
        let file = places.make("callgrind", false)?.join("out");
        let under = [
            self.valgrind.display().to_string(),
            "--tool=callgrind".to_owned(),
            "--quiet".to_owned(),
            format!("--callgrind-out-file={}", file.display()),
        ];
        let load =
            Load::new(self.case, places.disk(), self.connections, self.options.rate, places.load, true)?;
        let mut peer = Peer::start(entrant, self.case, Keys::new(KEYS), places, &under)?;
        let hits = load.run(peer.port, peer.keys, Length::Requests(requests))?;
        if hits.failed(self.case) > 0 || hits.requests != requests {
            return Err(format!("{} did not answer all requests under valgrind", entrant.name).into());
        }
        let commits = match entrant.kind {
            Kind::Tollgate => peers::status(&peer.folder)?["ledger_commits"].as_u64(),
            _ => None,
        };
        peer.process.stop()?;
        let text = std::fs::read_to_string(&file)?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let instructions = total.ok_or("callgrind tells no total")?.trim().parse()?;
        let functions = if self.options.top > 0 { functions(&file)? } else { HashMap::new() };
        Ok(Counted { instructions, commits, functions })
    }
}

/// Instructions by function, without those of what it calls.
fn functions(file: &PathBuf) -> Result<HashMap<String, u64>> {
    let program = process::find("callgrind_annotate").ok_or("callgrind_annotate is not installed")?;
    let output = Command::new(program).args(["--threshold=100", "--auto=no"]).arg(file).output()?;
    let mut functions = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((count, rest)) = line.trim().split_once(' ') else { continue };
        let (Ok(count), Some((_, name))) = (count.replace(',', "").parse::<u64>(), rest.split_once(")  "))
        else {
            continue;
        };
        *functions.entry(name.to_owned()).or_default() += count;
    }
    Ok(functions)
}

/// The functions that cost a request most.
fn top(options: &Options, all: &Counted, warm_up: &Counted) {
    let cost = |(name, count): (&String, &u64)| {
        let before = warm_up.functions.get(name).copied().unwrap_or(0);
        ((*count as f64 - before as f64) / options.requests as f64, name.clone())
    };
    let mut costs: Vec<(f64, String)> = all.functions.iter().map(cost).collect();
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (instructions, name) in costs.iter().take(options.top) {
        println!("  {instructions:>9.1}  {name}");
    }
}
