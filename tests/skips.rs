//! Tests that are left out are told of: libtest shows nothing of what a passing test prints.

use std::io::Write;

/// Where `scripts/test` looks for what was left out.
const TOLD: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped.txt");

fn tell(why: &str) {
    println!("skipped: {why}");
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(TOLD);
    let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}")); // only a report
}

/// This machine, or this user, cannot do what a test needs.
pub fn skipped(why: &str) {
    tell(why);
}

/// A program is not here that can be installed: where `CI` is set, that is a failure.
pub fn missing(what: &str, installed_by: &str) {
    tell(&format!("{what} is not here ({installed_by})"));
    assert!(std::env::var_os("CI").is_none(), "{what} could have been installed: {installed_by}");
}
