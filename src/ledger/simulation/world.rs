//! A run: the process starts, works, fails, is cut and starts again, until it ends cleanly.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::disk::{Disk, PowerCut};
use super::floor::{self, Floor};
use crate::clock::Clock;
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{Booked, Booking, LedgerError, Registration, Result};
use crate::ledger::writer::Writer;
use crate::ledger::{Job, MAX_JOBS, Shared};
use crate::types::{Credits, KeyId, WallTime};

const ACCOUNTS: usize = 4;
const WORKERS: usize = 2;
const STEPS: u32 = 90;
const HOUR: i64 = 3_600_000;

/// What all runs together met: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
pub(super) struct Seen {
    acknowledged: u64,
    refused: u64,
    failed: u64,
    cuts: u64,
    doubts: u64,
    given_back: u64,
    bookings: u64,
}

impl Seen {
    pub(super) fn is_enough(&self) {
        let Self { acknowledged, refused, failed, cuts, doubts, given_back, bookings } = self;
        for (what, count) in [
            ("answers", acknowledged),
            ("refusals", refused),
            ("failures", failed),
            ("cuts", cuts),
            ("holds in doubt", doubts),
            ("given back", given_back),
            ("bookings", bookings),
        ] {
            assert!(*count > 100, "too few {what}: {self:?}");
        }
    }
}

/// Something that was asked of the books, and what came of it.
enum Asked {
    Book(usize, Booking),
    GiveBack,
}

type Answers = Arc<Mutex<Vec<(Asked, Result<Booked>)>>>;

/// One process.
struct Process {
    writer: Writer,
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    answers: Answers,
}

pub(super) struct World<'a> {
    random: Rng,
    clock: Clock,
    disk: Disk,
    process: Option<Process>,
    /// Requests have ids of their own, also in the next process.
    ids: u128,
    seen: &'a mut Seen,
}

impl World<'_> {
    pub(super) fn play(seed: u64, seen: &mut Seen) {
        let (random, clock) = (Rng::with_seed(seed ^ 0x5EED), Clock::test(WallTime(1_000 * HOUR)));
        let mut world = World { random, clock, disk: Disk::new(seed), process: None, ids: 0, seen };
        world.begin();
        let (failing, cutting) =
            ([0, 0, 30, 200][world.random.usize(..4)], [0, 3, 15][world.random.usize(..3)]);
        world.disk.troubles(failing, cutting);
        for _ in 0..STEPS {
            world.step();
        }
        world.disk.troubles(0, 0);
        world.end();
        floor::set(None);
    }

    /// The first start: the accounts of a file, on a sound disk.
    fn begin(&mut self) {
        let mut process = self.start().expect("a sound disk");
        let id = |at: usize| format!("a{at}").parse().expect("an id");
        let credits = Some(Credits::from_millionths(100));
        let wanted = Registration {
            accounts: (0..ACCOUNTS).map(|at| (id(at), credits)).collect(),
            keys: vec![(KeyId(1), id(0), "k".to_owned())],
            routes: vec!["r1".parse().expect("a name"), "r2".parse().expect("a name")],
        };
        process.writer.register(&wanted).expect("a sound disk");
        self.take_up(process);
    }

    fn start(&self) -> Result<Process> {
        let outboxes = (0..WORKERS).map(|_| Arc::default()).collect();
        let shared = Arc::new(Shared { outboxes, ..Shared::default() });
        shared.healthy.store(true, Ordering::SeqCst);
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let store = Box::new(self.disk.clone());
        let (writer, _) = Writer::open(store, Arc::clone(&shared), queue, self.clock.clone())?;
        Ok(Process { writer, shared, jobs, answers: Answers::default() })
    }

    fn take_up(&mut self, process: Process) {
        let seed = self.random.u64(..);
        let shared = Arc::clone(&process.shared);
        floor::set(Some(Floor::new(seed, self.ids, self.disk.clone(), shared, ACCOUNTS)));
        self.process = Some(process);
    }

    fn step(&mut self) {
        match self.random.u32(..24) {
            0..12 => drop(floor::with(Floor::step)),
            12..18 => self.turn(),
            18 => self.ask_for_a_booking(),
            19 => self.ask_to_give_back(),
            20 => self.clock.advance(Duration::from_millis(self.random.u64(..1_500))),
            21 => self.clock.set_wall(WallTime(1_000 * HOUR + self.random.i64(-HOUR..=HOUR))),
            22 if self.random.u32(..6) == 0 => self.crash(),
            23 if self.random.u32(..6) == 0 => self.restart(),
            _ => {}
        }
    }

    /// Runs something that the power may be cut in; answers nothing where it was.
    fn or_cut<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| what(self))) {
            Ok(done) => Some(done),
            Err(broken) if broken.is::<PowerCut>() => {
                self.crash();
                None
            }
            Err(broken) => resume_unwind(broken),
        }
    }

    /// One turn of the ledger's thread.
    fn turn(&mut self) {
        self.or_cut(|world| {
            let Some(process) = &mut world.process else { return };
            process.writer.turn();
            world.hear();
            floor::with(|floor| floor.agrees());
        });
    }

    /// What was asked of the books came to something.
    fn hear(&mut self) {
        let Some(process) = &self.process else { return };
        for (asked, answer) in process.answers.lock().drain(..) {
            match (asked, answer) {
                (Asked::Book(account, booking), Ok(booked)) if !booked.repeated => {
                    self.seen.bookings += 1;
                    floor::with(|floor| floor.available[account] += booking.amount.millionths());
                }
                (Asked::GiveBack, Ok(booked)) if !booked.repeated => {
                    self.seen.given_back += 1;
                    let account = booked.entry.account.as_str()[1..].parse::<usize>().expect("a number");
                    floor::with(|floor| floor.available[account] += booked.entry.amount.millionths());
                }
                (_, Ok(_)) => {}
                (_, Err(LedgerError::Failed(_))) => self.seen.failed += 1,
                (_, Err(LedgerError::Refused(_))) => {}
                (_, Err(error)) => panic!("{error}"),
            }
        }
    }

    fn ask_for_a_booking(&mut self) {
        let account = self.random.usize(..ACCOUNTS);
        let (kind, amount) = match self.random.bool() {
            true => (EntryKind::Grant, self.random.i64(1..60)),
            false => (EntryKind::Adjustment, self.random.i64(-60..60)),
        };
        let booking = Booking {
            account: format!("a{account}").parse().expect("an id"),
            kind,
            amount: Credits::from_millionths(amount),
            reference: format!("r{}", self.random.u32(..1_000)),
            actor: "command",
        };
        let asked = booking.clone();
        self.ask(Asked::Book(account, booking), move |writer| writer.book(&asked));
    }

    fn ask_to_give_back(&mut self) {
        let doubts = self.disk.look(|_, durable| durable.doubts());
        if let Some(id) = self.random.choice(doubts) {
            self.ask(Asked::GiveBack, move |writer| writer.give_back(id));
        }
    }

    /// As the control plane does.
    fn ask(&self, asked: Asked, work: impl FnOnce(&mut Writer) -> Result<Booked> + Send + 'static) {
        let Some(process) = &self.process else { return };
        let answers = Arc::clone(&process.answers);
        let job: Job = Box::new(move |writer| {
            let answer = writer.is_written().and_then(|()| work(writer));
            answers.lock().push((asked, answer));
        });
        let _ = process.jobs.try_send(job); // a full queue makes them wait
    }

    /// The process is gone without a word; the next start may be cut, or fail, as well.
    fn crash(&mut self) {
        self.seen.cuts += 1;
        self.leave();
        self.disk.power_back();
        loop {
            // What failed within a start may be found by the next one.
            match catch_unwind(AssertUnwindSafe(|| self.start())) {
                Ok(Ok(process)) => {
                    self.opened(&process, true);
                    return self.take_up(process);
                }
                Ok(Err(_)) => self.disk.power_back(),
                Err(broken) if broken.is::<PowerCut>() => self.disk.power_back(),
                Err(broken) => resume_unwind(broken),
            }
        }
    }

    fn leave(&mut self) {
        floor::with(|floor| {
            self.seen.acknowledged += floor.acknowledged;
            self.seen.refused += floor.refused;
            self.ids = floor.ids();
        });
        floor::set(None);
        self.process = None;
    }

    fn opened(&mut self, process: &Process, crashed: bool) {
        self.disk.look(|books, durable| {
            if crashed {
                let before = durable.doubts().len();
                durable.crash();
                self.seen.doubts += (durable.doubts().len() - before) as u64;
            }
            durable.agree(books);
            for row in crate::ledger::store::Reader::accounts(books, None, ACCOUNTS).expect("accounts") {
                let purse = process.shared.purses.get(row.num).expect("a purse");
                assert_eq!(purse.available().millionths(), durable.left(row.num));
            }
        });
    }

    /// A clean stop, and a start: where the stop fails, it is a crash.
    fn restart(&mut self) {
        floor::with(Floor::stop);
        let finished = self.or_cut(|world| {
            let Process { writer, .. } = world.process.take()?;
            Some(writer.finish())
        });
        match finished {
            None => {} // the power was cut, and it started again
            Some(Some(Ok(()))) => {
                self.leave();
                let Some(started) = self.or_cut(|world| world.start()) else { return };
                match started {
                    Ok(process) => {
                        self.opened(&process, false);
                        self.take_up(process);
                    }
                    Err(_) => self.crash(),
                }
            }
            Some(_) => self.crash(),
        }
    }

    /// Everything reaches a sound disk: nobody waits in vain, and a clean stop leaves nothing open.
    fn end(&mut self) {
        floor::with(Floor::be_still);
        for _ in 0..2 {
            self.turn();
            self.clock.advance(Duration::from_secs(60));
        }
        floor::with(Floor::nobody_sleeps);
        floor::with(Floor::stop);
        let process = self.process.take().expect("a process");
        process.writer.finish().expect("a sound disk");
        self.disk.look(|books, durable| durable.agree(books));
        self.leave();
        let process = self.start().expect("a sound disk");
        self.opened(&process, false);
    }
}
