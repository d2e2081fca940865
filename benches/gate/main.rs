//! Measures the gateway from outside: with slow clients, idle connections, rejected keys and event streams.
//!
//! `cargo bench --bench gate -- [--only slow,idle,refusals,streams]` starts the real program and prints the figures.
//! `--smoke` runs everything with tiny sizes and checks no figure: `cargo test --bench gate -- --smoke`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a bench that meets the unexpected ends, and looks at the real clock"
)]

mod gateway;
mod idle;
mod refusals;
mod slow;
mod streams;
mod upstream;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The sizes of each measurement.
struct Sizes {
    /// Number of slow clients, number of rounds, and how long the good clients send requests in a round.
    slow: (usize, usize, Duration),
    /// The two numbers of idle connections whose memory is compared.
    idle: [usize; 2],
    /// How long the allocator gets to return unused memory before memory is read.
    settle: Duration,
    /// Samples of each kind of rejected key.
    refusals: usize,
    /// Number of event streams at the same time, and the pause between two events.
    streams: (usize, Duration),
}

const FULL: Sizes = Sizes {
    slow: (5_000, 8, Duration::from_secs(4)),
    idle: [3_000, 9_000],
    settle: Duration::from_secs(3),
    refusals: 100_000,
    streams: (9_000, Duration::from_secs(4)),
};

const SMOKE: Sizes = Sizes {
    slow: (30, 1, Duration::from_millis(300)),
    idle: [5, 10],
    settle: Duration::from_millis(50),
    refusals: 50,
    streams: (20, Duration::from_millis(50)),
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let sizes = if smoke { SMOKE } else { FULL };
    let only = arguments.iter().position(|argument| argument == "--only").map(|at| &arguments[at + 1]);
    let wanted = |name: &str| only.is_none_or(|only| only.split(',').any(|part| part == name));
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let upstream = upstream::start(sizes.streams.1);
    if wanted("slow") {
        slow::run(upstream, sizes.slow);
    }
    if wanted("idle") {
        idle::run(upstream, sizes.idle, sizes.settle);
    }
    if wanted("refusals") {
        refusals::run(upstream, sizes.refusals);
    }
    if wanted("streams") {
        streams::run(upstream, sizes.streams);
    }
}
