//! Generates the load with wrk, h2load or the bench's own generator, and reads its results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cases::{Case, Style, Unit, Wire};
use crate::keys::Keys;
use crate::process::{self, Running};
use crate::upstream::EVENT_COUNT;
use crate::{Result, client, generator};

/// Marks the line that wrk's script prints.
const MARK: &str = "RESULT";

/// The length of a run.
#[derive(Clone, Copy)]
pub enum Length {
    Seconds(u64),
    Requests(u64),
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    pub requests: u64,
    pub seconds: f64,
    /// Responses of 400 and above.
    pub refused: u64,
    /// Connections that failed, and requests without a response in time.
    pub broken: u64,
    /// Median latency in µs.
    pub p50: u64,
    pub p99: u64,
    /// Received bytes of responses, heads included.
    pub bytes: u64,
    pub events: u64,
    /// Requests without a response when the run ended.
    pub cut_off: u64,
}

impl Hits {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Responses that the case does not expect, and requests without a response.
    pub fn failed(&self, case: &Case) -> u64 {
        let wrong = if case.status < 400 { self.refused } else { self.requests - self.refused };
        let whole = case.unit != Unit::Event || self.events == self.requests * EVENT_COUNT;
        wrong + self.broken + u64::from(!whole)
    }

    /// Responses that an account is charged for.
    pub fn paid(&self) -> u64 {
        self.requests - self.refused
    }
}

/// The load generator of a case.
pub struct Load {
    wrk: Option<PathBuf>,
    folder: PathBuf,
    case: &'static Case,
    connections: u64,
    rate: Option<u64>,
    core: Option<usize>,
}

impl Load {
    /// If `own` is true, the bench's own generator is used even where the case asks for wrk and wrk is installed.
    pub fn new(
        case: &'static Case,
        folder: &Path,
        connections: u64,
        rate: u64,
        core: Option<usize>,
        own: bool,
    ) -> Result<Self> {
        let wrk = process::find("wrk").filter(|_| case.style == Style::Wrk && !own);
        if wrk.is_none() && case.style == Style::Wrk && !own {
            println!("wrk is not installed: the bench's own load takes its place");
        }
        let rate = (case.style == Style::Rate).then_some(rate);
        Ok(Self { wrk, folder: folder.to_owned(), case, connections, rate, core })
    }

    /// Sends requests to a port, with the keys of some accounts.
    pub fn run(&self, port: u16, keys: Keys, length: Length) -> Result<Hits> {
        let list = self.folder.join(format!("keys-{}-{}", keys.count, self.case.unknown_keys));
        if !list.exists() {
            fs::write(&list, keys.lines(self.case.unknown_keys))?;
        }
        let hits = match (&self.wrk, length) {
            (_, Length::Seconds(seconds)) if self.case.wire == Wire::Http2 => {
                self.h2load(port, &list, seconds)
            }
            (Some(wrk), Length::Seconds(seconds)) => self.wrk(wrk, port, &list, seconds),
            _ => self.own(port, &list, length),
        }?;
        if hits.requests == 0 {
            return Err(format!("the load got no responses; {} requests broke", hits.broken).into());
        }
        Ok(hits)
    }

    fn wrk(&self, program: &Path, port: u16, list: &Path, seconds: u64) -> Result<Hits> {
        let (before, mut after) = client::around(self.case.path, port, self.case.body);
        if self.case.wire == Wire::TlsAnew {
            after.insert_str(0, "\r\nConnection: close");
        }
        let scheme = if self.case.wire == Wire::Plain { "http" } else { "https" };
        let list = list.display();
        let text = format!(
            r#"
local requests, at = {{}}, 0
function init()
    for key in io.lines("{list}") do
        requests[#requests + 1] = {before:?} .. key .. {after:?}
    end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
function done(summary, latency)
    local e = summary.errors
    io.write(string.format("{MARK} %d %d %d %d %d %d %.0f\n", summary.requests, summary.duration, e.status,
        e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99), summary.bytes))
end
"#
        );
        let script = self.folder.join("wrk.lua");
        fs::write(&script, text)?;
        let mut command = process::command(program, self.core);
        command.args(["-t1", "--latency", &format!("-c{}", self.connections), &format!("-d{seconds}s")]);
        command.arg("-s").arg(&script).arg(format!("{scheme}://127.0.0.1:{port}{}", self.case.path));
        let output = said(&mut command)?;
        let numbers = output.lines().find_map(|line| line.strip_prefix(MARK));
        let numbers: Vec<u64> =
            numbers.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [requests, micros, refused, broken, p50, p99, bytes] = numbers[..] else {
            return Err(format!("wrk does not say what it counted:\n{output}").into());
        };
        let (seconds, cut_off) = (micros as f64 / 1e6, self.connections);
        Ok(Hits { requests, seconds, refused, broken, p50, p99, bytes, events: 0, cut_off })
    }

    /// Runs h2load with one key, because h2load accepts only one. It reports the mean and the maximum of latencies.
    fn h2load(&self, port: u16, list: &Path, seconds: u64) -> Result<Hits> {
        const AT_ONCE: &str = "4";
        let program = process::find("h2load").ok_or("h2load is not installed (Debian: nghttp2-client)")?;
        let key = fs::read_to_string(list)?.lines().next().unwrap_or_default().to_owned();
        let mut command = process::command(&program, self.core);
        command.args(["-t1", "-m", AT_ONCE, &format!("-c{}", self.connections), &format!("-D{seconds}")]);
        command.arg("-H").arg(format!("x-api-key: {key}"));
        let output = said(command.arg(format!("http://127.0.0.1:{port}{}", self.case.path)))?;
        let numbers = |start: &str| -> Vec<u64> {
            let line = output.lines().find_map(|line| line.trim().strip_prefix(start)).unwrap_or_default();
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
        };
        let ([_, _, requests, _, failed, ..], [right, ..]) =
            (&numbers("requests:")[..], &numbers("status codes:")[..])
        else {
            return Err(format!("h2load does not say what it counted:\n{output}").into());
        };
        let (answered, seconds) = (requests.max(right), seconds as f64);
        Ok(Hits {
            requests: *answered,
            seconds,
            refused: answered - right,
            broken: *failed,
            cut_off: 4 * self.connections,
            ..Hits::default()
        })
    }

    fn own(&self, port: u16, list: &Path, length: Length) -> Result<Hits> {
        let (before, after) = client::around(self.case.path, port, self.case.body);
        let (seconds, requests) = match length {
            Length::Seconds(seconds) => (Some(seconds), self.rate.map(|rate| rate * seconds)),
            Length::Requests(requests) => (None, Some(requests)),
        };
        let plan = json!({
            "port": port, "connections": self.connections, "seconds": seconds, "requests": requests,
            "rate": self.rate, "keys": list, "before": before, "after": after,
        });
        let mut command = process::command(&std::env::current_exe()?, self.core);
        let output = said(command.arg(generator::ARGUMENT).arg(plan.to_string()))?;
        let counted: Value = serde_json::from_str(&output)
            .map_err(|_| format!("the load does not say what it counted: {output}"))?;
        let number = |name: &str| counted[name].as_u64().unwrap_or(0);
        Ok(Hits {
            requests: number("requests"),
            seconds: number("micros") as f64 / 1e6,
            refused: number("refused"),
            broken: number("broken"),
            p50: number("p50"),
            p99: number("p99"),
            bytes: number("bytes"),
            events: number("events"),
            cut_off: number("broken"),
        })
    }
}

/// Runs a program to its end. Returns its standard output.
fn said(command: &mut Command) -> Result<String> {
    let mut process = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = process.child().stdout.take().ok_or("a load without output")?;
    Ok(std::io::read_to_string(output)?)
}
