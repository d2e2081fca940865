//! Tests the orders that promise 2 relies on, with real threads: a settlement is recorded before the credits that it
//! returns can be spent, and a batch is taken from all outboxes at the same time. So whatever batch is the last one
//! before a crash, no account has spent more than it had.
//!
//! On two cores, this test finds a mistake in the first order. A mistake in the second order took more than two minutes
//! to find; the simulation finds it (`tests/mutants/take-one-by-one.patch`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tollgate::clock::Clock;
use tollgate::ledger::Ledger;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::record::Record;
use tollgate::ledger::store::{NewFileAccount, Registration};
use tollgate::types::{AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, StatusClass};

use crate::acknowledging::acknowledging;

/// The account's whole balance, which is also the amount of each hold: only one request at a time can hold it.
const ALL: i64 = 1_000;
const WORKERS: usize = 3;
/// Iterations of a spin loop after each request.
const PAUSE: u32 = if cfg!(debug_assertions) { 300 } else { 60 };

/// Threads meet between two instructions only by chance. A second or two finds a mistake now and then; the minute of
/// `TOLLGATE_LONG=1` found it each time within its first seconds.
fn duration() -> Duration {
    let long = std::env::var_os("TOLLGATE_LONG").is_some();
    if long { Duration::from_secs(60) } else { Duration::from_millis(1_500) }
}

/// The credits spent and the open holds if the power fails after this batch.
#[derive(Default)]
struct Judge {
    spent: i64,
    open: HashMap<RequestId, i64>,
}

impl Judge {
    fn batch(&mut self, mut bytes: &[u8]) {
        while let Some(record) = Record::read(&mut bytes) {
            match record {
                Record::Claim { .. } | Record::Answer { .. } | Record::Unclaim { .. } => {}
                Record::Hold { id, amount, .. } => {
                    self.open.insert(id, amount.millionths());
                    self.spent += amount.millionths();
                }
                Record::Settle { id, charge, .. } => {
                    let held = self.open.remove(&id).expect("a settlement comes after its hold");
                    self.spent -= held - charge.millionths();
                }
                Record::Keep { .. } => {}
            }
        }
        assert!(self.spent <= ALL, "overspent, if the power goes now: {} of {ALL}", self.spent);
    }
}

/// Minimum number of batches: with fewer, too little was checked.
const LEAST: u64 = 50;

#[test]
fn no_batch_spends_what_a_later_one_returns() {
    let batches = Arc::new(AtomicU64::new(0));
    let (counted, mut judge) = (Arc::clone(&batches), Judge::default());
    let storage = acknowledging(MemoryStore::default().storage(), move |report| {
        if let Some(batch) = report.batch {
            judge.batch(batch);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (ledger, _) = Ledger::open(storage, WORKERS, Duration::from_millis(1), Clock::system()).unwrap();
    let books = ledger.bookkeeper();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let wanted = Registration {
        accounts: vec![NewFileAccount::new("a".parse().unwrap(), Some(Credits::from_millionths(ALL)))],
        keys: vec![(KeyId(1), "a".parse().unwrap(), "k".to_owned())],
        routes: vec!["r".parse().unwrap()],
        ..Registration::default()
    };
    runtime.block_on(books.register(wanted)).unwrap();
    let (purse, stop) = (books.purse(AccountNum(1)).unwrap(), AtomicBool::new(false));
    let held: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (seed, purse, stop) = (ledger.spender(worker).unwrap(), Arc::clone(&purse), &stop);
                scope.spawn(move || {
                    let (spender, mut count) = (seed.start(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        let id = RequestId((worker as u128) << 64 | u128::from(count));
                        let all = Credits::from_millionths(ALL);
                        if let Ok(hold) = spender.hold(&purse, KeyNum(1), RouteNum(1), all, id) {
                            count += 1;
                            drop(hold.settle(Credits::ZERO, StatusClass::Success));
                            // The pause lets the ledger's thread keep up and take batches often.
                            (0..PAUSE).for_each(|_| std::hint::spin_loop());
                        }
                    }
                    count
                })
            })
            .collect();
        let end = std::time::Instant::now() + duration();
        // On a busy machine, few batches are taken in that time, so the test runs longer.
        let at_last = end + Duration::from_secs(20);
        let goes_on = |now| now < end || now < at_last && batches.load(Ordering::SeqCst) <= LEAST;
        // The ledger's thread ends if the judge finds a mistake.
        while goes_on(std::time::Instant::now()) && Arc::strong_count(&batches) > 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    drop((books, purse));
    ledger.close().expect("the judge found nothing"); // a judge that panics ends the ledger's thread
    let batches = batches.load(Ordering::SeqCst);
    println!("{batches} batches, {held} holds");
    assert!(batches > LEAST && held > 1_000, "there was something to judge: {batches} batches, {held} holds");
}
