//! Sends raw requests that other servers handled wrongly to the real gateway, and checks the verdict of each.
//!
//! The corpus is beside the project, in `../shared/corpora`. If it is absent, these tests report that and pass. After
//! each case, a clean request on a new connection must get its own response. Every request that reaches the upstream
//! must carry exactly one request id, made by the gateway, and each request with a key must be charged once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test that meets the unexpected ends, and looks at the real clock"
)]

mod case;
mod frames;
mod judge;
mod place;
#[path = "../skips.rs"]
#[expect(dead_code, reason = "a collection cannot be installed")]
mod skips;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use case::Case;
use place::{Place, Routes};

/// Number of gateways that cases are spread over, each with its own upstream.
const PLACES: usize = 6;

/// Reads the cases of a file; `None` if the corpus is absent.
fn cases(file: &str) -> Option<Vec<Case>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let path: PathBuf = folder.join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        skips::skipped(&format!("the collection {file} is absent"));
        return None;
    };
    Some(text.lines().map(|line| Case::read(&serde_json::from_str(line).unwrap())).collect())
}

/// Replays cases, and fails with the list of those that miss their verdict.
fn replay(cases: &[Case], routes: Routes, one: impl Fn(&Place, &Case) -> Result<(), String> + Sync) {
    let (next, misses) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PLACES {
            scope.spawn(|| {
                let place = Place::open(routes);
                loop {
                    let Some(case) = next.lock().unwrap().next() else { break };
                    if let Err(miss) = one(&place, case) {
                        misses.lock().unwrap().push(format!("{} ({}): {miss}", case.id, case.expect));
                    }
                }
                if let Err(miss) = place.close() {
                    misses.lock().unwrap().push(miss);
                }
            });
        }
    });
    let misses = misses.into_inner().unwrap();
    assert!(misses.is_empty(), "{} of {} cases:\n{}", misses.len(), cases.len(), misses.join("\n"));
}

#[test]
fn http1_requests_on_a_keyed_route() {
    for file in ["http1-raw.jsonl", "http1-te-exhaustive.jsonl"] {
        let Some(cases) = cases(file) else { return };
        replay(&cases, Routes::AllKeyed, |place, case| judge::http1(place, case, true));
    }
}

#[test]
fn http1_requests_on_an_open_route() {
    for file in ["http1-raw.jsonl", "http1-te-exhaustive.jsonl"] {
        let Some(cases) = cases(file) else { return };
        replay(&cases, Routes::AllOpen, |place, case| judge::http1(place, case, false));
    }
}

#[test]
fn no_path_leads_around_the_key() {
    let Some(cases) = cases("path-normalisation.jsonl") else { return };
    replay(&cases, Routes::Both, judge::path);
}

#[test]
fn keys_are_read_in_one_way_only() {
    let Some(cases) = cases("key-abuse.jsonl") else { return };
    replay(&cases, Routes::Both, judge::key);
}

#[test]
fn http2_frames() {
    let Some(cases) = cases("h2-raw.jsonl") else { return };
    replay(&cases, Routes::Both, judge::http2);
}
