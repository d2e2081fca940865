//! Reports tests that are skipped, in a file, because libtest hides the output of passing tests.

use std::io::Write;

/// The file in which `scripts/test` looks for skipped tests.
const TOLD: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped.txt");

fn tell(why: &str) {
    println!("skipped: {why}");
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(TOLD);
    let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}")); // an error only loses the report
}

/// Reports that this machine, or this user, cannot do what a test needs.
pub fn skipped(why: &str) {
    tell(why);
}

/// Reports that a program is missing that could be installed. Fails if `CI` is set.
pub fn missing(what: &str, installed_by: &str) {
    tell(&format!("{what} is not here ({installed_by})"));
    assert!(std::env::var_os("CI").is_none(), "{what} could have been installed: {installed_by}");
}
