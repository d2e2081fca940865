//! Prints the results, and converts them to JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cases::{Case, Style, Unit};
use crate::measure::Sample;
use crate::peers::Peer;
use crate::places::Places;
use crate::spread::{Spread, spread};

/// If a gateway used less than this share of its core, the gateway was not the bottleneck.
const SATURATED: f64 = 0.9;

/// An entrant with its rounds. The first round is the warm-up.
pub struct Entry {
    pub name: &'static str,
    reference: bool,
    threads: bool,
    pub samples: Vec<Sample>,
}

impl Entry {
    pub fn new(peer: &Peer, samples: Vec<Sample>) -> Self {
        Self { name: peer.name, reference: peer.is_reference(), threads: peer.charges(), samples }
    }

    /// All rounds except the warm-up.
    fn counted(&self) -> &[Sample] {
        self.samples.get(1..).unwrap_or_default()
    }

    fn spread(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        spread(self.counted().iter().map(value).collect())
    }

    fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(value).1
    }

    /// A figure divided by the same figure of another entrant, round by round.
    fn ratio(&self, other: &Self, value: impl Fn(&Sample) -> f64) -> Spread {
        let pairs = self.counted().iter().zip(other.counted());
        spread(pairs.map(|(own, other)| value(own) / value(other)).collect())
    }

    /// Requests that failed. If the case is about a limit, the first round is not checked, because it uses the limit
    /// up.
    pub fn failed(&self, case: &Case) -> u64 {
        let judged = if case.status == 429 { self.counted() } else { &self.samples };
        judged.iter().map(|sample| sample.hits.failed(case)).sum()
    }
}

fn shown((least, middle, most): Spread) -> String {
    if middle.is_nan() { "–".to_owned() } else { format!("{least:.2}/{middle:.2}/{most:.2}") }
}

/// Prints the measurements of one entrant as soon as its part of a round ends.
pub fn line(case: &Case, round: usize, name: &str, sample: &Sample) {
    let (hits, cpu, busy) = (&sample.hits, sample.cpu(case.unit), sample.busy() * 100.0);
    let (rate, p50, p99, label) = (hits.rate() / 1e3, hits.p50, hits.p99, case.unit.label());
    println!(
        "round {round}  {name:<14} {rate:6.1}k req/s  p50 {p50:>6} µs  p99 {p99:>6} µs  {cpu:6.2} {label}  busy {busy:3.0} %"
    );
    let failed = hits.failed(case);
    if failed > 0 {
        println!("  !!! {name}: {failed} requests were not answered with {} !!!", case.status);
    }
}

/// Prints medians over all rounds. Ratios compare entrants in the same round.
pub fn table(case: &Case, entries: &[Entry], places: &Places) {
    let reference = entries.iter().find(|entry| entry.reference);
    let (disk, tmpfs) = places.fdatasync;
    let tmpfs = tmpfs.map_or("none".to_owned(), |micros| format!("{micros:.0} µs"));
    println!("\n{}: {}; fdatasync on disk {disk:.0} µs, on tmpfs {tmpfs}", case.name, case.about);
    println!("medians of the rounds; CPU and its ratio to HAProxy's in the same round as min/median/max");
    println!(
        "{:<14} {:>7} {:>7} {:>7} {:>6} {:>20} {:>13} {:>15} {:>15} {:>6}",
        "",
        "req/s",
        "p50 µs",
        "p99 µs",
        "busy",
        case.unit.label(),
        "user/sys",
        "÷ HAProxy",
        "user ÷",
        "errors"
    );
    for entry in entries {
        let (cpu, user) = (|sample: &Sample| sample.cpu(case.unit), |sample: &Sample| sample.user(case.unit));
        let system = entry.median(|sample| cpu(sample) - user(sample));
        let ratio = |value: &dyn Fn(&Sample) -> f64| match reference {
            Some(reference) => shown(entry.ratio(reference, value)),
            None => "–".to_owned(),
        };
        println!(
            "{:<14} {:>7.0} {:>7.0} {:>7.0} {:>4.0} % {:>20} {:>13} {:>15} {:>15} {:>6}",
            entry.name,
            entry.median(|sample| sample.hits.rate()),
            entry.median(|sample| sample.hits.p50 as f64),
            entry.median(|sample| sample.hits.p99 as f64),
            entry.median(Sample::busy) * 100.0,
            shown(entry.spread(cpu)),
            format!("{:.2}/{system:.2}", entry.median(user)),
            ratio(&cpu),
            ratio(&user),
            entry.failed(case)
        );
    }
    pairs(case, entries);
    idle(case, entries);
    entries.iter().filter(|entry| entry.threads).for_each(|entry| threads(case.unit, entry));
}

/// Prints the comparisons that a case was made for.
fn pairs(case: &Case, entries: &[Entry]) {
    for (one, other) in case.pairs {
        let find = |name: &str| entries.iter().find(|entry| entry.name == name);
        let (Some(own), Some(base)) = (find(one), find(other)) else { continue };
        let p99 = own.counted().iter().zip(base.counted());
        let p99 = p99.map(|(own, base)| own.hits.p99 as f64 - base.hits.p99 as f64).collect();
        let (least, middle, most) = spread(p99);
        let cpu = shown(own.ratio(base, |sample| sample.cpu(case.unit)));
        println!("{one} beside {other}: CPU × {cpu}, p99 {least:+.0}/{middle:+.0}/{most:+.0} µs");
    }
}

fn idle(case: &Case, entries: &[Entry]) {
    let rounds = entries.iter().flat_map(Entry::counted);
    let idle = rounds.filter(|sample| sample.busy() < SATURATED).count();
    if idle > 0 && case.style == Style::Wrk {
        println!(
            "in {idle} runs the gateway had less than {:.0} % of its core: req/s and latencies are then not its own",
            SATURATED * 100.0
        );
    }
}

/// Prints Tollgate's CPU time by thread.
fn threads(unit: Unit, entry: &Entry) {
    let names: BTreeSet<&str> =
        entry.samples.iter().flat_map(|sample| sample.threads.keys().map(String::as_str)).collect();
    let parts = names.iter().map(|name| {
        let share = |sample: &Sample| {
            let all: u64 = sample.threads.values().sum();
            let own = sample.threads.get(*name).copied().unwrap_or(0);
            sample.cpu(unit) * own as f64 / all as f64
        };
        format!("{name} {:.2}", entry.median(share))
    });
    println!("{}'s {} by thread: {}", entry.name, unit.label(), parts.collect::<Vec<_>>().join(", "));
}

/// A case as JSON, with every round, so that other figures can be computed.
pub fn json(case: &Case, connections: u64, entries: &[Entry]) -> Value {
    let reference = entries.iter().find(|entry| entry.reference);
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let rounds: Vec<Value> = entry.counted().iter().map(|sample| round(case, sample)).collect();
            let ratio = |value: &dyn Fn(&Sample) -> f64| {
                reference.map(|reference| {
                    let (min, median, max) = entry.ratio(reference, value);
                    json!({ "min": min, "median": median, "max": max })
                })
            };
            json!({
                "name": entry.name,
                "rounds": rounds,
                "cpu_to_haproxy": ratio(&|sample| sample.cpu(case.unit)),
                "user_to_haproxy": ratio(&|sample| sample.user(case.unit)),
            })
        })
        .collect();
    json!({ "case": case.name, "connections": connections, "unit": case.unit.label(), "entrants": entries })
}

fn round(case: &Case, sample: &Sample) -> Value {
    let hits = &sample.hits;
    json!({
        "requests": hits.requests,
        "seconds": hits.seconds,
        "bytes": hits.bytes,
        "events": hits.events,
        "failed": hits.failed(case),
        "p50_us": hits.p50,
        "p99_us": hits.p99,
        "cpu": sample.cpu(case.unit),
        "user_cpu": sample.user(case.unit),
        "busy": sample.busy(),
        "threads_ns": sample.threads,
    })
}
