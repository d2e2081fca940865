//! Measures how cost grows with the number of keys, accounts, connections, routes and ledger entries.
//!
//! `cargo bench --bench scale -- [--keys N,…] [--only keys,accounts,file,connections,routes,entries]` starts the real
//! program with ledgers and files of each size. `--keys N --write FOLDER` only writes a configuration and its ledger.
//! `--smoke` runs everything with tiny sizes and checks no figure: `cargo test --bench scale -- --smoke`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a bench that meets the unexpected ends, and looks at the real clock"
)]

mod books;
mod connections;
mod entries;
mod keys;
mod process;
mod upstream;

use std::time::Duration;

/// The sizes of each measurement.
struct Sizes {
    keys: Vec<usize>,
    accounts: [usize; 2],
    file: Vec<usize>,
    connections: [usize; 2],
    routes: Vec<usize>,
    entries: Vec<usize>,
    /// Runs of a command, of which the median is reported.
    runs: usize,
    /// How long the allocator gets to return unused memory before memory is read.
    settle: Duration,
}

fn sizes(smoke: bool) -> Sizes {
    if smoke {
        return Sizes {
            keys: vec![20, 200],
            accounts: [2, 20],
            file: vec![30],
            connections: [5, 20],
            routes: vec![1, 10],
            entries: vec![10, 100],
            runs: 1,
            settle: Duration::from_millis(50),
        };
    }
    Sizes {
        keys: vec![1_000, 10_000, 100_000, 1_000_000],
        accounts: [100, 100_000],
        file: vec![1_000, 10_000, 100_000],
        connections: [1_000, 5_000],
        routes: vec![1, 10, 100, 1_000],
        entries: vec![10_000, 100_000, 1_000_000, 10_000_000],
        runs: 5,
        settle: Duration::from_millis(1500),
    }
}

/// Milliseconds with one decimal.
fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// Mebibytes with one decimal.
fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Prints a line of a table, right-aligned.
fn line(cells: &[String]) {
    println!("{}", cells.iter().map(|cell| format!("{cell:>13}")).collect::<Vec<_>>().join(" "));
}

fn heading(title: &str, cells: &[&str]) {
    println!("\n{title}");
    line(&cells.iter().map(ToString::to_string).collect::<Vec<_>>());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let mut sizes = sizes(smoke);
    if let Some(keys) = value("--keys") {
        sizes.keys = keys.split(',').map(|text| text.parse().expect("numbers of keys")).collect();
    }
    if let Some(folder) = value("--write") {
        return keys::write(folder.as_ref(), &sizes);
    }
    let only = value("--only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|part| part == name));
    if wanted("keys") {
        keys::of_the_store(&sizes);
    }
    if wanted("accounts") {
        keys::accounts(&sizes);
    }
    if wanted("file") {
        keys::of_the_file(&sizes);
    }
    if wanted("connections") {
        connections::idle_and_in_flight(&sizes);
    }
    if wanted("routes") {
        connections::routes(&sizes);
    }
    if wanted("entries") {
        entries::entries(&sizes);
    }
}
