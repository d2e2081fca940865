//! Whole requests through Tollgate and, where they are installed, through nginx and HAProxy.
//!
//! Keys, limits and credits are checked as in production; nothing is ever refused, so any answer
//! but 2xx fails the bench. The gateway runs on core 0; `wrk` and the upstream share core 1.
//! Rounds are interleaved and their order rotates, since single ones swing with the machine:
//! what counts is CPU per request, against HAProxy in the same round.
//!
//! `cargo bench --bench load -- [--short] [--rounds N] [--seconds S] [--connections C]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    missing_docs,
    reason = "a bench that meets the unexpected ends, and reads the real clock"
)]

mod client;
mod measure;
mod peers;
mod process;
mod report;
mod upstream;

use std::error::Error;
use std::process::ExitCode;

use measure::{Sample, Wrk};
use peers::{GRANT, Keys, Peer};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Credits and keys are spread over this many accounts.
const ACCOUNTS: usize = 100;
const KEYS: usize = 1_000;

/// How long and how hard.
struct Options {
    rounds: usize,
    seconds: u64,
    connections: u64,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { rounds: 5, seconds: 5, connections: 64 };
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64> {
                let text = arguments.next().ok_or(format!("{argument} needs a number"))?;
                let number = text.parse().map_err(|_| format!("{argument}: {text} is no number"))?;
                if number == 0 { Err(format!("{argument} is at least 1").into()) } else { Ok(number) }
            };
            match argument.as_str() {
                "--bench" => {}
                "--short" => (options.rounds, options.seconds) = (1, 1),
                "--rounds" => options.rounds = usize::try_from(number()?)?,
                "--seconds" => options.seconds = number()?,
                "--connections" => options.connections = number()?,
                _ => return Err(format!("unknown option {argument}; see benches/load/main.rs").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == upstream::ARGUMENT) {
        return match upstream::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        };
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("load: measures nothing under `cargo test`; run `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    match Options::read(arguments.into_iter()).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("\nBENCH FAILED: {message}");
    ExitCode::FAILURE
}

fn run(options: &Options) -> Result<()> {
    let cores = process::cores();
    match cores {
        Some((gateway, load)) => println!("cores: gateway on {gateway}, wrk and upstream on {load}"),
        None => println!("cores: not pinned (one core, or no taskset); figures are rough"),
    }
    let keys = Keys::make();
    let folder = tempfile::tempdir()?;
    println!(
        "ledger's folder: {}, fdatasync {:.0} µs (median of 50)",
        folder.path().display(),
        measure::fdatasync(folder.path())?
    );
    let wrk = Wrk::new(folder.path(), &keys, options.connections, cores.map(|(_, load)| load))?;
    let upstream = upstream::Upstream::start(cores.map(|(_, load)| load))?;
    let peers = Peer::start_all(folder.path(), &keys, upstream.port, cores.map(|(gateway, _)| gateway))?;
    for peer in &peers {
        peer.check(&keys)?;
    }
    let ceiling = wrk.run(upstream.port, 1)?;
    println!(
        "without a gateway: {:.1}k req/s, p50 {} µs, p99 {} µs\n",
        ceiling.rate() / 1e3,
        ceiling.p50,
        ceiling.p99
    );
    let samples = rounds(options, &peers, &wrk)?;
    report::table(&peers, &samples);
    report::threads(&peers, &samples);
    charged(&peers, &samples, &keys, options.connections)?;
    let failed: u64 = samples.iter().flatten().map(|sample| sample.hits.failed()).sum();
    if failed > 0 {
        return Err(format!("{failed} requests were not answered with 2xx: see the errors above").into());
    }
    Ok(())
}

/// Samples by peer, then by round; the first, of a second each, warms up and counts for nothing
/// but the money.
fn rounds(options: &Options, peers: &[Peer], wrk: &Wrk) -> Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 0..=options.rounds {
        let warm_up = round == 0;
        for turn in 0..peers.len() {
            let at = (round + turn) % peers.len();
            let sample = measure::sample(&peers[at], wrk, if warm_up { 1 } else { options.seconds })?;
            if !warm_up {
                report::line(round, &peers[at], &sample);
            }
            samples[at].push(sample);
        }
    }
    Ok(samples)
}

/// Every answered request is charged once; those that wrk cut off at the end of a run may be.
fn charged(peers: &[Peer], samples: &[Vec<Sample>], keys: &Keys, connections: u64) -> Result<()> {
    let Some(at) = peers.iter().position(Peer::is_tollgate) else { return Ok(()) };
    let mut left = 0;
    for account in 0..ACCOUNTS {
        left += client::balance(peers[at].port, keys.text(account))?;
    }
    let charged = GRANT * ACCOUNTS as u64 - left;
    let answered: u64 = samples[at].iter().map(|sample| sample.hits.requests).sum();
    let runs = samples[at].len() as u64;
    println!("\nmoney: {charged} credits charged for {answered} answers that wrk counted");
    let most = answered + runs * connections + peers::PROBES;
    if charged < answered || charged > most {
        return Err(format!("the books are wrong: expected {answered} to {most} credits charged").into());
    }
    Ok(())
}
