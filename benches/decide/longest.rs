//! Benchmarks the operations that can keep a worker busy longest with a single input of the largest allowed size. Each
//! must take less than a millisecond.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use http::HeaderName;
use tollgate::policy::json::{Pointer, PointerReader};
use tollgate::policy::key::KeySource;
use tollgate::policy::path::normalise;
use tollgate::snapshot::Snapshot;
use tollgate::types::KeyHash;

/// The default of `max_header_size`, in bytes.
const HEAD: usize = 32 * 1024;
/// Bytes of a response body that a worker parses for a price before it serves other requests.
const SLICE: usize = 64 * 1024;

/// A configuration with this many routes.
fn snapshot(routes: usize) -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = "[upstreams.a]\nservers = [\"http://127.0.0.1:9\"]\n".to_owned();
    for at in 0..routes {
        text += &format!(
            "[[routes]]\nname = \"r{at}\"\npath = \"/a{at}/{{x}}\"\nupstream = \"a\"\ncredits = 1\n"
        );
    }
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).expect("a file");
    tollgate::config::load(&path).expect("a configuration").snapshot
}

pub fn longest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("longest");
    let paths = [
        ("path_decoded_twice", "%2541".repeat(HEAD / 5)),
        ("path_decoded_again", "%25252541".repeat(HEAD / 9)),
    ];
    for (name, text) in paths {
        let path = format!("/{text}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(normalise(black_box(&path), false)).is_ok());
        });
    }
    let keys = KeySource {
        header: HeaderName::from_static("x-api-key"),
        bearer: false,
        refuse_query: ["api_key", "apikey", "x-api-key"].map(str::to_owned).to_vec(),
    };
    for (name, pair) in [("query_of_parameters", "a&"), ("query_encoded", "%41=&")] {
        let query = pair.repeat(HEAD / pair.len());
        group
            .bench_function(name, |bencher| bencher.iter(|| black_box(keys.refuse(Some(black_box(&query))))));
    }
    let key = "k".repeat(512);
    group.bench_function("key_sha256", |bencher| bencher.iter(|| KeyHash::of(black_box(key.as_bytes()))));
    let bodies = [
        ("json_of_text", format!("[\"{}", "a".repeat(SLICE))),
        ("json_of_numbers", format!("[{}", "0,".repeat(SLICE / 2))),
        ("json_of_names", format!("{{{}", "\"ab\":1,".repeat(SLICE / 7))),
        ("json_of_escapes", format!("[\"{}", "\\u0041".repeat(SLICE / 6))),
    ];
    for (name, body) in bodies {
        let reader = PointerReader::new(Pointer::parse("/ac").expect("a pointer"));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || reader.clone(),
                |mut reader| {
                    reader.read(black_box(body.as_bytes()));
                    reader
                },
                BatchSize::SmallInput,
            );
        });
    }
    // The control plane frees a replaced configuration, because freeing it takes longer than a worker may be busy.
    group.bench_function("free_2000_routes", |bencher| {
        bencher.iter_batched(|| snapshot(2_000), drop, BatchSize::PerIteration);
    });
    group.finish();
}
