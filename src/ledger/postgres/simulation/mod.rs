//! Simulates a fleet on one thread, driven by a seed: gateways with the real threads of the ledger, in front of a real
//! PostgreSQL server whose clock is the simulation's.
//!
//! Messages are lost, answered to nobody or late; gateways crash, are cut off, given up and settled by another, and come
//! back; their clocks differ in speed and time. In the end, what clients were told determines what the ledger must contain.
//! A failing seed is repeated with `TOLLGATE_SEED=…`: the server's own threads may make it end differently.

#[allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "it is part of other tests, too"
)]
#[path = "../../../../tests/engines/postgres.rs"]
mod engine;
mod gateway;
mod judge;
#[allow(unreachable_pub, clippy::unwrap_used, reason = "it is part of other tests, too")]
#[path = "../../../../tests/engines/network.rs"]
mod network;
mod seen;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use engine::Postgres;
use network::Fault;
use seen::Seen;
use world::{Place, World};

/// The number of seeds to run: a few by default, 100,000 with `TOLLGATE_LONG=1`, or the number in `TOLLGATE_LONG`.
fn seeds() -> u64 {
    match std::env::var("TOLLGATE_LONG").as_deref() {
        Ok("1") => 100_000,
        Ok(seeds) => seeds.parse().unwrap(),
        Err(_) => 30,
    }
}

fn play(place: &Place, seed: u64, seen: &mut Seen) {
    if let Err(broken) = catch_unwind(AssertUnwindSafe(|| World::play(place, seed, seen))) {
        println!("seed {seed}: play it again with TOLLGATE_SEED={seed}");
        resume_unwind(broken);
    }
}

fn place() -> Option<(Postgres, Place)> {
    let Some(server) = Postgres::start() else {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is missing");
        println!("skipped: PostgreSQL is not installed");
        return None;
    };
    let place = Place::new(&server);
    Some((server, place))
}

/// Promise 2, whichever message of a fold is lost before a crash.
#[test]
fn a_fold_charges_and_takes_from_the_lease_or_does_neither() {
    let Some((_server, place)) = place() else { return };
    let mut seen = Seen::default();
    let is_long = std::env::var_os("TOLLGATE_LONG").is_some();
    for fault in [Fault::Lost, Fault::Unanswered].into_iter().take(if is_long { 2 } else { 1 }) {
        let messages =
            (0..).take_while(|after| World::interrupt_a_fold(&place, *after, fault, &mut seen)).count();
        assert!(messages > 3, "{messages}");
        println!("{messages} messages of a fold, each {fault:?} once");
    }
}

/// Promises 1 to 4 over a fleet: requests, leases and grants, without jobs, idempotency keys and spending limits.
#[test]
fn no_seed_breaks_the_books_of_a_fleet() {
    let Some((_server, place)) = place() else { return };
    let mut seen = Seen::default();
    if let Ok(seed) = std::env::var("TOLLGATE_SEED") {
        play(&place, seed.parse().unwrap(), &mut seen);
    } else {
        // Another part of the seeds with each TOLLGATE_FIRST, so that several processes share a long run.
        let first: u64 = std::env::var("TOLLGATE_FIRST").map_or(0, |first| first.parse().unwrap());
        (first..first + seeds()).for_each(|seed| play(&place, seed, &mut seen));
        seen.is_enough();
    }
    println!("{seen:?}");
}
