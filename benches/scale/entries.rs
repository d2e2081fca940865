//! Measures a ledger with many entries: its start, its start after a kill, and its verification.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::process::{BINARY, Gateway};
use crate::{Sizes, heading, line, mib, ms};

/// Entries in which one bit is flipped.
const FLIPS: usize = 1_000;

pub fn entries(sizes: &Sizes) {
    heading(
        "entries of the ledger",
        &[
            "entries",
            "file MiB",
            "start ms",
            "killed ms",
            "resident MiB",
            "verify s",
            "its peak MiB",
            "flipped",
            "found",
        ],
    );
    for &entries in &sizes.entries {
        let accounts = (entries / 1_000).clamp(10, 10_000);
        let folder = crate::keys::with_ledger(10, accounts, entries);
        let gateway = Gateway::start(folder.path());
        let (start, resident) = (gateway.start, gateway.settled(sizes.settle).resident);
        gateway.kill();
        let gateway = Gateway::start(folder.path());
        let killed = gateway.start;
        drop(gateway);
        let (took, peak, verified) = verify(folder.path());
        assert_eq!(verified["found"], 0, "sound books");
        let size = std::fs::metadata(folder.path().join("ledger.db")).expect("a file").len();
        let flipped = flip(&folder.path().join("ledger.db"), entries);
        let (_, _, verified) = verify(folder.path());
        let differences = verified["differences"].as_array().expect("a list");
        let named = |entry: &Entry| {
            differences.iter().any(|found| match found["account"].as_str() {
                Some(account) => account == entry.account && found["entry"] == entry.number,
                None => found["entry"] == entry.position, // the entry cannot be read
            })
        };
        let found = flipped.iter().filter(|entry| named(entry)).count();
        line(&[
            entries.to_string(),
            mib(size),
            ms(start),
            ms(killed),
            mib(resident),
            format!("{:.1}", took.as_secs_f64()),
            mib(peak),
            flipped.len().to_string(),
            found.to_string(),
        ]);
        assert_eq!(found, flipped.len(), "each damaged entry is found");
    }
}

/// Verifies the ledger without a gateway. Returns the time, the peak memory of the process, and its JSON output.
fn verify(folder: &Path) -> (Duration, u64, Value) {
    let begun = Instant::now();
    let mut child = Command::new(BINARY)
        .args(["ledger", "verify", "--output", "json"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null()) // the warning that the books do not balance
        .spawn()
        .expect("a command");
    let out = child.stdout.take().expect("its output");
    let reading = std::thread::spawn(move || std::io::read_to_string(out).expect("text"));
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = high.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    let text = reading.join().expect("its output");
    (took, peak, serde_json::from_str(&text).expect("JSON"))
}

/// How `ledger verify` identifies an entry.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    position: u64,
    account: String,
    number: u64,
}

/// Flips a bit in random columns of random entries, except in the number, by which `ledger verify` names an entry.
fn flip(path: &Path, entries: usize) -> BTreeSet<Entry> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut connection = Connection::open(path).expect("a ledger");
    let tx = connection.transaction().expect("a transaction");
    let mut flipped = BTreeSet::new();
    while flipped.len() < FLIPS.min(entries / 2) {
        let id = random.u64(1..=entries as u64);
        let name =
            "SELECT accounts.id, number FROM entries JOIN accounts ON num = account WHERE position = ?1";
        let read = tx.query_row(name, [id], |row| {
            Ok(Entry { position: id, account: row.get(0)?, number: row.get(1)? })
        });
        let Ok(entry) = read else { continue }; // an earlier flip changed the entry's account
        if !flipped.insert(entry) {
            continue;
        }
        let columns =
            ["at", "account", "kind", "amount", "balance_after", "route", "requests", "actor", "link"];
        let column = columns[random.usize(..columns.len())];
        if matches!(column, "link" | "kind" | "actor") {
            let read = format!("SELECT CAST({column} AS BLOB) FROM entries WHERE position = ?1");
            let mut bytes: Vec<u8> = tx.query_row(&read, [id], |row| row.get(0)).expect("bytes");
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u32(..8);
            let cast = if column == "link" { "?2" } else { "CAST(?2 AS TEXT)" };
            tx.execute(&format!("UPDATE entries SET {column} = {cast} WHERE position = ?1"), (id, bytes))
                .expect("a change");
        } else {
            // In an account number only high bits are flipped, so that the result is no other account's number.
            let bit = 1_i64 << random.u32(if column == "account" { 20..40 } else { 0..40 });
            let change = format!(
                "UPDATE entries SET {column} = ({column} | ?2) - ({column} & ?2) WHERE position = ?1"
            );
            tx.execute(&change, (id, bit)).expect("a change");
        }
    }
    tx.commit().expect("a commit");
    flipped
}
