//! Counts instructions per request outside the kernel with valgrind's callgrind. This figure varies less with the
//! machine than time does.
//!
//! Each gateway runs twice, with more requests in the second run. The difference of the two counts belongs to the
//! requests alone. How many sockets are ready at the same time still depends on timing, and so does how often a gateway
//! waits for them. Therefore the gateways take turns, and the median of several pairs counts.
//!
//! The ledger commits by the clock and valgrind is slow, so there are more commits per request than under real load.
//! Their number is printed. The count of the workers alone is printed too, without the ledger's threads and those that ask
//! databases: of Tollgate the threads that run [`WORKER`], of others the busiest one. Valgrind does not offer the CPU's SHA-256 instructions, so hashing has a larger share than on a real
//! processor.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cases::{self, Entrant, Kind};
use crate::keys::Keys;
use crate::load::{Length, Load};
use crate::options::Options;
use crate::peers::{self, Peer};
use crate::places::Places;
use crate::spread::spread;
use crate::{Result, process};

const KEYS: usize = 1_000;
/// Requests of the first run: enough to use all keys, all connections and all code paths.
const WARM_UP: u64 = 2_000;
/// A function that only Tollgate's workers run, as callgrind's files name it.
const WORKER: &str = "tollgate::gateway::connection::";
/// Pairs of runs of each gateway.
const PAIRS: usize = 3;

/// The counts of one run of a gateway.
struct Counted {
    /// Instructions by thread. The names are those of callgrind's files, numbered in the order in which threads start.
    threads: BTreeMap<OsString, u64>,
    /// Those of Tollgate's workers.
    workers: u64,
    commits: Option<u64>,
    functions: HashMap<String, u64>,
}

/// Counts Tollgate, HAProxy and nginx, or the entrants that `--peers` selects.
pub fn run(options: &Options, places: &Places) -> Result<Value> {
    let Some(valgrind) = process::find("valgrind") else { return Err("valgrind is not installed".into()) };
    let case = options.cases[0];
    let connections = options.connections.unwrap_or(case.connections);
    println!("\n== instructions: {}; {connections} connections, {} requests", case.about, options.requests);
    let wanted = |entrant: &&Entrant| match options.peers.is_empty() {
        true => matches!(entrant.kind, Kind::Tollgate | Kind::HaProxy | Kind::Nginx),
        false => options.wants(entrant.name),
    };
    let entrants: Vec<&Entrant> =
        case.entrants.iter().filter(wanted).filter(|entrant| entrant.program().is_ok()).collect();
    let bench = Bench { options, places, valgrind: &valgrind, case, connections };
    let mut found: Vec<Vec<Pair>> = entrants.iter().map(|_| Vec::new()).collect();
    for pair in 0..PAIRS {
        for (entrant, pairs) in entrants.iter().zip(&mut found) {
            let list = pair == 0 && options.top > 0;
            pairs.push(bench.pair(entrant, list)?);
        }
    }
    let figures = |pairs: &[Pair]| spread(pairs.iter().map(|pair| pair.instructions).collect());
    let workers = |pairs: &[Pair]| spread(pairs.iter().map(|pair| pair.workers).collect());
    let reference = entrants.iter().position(|entrant| entrant.kind == Kind::HaProxy);
    let reference = reference.map(|at| figures(&found[at]).1);
    println!(
        "{:<14} {:>22} {:>10} {:>22} {:>16}",
        "", "instructions/request", "÷ HAProxy", "workers", "commits/request"
    );
    let whole = |(least, middle, most): (f64, f64, f64)| format!("{least:.0}/{middle:.0}/{most:.0}");
    let mut rows = Vec::new();
    for (entrant, pairs) in entrants.iter().zip(&found) {
        let (least, middle, most) = figures(pairs);
        let commits: Vec<f64> = pairs.iter().filter_map(|pair| pair.commits).collect();
        let commits = (!commits.is_empty()).then(|| spread(commits).1);
        let ratio = reference.map(|reference| middle / reference);
        let shown = |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{figure:.3}"));
        println!(
            "{:<14} {:>22} {:>10} {:>22} {:>16}",
            entrant.name,
            whole((least, middle, most)),
            shown(ratio),
            whole(workers(pairs)),
            shown(commits)
        );
        rows.push(json!({
            "name": entrant.name, "instructions": { "min": least, "median": middle, "max": most },
            "workers": workers(pairs).1, "commits": commits, "to_haproxy": ratio,
        }));
    }
    Ok(json!({
        "case": case.name, "connections": connections, "callgrind_requests": options.requests, "entrants": rows,
    }))
}

/// The cost of a request, computed from the difference of two runs.
struct Pair {
    instructions: f64,
    /// Instructions of Tollgate's workers, or of another gateway's busiest thread.
    workers: f64,
    commits: Option<f64>,
}

/// The parameters of all runs.
struct Bench<'a> {
    options: &'a Options,
    places: &'a Places,
    valgrind: &'a Path,
    case: &'static cases::Case,
    connections: u64,
}

impl Bench<'_> {
    /// Runs a gateway twice. If `list` is true, also prints the costliest functions.
    fn pair(&self, entrant: &Entrant, list: bool) -> Result<Pair> {
        let warm_up = self.count(entrant, WARM_UP)?;
        let all = self.count(entrant, WARM_UP + self.options.requests)?;
        let per = |all: u64, before: u64| (all as f64 - before as f64) / self.options.requests as f64;
        if list {
            println!("{}, instructions per request by function:", entrant.name);
            top(self.options, &all, &warm_up);
        }
        let threads = all
            .threads
            .iter()
            .map(|(thread, count)| per(*count, warm_up.threads.get(thread).copied().unwrap_or(0)));
        Ok(Pair {
            instructions: per(all.threads.values().sum(), warm_up.threads.values().sum()),
            workers: match entrant.kind {
                Kind::Tollgate => per(all.workers, warm_up.workers),
                _ => threads.fold(0.0, f64::max),
            },
            commits: all.commits.zip(warm_up.commits).map(|(all, before)| per(all, before)),
        })
    }

    /// Runs a gateway from its start to its end. Returns its counts.
    fn count(&self, entrant: &Entrant, requests: u64) -> Result<Counted> {
        let places = self.places;
        let folder = places.make("callgrind", false)?;
        let under = [
            self.valgrind.display().to_string(),
            "--tool=callgrind".to_owned(),
            "--quiet".to_owned(),
            "--separate-threads=yes".to_owned(),
            format!("--callgrind-out-file={}", folder.join("out").display()),
        ];
        let load =
            Load::new(self.case, places.disk(), self.connections, self.options.rate, places.load, true)?;
        let keys = Keys::new(if entrant.setup.stored == Some(true) { self.options.many_keys } else { KEYS });
        let mut peer = Peer::start(entrant, self.case, keys, places, &under)?;
        let hits = load.run(peer.port, peer.keys, Length::Requests(requests))?;
        if hits.failed(self.case) > 0 || hits.requests != requests {
            return Err(format!("{} did not respond to all requests under valgrind", entrant.name).into());
        }
        let commits = match entrant.kind {
            Kind::Tollgate => peers::status(&peer.folder)?["ledger_commits"].as_u64(),
            _ => None,
        };
        peer.process.stop()?;
        let (mut threads, mut workers, mut functions) = (BTreeMap::new(), 0, HashMap::new());
        for file in std::fs::read_dir(&folder)? {
            let file = file?;
            let text = std::fs::read_to_string(file.path())?;
            // If there are several files, the first belongs to no thread and has no totals.
            let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
            let Some(total) = total else { continue };
            let total = total.trim().parse()?;
            threads.insert(file.file_name(), total);
            workers += if text.contains(WORKER) { total } else { 0 };
            if self.options.top > 0 {
                by_function(&file.path(), &mut functions)?;
            }
        }
        if entrant.kind == Kind::Tollgate && workers == 0 {
            return Err(format!("no thread runs {WORKER}").into());
        }
        Ok(Counted { threads, workers, commits, functions })
    }
}

/// Adds up instructions by function, without those of the functions that it calls.
fn by_function(file: &Path, functions: &mut HashMap<String, u64>) -> Result<()> {
    let program = process::find("callgrind_annotate").ok_or("callgrind_annotate is not installed")?;
    let output = Command::new(program).args(["--threshold=100", "--auto=no"]).arg(file).output()?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((count, rest)) = line.trim().split_once(' ') else { continue };
        let (Ok(count), Some((_, name))) = (count.replace(',', "").parse::<u64>(), rest.split_once(")  "))
        else {
            continue;
        };
        if name == "PROGRAM TOTALS" {
            continue;
        }
        *functions.entry(name.to_owned()).or_default() += count;
    }
    Ok(())
}

/// Prints the functions that use the most instructions per request.
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
