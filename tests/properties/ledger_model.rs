//! Tests holds, settlements, releases, bookings and crashes, interleaved at random over two workers, against a model
//! that only keeps sums.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tollgate::clock::Clock;
use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{Booking, NewFileAccount, Registration, Storage, no_notes};
use tollgate::ledger::verify::verify;
use tollgate::ledger::{Bookkeeper, Hold, HoldError, Ledger, Spender};
use tollgate::types::{AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

#[derive(Clone, Debug)]
enum Step {
    Hold {
        worker: usize,
        account: usize,
        amount: i64,
    },
    Settle {
        which: usize,
        charge: i64,
    },
    Release {
        which: usize,
    },
    Grant {
        account: usize,
        amount: i64,
        reference: u8,
    },
    Adjust {
        account: usize,
        amount: i64,
        reference: u8,
    },
    /// All records so far reach the disk.
    Flush,
    /// A reload registers the same accounts again, with other opening grants.
    Register,
    /// The process crashes after all records have reached the disk.
    Crash,
    /// The process stops; holds in flight are released.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (account, amount) = (0_usize..3, 0_i64..60);
    let step = prop_oneof![
        8 => (0_usize..2, account.clone(), amount)
            .prop_map(|(worker, account, amount)| Step::Hold { worker, account, amount }),
        6 => (any::<prop::sample::Index>(), -5_i64..80)
            .prop_map(|(which, charge)| Step::Settle { which: which.index(1000), charge }),
        2 => any::<prop::sample::Index>().prop_map(|which| Step::Release { which: which.index(1000) }),
        2 => (account.clone(), 1_i64..100, 0_u8..6)
            .prop_map(|(account, amount, reference)| Step::Grant { account, amount, reference }),
        2 => (account, -80_i64..80, 0_u8..6)
            .prop_map(|(account, amount, reference)| Step::Adjust { account, amount, reference }),
        2 => Just(Step::Flush),
        1 => Just(Step::Register),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// The sums that one account should have.
#[derive(Clone, Debug, Default)]
struct Account {
    granted: i64,
    charged: i64,
    held: i64,
    references: HashMap<(bool, u8), i64>,
}

impl Account {
    fn available(&self) -> i64 {
        self.granted - self.charged - self.held
    }
}

/// How long records wait to be committed with others in this test.
const COMMIT_DELAY: Duration = Duration::from_millis(1);

/// The storage of the ledger, which survives a crash.
#[derive(Clone)]
enum Disk {
    Memory(MemoryStore),
    File(Arc<tempfile::TempDir>),
}

impl Disk {
    fn open(&self) -> Storage {
        match self {
            Self::Memory(store) => store.storage(),
            Self::File(folder) => sqlite::open(&folder.path().join("ledger.db")).unwrap(),
        }
    }
}

struct World {
    disk: Disk,
    ledger: Ledger,
    books: Bookkeeper,
    spenders: Vec<Spender>,
    model: Vec<Account>,
    open: Vec<(usize, i64, Hold)>,
    ids: u128,
}

fn open(disk: &Disk) -> (Ledger, Bookkeeper, Vec<Spender>, usize) {
    let (ledger, opened) = Ledger::open(disk.open(), 2, COMMIT_DELAY, Clock::test(WallTime(1))).unwrap();
    let books = ledger.bookkeeper();
    let spenders = (0..2).map(|worker| ledger.spender(worker).unwrap().start()).collect();
    (ledger, books, spenders, opened.doubts)
}

fn registration(credits: i64) -> Registration {
    let id = |at: usize| format!("a{at}").parse().unwrap();
    Registration {
        accounts: (0..3)
            .map(|at| NewFileAccount::new(id(at), Some(Credits::from_millionths(credits))))
            .collect(),
        keys: vec![(KeyId(1), id(0), "k".to_owned())],
        routes: vec!["r".parse().unwrap()],
        ..Registration::default()
    }
}

impl World {
    async fn new(disk: Disk) -> Self {
        let (ledger, books, spenders, _) = open(&disk);
        books.register(registration(100)).await.unwrap();
        let model = vec![Account { granted: 100, ..Account::default() }; 3];
        Self { disk, ledger, books, spenders, model, open: Vec::new(), ids: 0 }
    }

    async fn step(self, step: &Step) -> Self {
        let mut world = self;
        match *step {
            Step::Hold { worker, account, amount } => world.hold(worker, account, amount),
            Step::Settle { which, charge } => world.settle(which, charge),
            Step::Release { which } => world.settle(which, 0),
            Step::Grant { account, amount, reference } => world.book(account, false, amount, reference).await,
            Step::Adjust { account, amount, reference } => world.book(account, true, amount, reference).await,
            Step::Flush => drop(world.books.reader().await.unwrap()),
            Step::Register => drop(world.books.register(registration(7)).await.unwrap()),
            Step::Crash => world = world.end(true).await,
            Step::Restart => world = world.end(false).await,
        }
        world.agrees();
        world
    }

    fn purse(&self, account: usize) -> Arc<tollgate::ledger::Purse> {
        self.books.purse(AccountNum(account as u32 + 1)).unwrap()
    }

    fn hold(&mut self, worker: usize, account: usize, amount: i64) {
        self.ids += 1;
        let (purse, credits) = (self.purse(account), Credits::from_millionths(amount));
        let held = self.spenders[worker].hold(&purse, KeyNum(1), RouteNum(1), credits, RequestId(self.ids));
        let model = &mut self.model[account];
        match held {
            Ok(hold) => {
                assert!(amount <= model.available(), "held more than there is");
                model.held += amount;
                self.open.push((account, amount, hold));
            }
            Err(error) => {
                assert_eq!(error, HoldError::Insufficient);
                assert!(amount > model.available(), "refused although it suffices");
            }
        }
    }

    fn settle(&mut self, which: usize, charge: i64) {
        if self.open.is_empty() {
            return;
        }
        let (account, amount, hold) = self.open.swap_remove(which % self.open.len());
        hold.settle(Credits::from_millionths(charge), StatusClass::Success);
        let model = &mut self.model[account];
        model.held -= amount;
        model.charged += charge.clamp(0, amount);
    }

    async fn book(&mut self, account: usize, adjustment: bool, amount: i64, reference: u8) {
        let kind = if adjustment { EntryKind::Adjustment } else { EntryKind::Grant };
        let (id, credits) = (format!("a{account}").parse().unwrap(), Credits::from_millionths(amount));
        let booking = Booking {
            key: None,
            lot: None,
            account: id,
            kind,
            amount: credits,
            reference: format!("r{reference}"),
            actor: "test".to_owned(),
        };
        let booked = self.books.book(booking, no_notes()).await;
        let model = &mut self.model[account];
        match model.references.get(&(adjustment, reference)) {
            Some(before) if *before == amount => assert!(booked.unwrap().repeated),
            Some(_) => assert!(booked.is_err(), "a reference stands for one amount"),
            None if model.available() + amount < 0 => assert!(booked.is_err(), "never below zero available"),
            None => {
                assert!(!booked.unwrap().repeated);
                model.granted += amount;
                model.references.insert((adjustment, reference), amount);
            }
        }
    }

    async fn end(self, crash: bool) -> Self {
        drop(self.books.reader().await.unwrap()); // makes sure that the model knows what is on disk
        let Self { disk, ledger, books, spenders, mut model, open: holds, ids } = self;
        let open_holds = holds.len();
        for (account, amount, hold) in holds {
            model[account].held -= amount;
            if crash {
                model[account].charged += amount; // in doubt: charged in full
                std::mem::forget(hold);
            }
        }
        drop((spenders, books));
        // After a crash there is nothing left to write: open holds are forgotten, and all other records are on disk.
        ledger.close().unwrap();
        let (ledger, books, spenders, doubts) = open(&disk);
        assert_eq!(doubts, if crash { open_holds } else { 0 }, "the list of holds in doubt is exact");
        Self { disk, ledger, books, spenders, model, open: Vec::new(), ids }
    }

    fn agrees(&self) {
        for (at, model) in self.model.iter().enumerate() {
            assert_eq!(self.purse(at).available().millionths(), model.available(), "account {at}");
            assert!(model.charged + model.held <= model.granted, "promise 2");
        }
    }

    async fn finish(self) {
        let world = self.end(false).await;
        world.agrees();
        let mut reader = world.books.reader().await.unwrap();
        assert_eq!(verify(&mut *reader).unwrap().differences, []);
        for (row, model) in reader.accounts(None, 10).unwrap().iter().zip(&world.model) {
            assert_eq!(row.balance.millionths(), model.granted - model.charged);
        }
        drop((world.spenders, world.books, reader));
        world.ledger.close().unwrap();
    }
}

fn play(disk: Disk, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(disk).await;
        for step in steps {
            world = world.step(step).await;
        }
        world.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn balances_are_those_of_the_model_in_memory(steps in steps()) {
        play(Disk::Memory(MemoryStore::default()), &steps);
    }

    #[test]
    fn balances_are_those_of_the_model_in_a_file(steps in steps()) {
        play(Disk::File(Arc::new(tempfile::tempdir().unwrap())), &steps);
    }
}

/// Promise 2 on two threads at the same time: the credits held never exceed the credits granted, and a hold returns all
/// credits that its settlement does not charge.
#[test]
fn two_workers_on_one_balance_never_overspend() {
    let (ledger, _) =
        Ledger::open(MemoryStore::default().storage(), 2, COMMIT_DELAY, Clock::system()).unwrap();
    let books = ledger.bookkeeper();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(books.register(registration(1_000))).unwrap();
    let purse = books.purse(AccountNum(1)).unwrap();
    let charged: i64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (seed, purse) = (ledger.spender(worker).unwrap(), Arc::clone(&purse));
                scope.spawn(move || {
                    let spender = seed.start();
                    let mut charged = 0;
                    for count in 0..50_000_u128 {
                        let id = RequestId((worker as u128) << 64 | count);
                        let amount = Credits::from_millionths(7);
                        let Ok(hold) = spender.hold(&purse, KeyNum(1), RouteNum(1), amount, id) else {
                            continue;
                        };
                        assert!(purse.available().millionths() >= 0);
                        let charge = i64::from(count % 1000 == 0);
                        hold.settle(Credits::from_millionths(charge), StatusClass::Success);
                        charged += charge;
                    }
                    charged
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(purse.available().millionths(), 1_000 - charged);
    drop(books);
    ledger.close().unwrap();
}
