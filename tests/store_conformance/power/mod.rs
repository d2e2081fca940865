//! Tests promise 3 through power loss, with the real SQLite and real files.
//!
//! One process runs random calls of the store and is killed. Another process recovers and continues. Both are traced.
//! The power is then cut after every single write, sync, creation and removal that they made. A folder with what the
//! disk may hold at that moment is opened again.
//!
//! The state that is found must be the one that the model in memory has after as many calls as had returned, or after
//! one more: the call that was cut off.

mod disk;
mod trace;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::BooksReader;
use tollgate::ledger::verify::verify;

use crate::acknowledging::acknowledging;
use crate::driver::{driver, recovered};
use crate::{Call, calls, state};
use disk::{Disk, Event};

/// The environment variable that tells the traced process its run and its folder.
const RUN: &str = "TOLLGATE_POWER_RUN";
/// Number of runs; `TOLLGATE_LONG=1` makes 10,000, another number that many.
fn runs() -> u64 {
    match std::env::var("TOLLGATE_LONG").as_deref() {
        Ok("1") => 10_000,
        Ok(runs) => runs.parse().unwrap(),
        Err(_) => 12,
    }
}
/// One in this many runs begins in an empty folder.
const NEW: u64 = 6;
/// A file system in memory, if there is one: a ledger that is opened after a cut need not be durable again.
const MEMORY: &str = "/dev/shm";

/// Most runs are short, so that there can be many. One in this many runs is up to 40 calls long.
const LONG: u64 = 10;
const SHORT: usize = 10;

/// The calls of a run, the same each time.
fn calls_of(run: u64) -> Vec<Call> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&run.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut calls =
        calls().new_tree(&mut TestRunner::new_with_rng(Config::default(), random)).unwrap().current();
    if !run.is_multiple_of(LONG) {
        calls.truncate(SHORT);
    }
    calls
}

/// The calls of the process that is killed, and those of the one that is started after it.
fn halves(calls: &[Call]) -> [&[Call]; 2] {
    let (first, second) = calls.split_at(calls.len() / 2);
    [first, second]
}

/// Runs as the traced process if the environment variable is set; does nothing otherwise.
#[test]
fn traced() {
    let Some(told) = std::env::var_os(RUN) else { return };
    let told: Vec<&str> = told.to_str().unwrap().split(' ').collect();
    let [run, half, folder] = told[..] else { panic!("{told:?}") };
    let (run, half, folder): (u64, usize, _) =
        (run.parse().unwrap(), half.parse().unwrap(), PathBuf::from(folder));
    let path = folder.join(trace::ACKNOWLEDGED);
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    let store = sqlite::open(&folder.join("ledger.db")).unwrap();
    let mut store = acknowledging(store, move |report| {
        let mut line = String::new();
        writeln!(line, "{}", report.count).unwrap();
        file.write_all(line.as_bytes()).unwrap(); // a single system call
    });
    let calls = calls_of(run);
    let mut driver = if half == 0 { driver(&mut store) } else { recovered(&mut store) };
    halves(&calls)[half].iter().for_each(|call| drop(driver.run(call)));
    if half == 0 {
        std::process::exit(0); // killed: nothing is closed
    }
}

/// Everything that can be read back from the model, before its first call and after each call.
fn expected(calls: &[Call]) -> Vec<String> {
    let model = MemoryStore::default();
    let states = Arc::new(Mutex::new(vec![format!("{:?}", state(&mut model.storage()))]));
    let (seen, looked) = (Arc::clone(&states), model.clone());
    let mut store = acknowledging(model.storage(), move |_| {
        seen.lock().unwrap().push(format!("{:?}", state(&mut looked.storage())));
    });
    let [first, second] = halves(calls);
    let mut before = driver(&mut store);
    first.iter().for_each(|call| drop(before.run(call)));
    let mut after = recovered(&mut store);
    second.iter().for_each(|call| drop(after.run(call)));
    drop(store);
    std::mem::take(&mut *states.lock().unwrap())
}

/// What both processes did. The second process continues the count of acknowledged calls.
fn events(run: u64, folder: &Path) -> Vec<Event> {
    let half = |half: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "power::traced", "--test-threads", "1"]);
        command.env(RUN, format!("{run} {half} {}", folder.display()));
        trace::run(&command, folder)
    };
    let mut events = half(0);
    let counts = events.iter().filter_map(|event| match event {
        Event::Acknowledge(count) => Some(*count),
        _ => None,
    });
    let before = counts.max().unwrap_or(0);
    events.extend(half(1).into_iter().map(|event| match event {
        Event::Acknowledge(count) => Event::Acknowledge(before + count),
        other => other,
    }));
    events
}

/// Cuts the power, and returns the state that is found when the ledger is opened again.
fn found(disk: &Disk, random: &mut Rng, place: &Path) -> String {
    let folder = tempfile::tempdir_in(place).unwrap();
    disk.cut(random, folder.path());
    let path = folder.path().join("ledger.db");
    let mut store = sqlite::open(&path).unwrap_or_else(|error| panic!("it does not open: {error}"));
    let found = format!("{:?}", state(&mut store));
    let mut reader: Box<dyn BooksReader> = store.books.reader().unwrap();
    assert_eq!(verify(&mut *reader).unwrap().differences, []);
    found
}

/// Executes one run. Returns how often the power was cut.
fn run(run: u64, place: &Path) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let states = expected(&calls_of(run));
    // A ledger is created in the same way in all runs, so most runs begin with one that exists.
    if !run.is_multiple_of(NEW) {
        drop(sqlite::open(&folder.join("ledger.db")).unwrap());
    }
    let (mut disk, mut random) = (Disk::of(&folder), Rng::with_seed(run));
    let (mut acknowledged, mut cuts) = (0, 0);
    for (number, event) in events(run, &folder).iter().enumerate() {
        disk.apply(event);
        if let Event::Acknowledge(count) = event {
            acknowledged = *count;
            continue;
        }
        let found = found(&disk, &mut random, place);
        let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
        assert!(
            allowed.contains(&found),
            "run {run}, cut after event {number} ({}) and {acknowledged} calls: found\n{found}\nexpected one of\n{allowed:#?}",
            format!("{event:?}").chars().take(80).collect::<String>()
        );
        cuts += 1;
    }
    assert_eq!(acknowledged + 1, states.len(), "the traced process did what the model did");
    cuts
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_every_write_and_sync() {
    if !trace::is_possible() {
        match Command::new("strace").arg("-V").output() {
            Ok(_) => crate::skips::skipped("strace may not trace here"),
            Err(_) => crate::skips::missing("strace", "Debian: strace"),
        }
        return;
    }
    let place = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
    let next = std::sync::atomic::AtomicU64::new(0);
    let take = || {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if number > 0 && number.is_multiple_of(500) {
            println!("{number} runs begun");
        }
        number
    };
    let (runs, workers) = (runs(), std::thread::available_parallelism().unwrap().get());
    let cuts: usize = std::thread::scope(|scope| {
        let work = || {
            std::iter::repeat_with(take)
                .take_while(|number| *number < runs)
                .map(|number| run(number, &place))
                .sum::<usize>()
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{runs} runs, {cuts} cuts of the power");
    assert!(cuts > 20 * usize::try_from(runs).unwrap(), "there was something to cut");
}
