//! One run of wrk, and the CPU that a gateway spent on it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::peers::{Keys, PATH, Peer};
use crate::process::{self, Running};

/// A gateway may finish its work (Tollgate folds its journal each second) before CPU is read.
const AFTERMATH: Duration = Duration::from_millis(1_200);
/// Marks the line that the script prints.
const MARK: &str = "RESULT";

/// wrk with its script.
pub struct Wrk {
    program: PathBuf,
    script: PathBuf,
    connections: u64,
    core: Option<usize>,
}

/// What wrk counted.
pub struct Hits {
    pub requests: u64,
    pub seconds: f64,
    /// Answers of 400 and above.
    pub bad_status: u64,
    /// Connections that failed, and requests without an answer in time.
    pub broken: u64,
    /// In µs.
    pub p50: u64,
    pub p99: u64,
}

impl Hits {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    pub fn failed(&self) -> u64 {
        self.bad_status + self.broken
    }
}

impl Wrk {
    pub fn new(folder: &Path, keys: &Keys, connections: u64, core: Option<usize>) -> Result<Self> {
        let program = process::find("wrk").ok_or("wrk is not installed, and nothing else makes the load")?;
        let (script, list) = (folder.join("keys.lua"), folder.join("keys.txt"));
        fs::write(&list, keys.lines())?;
        let list = list.display();
        let text = format!(
            r#"
local requests, at = {{}}, 0
function init()
    for key in io.lines("{list}") do
        requests[#requests + 1] = wrk.format("GET", "{PATH}", {{ ["x-api-key"] = key }})
    end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
function done(summary, latency)
    local e = summary.errors
    io.write(string.format("{MARK} %d %d %d %d %d %d\n", summary.requests, summary.duration, e.status,
        e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#
        );
        fs::write(&script, text)?;
        Ok(Self { program, script, connections, core })
    }

    /// Asks a port for some seconds.
    pub fn run(&self, port: u16, seconds: u64) -> Result<Hits> {
        let mut command = process::command(&self.program, self.core);
        command.args(["-t1", "--latency", &format!("-c{}", self.connections), &format!("-d{seconds}s")]);
        command.arg("-s").arg(&self.script).arg(format!("http://127.0.0.1:{port}{PATH}"));
        let mut process = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().ok_or("wrk has no output")?;
        let output = std::io::read_to_string(output)?;
        let numbers = output.lines().find_map(|line| line.strip_prefix(MARK));
        let numbers: Vec<u64> =
            numbers.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [requests, micros, bad_status, broken, p50, p99] = numbers[..] else {
            return Err(format!("wrk does not say what it counted:\n{output}").into());
        };
        if requests == 0 {
            return Err("wrk got no answers".into());
        }
        Ok(Hits { requests, seconds: micros as f64 / 1e6, bad_status, broken, p50, p99 })
    }
}

/// One peer's part of a round.
pub struct Sample {
    pub hits: Hits,
    /// On-CPU nanoseconds by the threads' names.
    pub threads: BTreeMap<String, u64>,
}

impl Sample {
    fn cpu_ns(&self) -> u64 {
        self.threads.values().sum()
    }

    /// µs of CPU per request.
    pub fn cpu(&self) -> f64 {
        self.cpu_ns() as f64 / 1e3 / self.hits.requests as f64
    }

    /// Share of one core.
    pub fn busy(&self) -> f64 {
        self.cpu_ns() as f64 / 1e9 / self.hits.seconds
    }
}

pub fn sample(peer: &Peer, wrk: &Wrk, seconds: u64) -> Result<Sample> {
    let before = cpu(peer.process_id())?;
    let hits = wrk.run(peer.port, seconds)?;
    std::thread::sleep(AFTERMATH);
    let mut threads: BTreeMap<String, u64> = BTreeMap::new();
    for (thread, (name, ns)) in cpu(peer.process_id())? {
        let earlier = before.get(&thread).map_or(0, |(_, ns)| *ns);
        *threads.entry(name).or_default() += ns.saturating_sub(earlier);
    }
    Ok(Sample { hits, threads })
}

/// Names and on-CPU nanoseconds of a process's threads. One that ended in between is lost; the
/// gateways end none that matters.
fn cpu(process: u32) -> Result<BTreeMap<u32, (String, u64)>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let read = |file| fs::read_to_string(entry.path().join(file));
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        let ns = times.split(' ').next().unwrap_or_default().parse()?;
        let number = entry.file_name().to_string_lossy().parse()?;
        threads.insert(number, (name.trim().to_owned(), ns));
    }
    Ok(threads)
}

/// Median µs of a small write that reaches the disk, in the ledger's folder.
pub fn fdatasync(folder: &Path) -> Result<f64> {
    const WRITES: usize = 50;
    const BLOCK: [u8; 4096] = [7; 4096];
    let name = folder.join("fdatasync");
    let mut file = File::create(&name)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let start = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(name)?;
    Ok(crate::report::spread(times).1)
}
