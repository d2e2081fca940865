//! What is printed.

use std::collections::BTreeSet;

use crate::measure::Sample;
use crate::peers::Peer;

/// Share of its core below which a gateway was not what the load waited for.
const SATURATED: f64 = 0.9;

/// Least, median and most.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    };
    (at(0), median, at(values.len().saturating_sub(1)))
}

/// One peer's part of a round, as it goes.
pub fn line(round: usize, peer: &Peer, sample: &Sample) {
    let (hits, cpu, busy) = (&sample.hits, sample.cpu(), sample.busy() * 100.0);
    let (name, rate) = (peer.name(), hits.rate() / 1e3);
    let (p50, p99) = (hits.p50, hits.p99);
    println!(
        "round {round}  {name:<9} {rate:6.1}k req/s  p50 {p50:>6} µs  p99 {p99:>6} µs  CPU {cpu:6.2} µs  busy {busy:3.0} %"
    );
    if hits.failed() > 0 {
        println!(
            "  !!! {name}: {} answers were not 2xx, {} requests broke !!!",
            hits.bad_status, hits.broken
        );
    }
}

/// Rounds without the one that warmed up.
fn counted(samples: &[Sample]) -> &[Sample] {
    samples.get(1..).unwrap_or_default()
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    spread(counted(samples).iter().map(value).collect()).1
}

/// Medians over rounds; ratios pair by pair.
pub fn table(peers: &[Peer], samples: &[Vec<Sample>]) {
    let reference = peers.iter().position(Peer::is_reference).map(|at| &samples[at]);
    println!("\nmedians of the rounds; CPU and its ratio to HAProxy as min/median/max");
    let (cpu, ratio) = ("CPU µs/req", "÷ HAProxy");
    println!("gateway      req/s   p50 µs   p99 µs   busy {cpu:>22} {ratio:>17}  errors");
    for (peer, samples) in peers.iter().zip(samples) {
        let rounds = counted(samples);
        let (least, middle, most) = spread(rounds.iter().map(Sample::cpu).collect());
        let cpu = format!("{least:.2}/{middle:.2}/{most:.2}");
        let ratio = reference.map_or("–".to_owned(), |reference| {
            let pairs = rounds.iter().zip(counted(reference));
            let (least, middle, most) = spread(pairs.map(|(own, other)| own.cpu() / other.cpu()).collect());
            format!("{least:.2}/{middle:.2}/{most:.2}")
        });
        let errors: u64 = samples.iter().map(|sample| sample.hits.failed()).sum();
        let (rate, busy) = (median(samples, |sample| sample.hits.rate()), median(samples, Sample::busy));
        let p50 = median(samples, |sample| sample.hits.p50 as f64);
        let p99 = median(samples, |sample| sample.hits.p99 as f64);
        println!(
            "{:<9} {rate:>8.0} {p50:>8.0} {p99:>8.0} {:>4.0} % {cpu:>22} {ratio:>17} {errors:>7}",
            peer.name(),
            busy * 100.0
        );
    }
    let idle = samples
        .iter()
        .flat_map(|samples| counted(samples))
        .filter(|sample| sample.busy() < SATURATED)
        .count();
    if idle > 0 {
        println!(
            "in {idle} runs the gateway had less than {:.0} % of its core: req/s and latencies are",
            SATURATED * 100.0
        );
        println!("then the machine's, not its; CPU per request still tells something");
    }
}

/// Where Tollgate's CPU goes, by thread.
pub fn threads(peers: &[Peer], samples: &[Vec<Sample>]) {
    let Some(at) = peers.iter().position(Peer::is_tollgate) else { return };
    let names: BTreeSet<&str> =
        samples[at].iter().flat_map(|sample| sample.threads.keys().map(String::as_str)).collect();
    println!("\ntollgate's CPU µs per request by thread, medians");
    for name in names {
        let ns = |sample: &Sample| sample.threads.get(name).copied().unwrap_or(0) as f64;
        println!(
            "  {name:<16} {:6.2}",
            median(&samples[at], |sample| ns(sample) / 1e3 / sample.hits.requests as f64)
        );
    }
}
