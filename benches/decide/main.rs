//! Benchmarks one decision in ns: each step alone and all steps together, with few keys and with many.
//!
//! Keys are used in a shuffled order, so that 100,000 keys miss the CPU caches as they would with real clients.

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

mod cores;
mod longest;
mod world;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use http::{HeaderMap, Method};
use tollgate::policy::path::normalise;
use tollgate::types::KeyHash;

use world::{HOST, PATH, World, key_text};

/// The allocator that the gateway runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: [usize; 2] = [1_000, 100_000];

/// Benchmarks the steps whose cost does not depend on the number of keys.
fn steps(criterion: &mut Criterion) {
    let world = World::new(1_000, "gcra");
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("path_normalise", |bencher| {
        bencher.iter(|| black_box(normalise(black_box(PATH), false)));
    });
    group.bench_function("route_find", |bencher| {
        bencher
            .iter(|| black_box(world.view.table.find(Some(black_box(HOST)), black_box(PATH), &Method::POST)));
    });
    group.bench_function("key_read", |bencher| bencher.iter(|| black_box(world.read_key())));
    let text = key_text(7);
    group.bench_function("key_sha256", |bencher| {
        bencher.iter(|| black_box(KeyHash::of(black_box(text.as_bytes()))));
    });
    let (key, route) = (world.key(&KeyHash::of(text.as_bytes())), world.priced_route());
    group.bench_function("key_rules", |bencher| bencher.iter(|| world.permit(black_box(&key), route)));
    let response = HeaderMap::new();
    group.bench_function("price_at_head", |bencher| {
        bencher.iter(|| black_box(world.price(black_box(route), &response)));
    });
    group.bench_function("clock_now", |bencher| bencher.iter(|| black_box(world.clock.now())));
    group.bench_function("clock_wall", |bencher| bencher.iter(|| black_box(world.clock.wall())));
    group.finish();
}

/// Benchmarks the steps whose cost depends on the number of keys.
fn by_keys(criterion: &mut Criterion) {
    let response = HeaderMap::new();
    for keys in KEYS {
        for plan in ["gcra", "window"] {
            let mut world = World::new(keys, plan);
            let hashes: Vec<_> = (0..keys).map(|at| KeyHash::of(world.secret(at))).collect();
            let found: Vec<_> = hashes.iter().map(|hash| world.key(hash)).collect();
            let mut group = criterion.benchmark_group("decide");
            if plan == "gcra" {
                group.bench_function(BenchmarkId::new("directory_find", keys), |bencher| {
                    bencher.iter(|| {
                        let at = world.turn();
                        black_box(world.key(&hashes[at]))
                    });
                });
            }
            group.bench_function(BenchmarkId::new(format!("admit_{plan}"), keys), |bencher| {
                bencher.iter(|| {
                    let at = world.turn();
                    world.admit(&found[at], world.priced_route());
                });
            });
            world.view.settings.ietf_headers = false;
            group.bench_function(
                BenchmarkId::new(format!("admit_{plan}_without_headers"), keys),
                |bencher| {
                    bencher.iter(|| {
                        let at = world.turn();
                        world.admit(&found[at], world.priced_route());
                    });
                },
            );
            world.view.settings.ietf_headers = true;
            group.bench_function(BenchmarkId::new(format!("together_{plan}"), keys), |bencher| {
                bencher.iter(|| {
                    let at = world.turn();
                    black_box(world.decide(at, &response))
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = steps, longest::longest, by_keys
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // Runs only if `cores` is selected, or if there is no filter: `cargo bench --bench decide`.
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if asked.iter().any(|word| word == "cores") || asked == ["--bench"] {
        cores::compare();
    }
}
