//! What is tried against the gate from outside: slow clients, idle ones, guessed keys, event streams.
//!
//! `cargo bench --bench gate -- [--only slow,idle,refusals,streams]` starts the real program and
//! prints what was seen. `--smoke` runs all of it with tiny sizes and judges nothing:
//! `cargo test --bench gate -- --smoke`.

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

/// How much is tried.
struct Sizes {
    /// Slow clients, rounds, and how long a round's good clients ask.
    slow: (usize, usize, Duration),
    /// Idle connections between which memory is compared.
    idle: [usize; 2],
    /// How long the allocator gets to give back what is no longer needed.
    settle: Duration,
    /// Samples of each kind of refusal.
    refusals: usize,
    /// Event streams at once, and the pause between events.
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
