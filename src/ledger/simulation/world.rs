//! Runs the simulation for one seed: the process starts, works, fails, loses power and starts again, until it stops
//! cleanly.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::disk::{Disk, PowerCut};
use super::limits;
use super::seen::Seen;
use super::threads::{self, SimulatedBarrier};
use super::workers::Workers;
use crate::clock::Clock;
use crate::ledger::entry::EntryKind;
use crate::ledger::handle::MAX_JOBS;
use crate::ledger::record::ExternalId;
use crate::ledger::store::{
    Booked, Booking, Books, BooksReader, LedgerError, NewFileAccount, Registration, Result, Storage, no_notes,
};
use crate::ledger::threads::{BooksThread, CommitThread, Job, RefillOrder, RefillWhat, Shared};
use crate::policy::credit::LotTerms;
use crate::policy::credit::refill::{Calendar, Every, Mode, Refill};
use crate::types::{AccountNum, Credits, KeyId, WallTime};

const ACCOUNTS: usize = 4;
const WORKERS: usize = 2;
const STEPS: u32 = 130;
const HOUR: i64 = 3_600_000;

/// A kind of job whose result the simulation checks.
enum Asked {
    Book,
    GiveBack,
}

type Answers = Arc<Mutex<Vec<(Asked, Result<Booked>)>>>;

/// One process. Its threads are in [`threads`].
struct Process {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    answers: Answers,
}

pub(super) struct World<'a> {
    random: Rng,
    clock: Clock,
    disk: Disk,
    process: Option<Process>,
    /// The last request id. Ids are unique across processes.
    ids: u128,
    seen: &'a mut Seen,
}

impl World<'_> {
    pub(super) fn play(seed: u64, seen: &mut Seen) {
        let (random, clock) = (Rng::with_seed(seed ^ 0x5EED), Clock::test(WallTime(1_000 * HOUR)));
        let mut world =
            World { random, clock, disk: Disk::new(seed, threads::meanwhile), process: None, ids: 0, seen };
        world.begin();
        let (failing, cutting) =
            ([0, 0, 30, 200][world.random.usize(..4)], [0, 3, 15][world.random.usize(..3)]);
        world.disk.troubles(failing, cutting);
        for _ in 0..STEPS {
            world.step();
        }
        world.disk.troubles(0, 0);
        world.end();
        threads::set(None);
    }

    /// The first start, on a disk without faults: registers the accounts, key and routes.
    fn begin(&mut self) {
        let listing = Registration { lists_requests: Some(true), ..Registration::default() };
        self.disk.look(|books, _| Books::register(books, &listing, WallTime(0))).expect("a sound disk");
        let (process, mut books, commit) = self.start().expect("a sound disk");
        let id = |at: usize| format!("a{at}").parse().expect("an id");
        let credits = Some(Credits::from_millionths(100));
        let wanted = Registration {
            accounts: (0..ACCOUNTS).map(|at| NewFileAccount::new(id(at), credits)).collect(),
            keys: vec![(KeyId(1), id(0), "k".to_owned())],
            routes: vec!["r1".parse().expect("a name"), "r2".parse().expect("a name")],
            buckets: vec![("paygo".parse().expect("a name"), 200)],
            ..Registration::default()
        };
        books.register(&wanted).expect("a sound disk");
        drop((process, books, commit));
        self.disk.look(limits::set_up).expect("a sound disk");
        let (process, books, commit) = self.start().expect("a sound disk");
        self.take_up(process, books, commit);
    }

    fn start(&self) -> Result<(Process, BooksThread, CommitThread)> {
        let shared = Arc::new(Shared::new(WORKERS, Duration::ZERO, false));
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let Storage { books, mut journal, .. } = self.disk.storage();
        let (books, found) =
            BooksThread::open(books, &mut *journal, Arc::clone(&shared), queue, self.clock.clone(), false)?;
        let commit = CommitThread::new(journal, Arc::clone(&shared), found.last_seq, self.clock.clone());
        let books = books.with_barrier(Box::new(SimulatedBarrier));
        Ok((Process { shared, jobs, answers: Answers::default() }, books, commit))
    }

    fn take_up(&mut self, process: Process, books: BooksThread, commit: CommitThread) {
        let (seed, shared) = (self.random.u64(..), Arc::clone(&process.shared));
        let workers = Workers::new(seed, self.ids, self.disk.clone(), self.clock.clone(), shared, ACCOUNTS);
        threads::set(Some((workers, books, commit)));
        self.process = Some(process);
    }

    fn step(&mut self) {
        match self.random.u32(..28) {
            0..12 => drop(threads::with_workers(Workers::step)),
            12..15 => self.run(threads::commit),
            15..18 => self.run(threads::work),
            18 => self.ask_for_a_booking(),
            19 => self.ask_to_give_back(),
            20 => self.clock.advance(Duration::from_millis(self.random.u64(..1_500))),
            21 => self.clock.set_wall(WallTime(1_000 * HOUR + self.random.i64(-HOUR..=HOUR))),
            22 if self.random.u32(..6) == 0 => self.crash(),
            23 if self.random.u32(..6) == 0 => self.restart(),
            24 => self.ask_to_settle_kept(),
            25 | 26 => self.ask_to_refill(),
            27 if self.random.u32(..3) == 0 => self.ask_to_raise_a_limit(),
            _ => {}
        }
    }

    /// Runs a function in which the power may be cut; `None` if it was.
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

    /// Runs one of the ledger's threads, then checks the purses.
    fn run(&mut self, thread: fn()) {
        self.or_cut(|world| {
            if world.process.is_some() {
                thread();
                world.hear();
                let withheld =
                    |num| threads::with_books(|books| books.withheld_from(num)).unwrap_or_default();
                threads::with_workers(|workers| workers.agrees(withheld));
            }
        });
    }

    /// Collects the results of the books thread's jobs, and updates the expected purses.
    fn hear(&mut self) {
        for (account, back) in threads::with_books(BooksThread::take_kept_settled).unwrap_or_default() {
            self.seen.kept_settled += 1;
            threads::with_workers(|workers| workers.available[account.0 as usize - 1] += back.millionths());
        }
        for (account, change) in threads::with_books(BooksThread::take_moved).unwrap_or_default() {
            match change.is_negative() {
                true => self.seen.expired += 1,
                false => self.seen.refilled += 1,
            }
            threads::with_workers(|workers| {
                workers.available[account.0 as usize - 1] += change.millionths();
            });
        }
        let Some(process) = &self.process else { return };
        for (asked, answer) in process.answers.lock().drain(..) {
            match (asked, answer) {
                (asked, Ok(booked)) if !booked.repeated => {
                    match asked {
                        Asked::Book => self.seen.bookings += 1,
                        Asked::GiveBack => self.seen.given_back += 1,
                    }
                    let account = booked.entry.account.as_str()[1..].parse::<usize>().expect("a number");
                    threads::with_workers(|workers| {
                        workers.available[account] += booked.entry.amount.millionths();
                    });
                }
                (_, Ok(_)) => {}
                (_, Err(LedgerError::Failed(_))) => self.seen.failed += 1,
                (
                    _,
                    Err(
                        LedgerError::Refused(_)
                        | LedgerError::Insufficient(_)
                        | LedgerError::Taken(_)
                        | LedgerError::Unknown(_),
                    ),
                ) => {}
                (_, Err(error)) => panic!("{error}"),
            }
        }
    }

    fn ask_for_a_booking(&mut self) {
        let Some(process) = &self.process else { return };
        let account = self.random.usize(..ACCOUNTS);
        let num = AccountNum(u32::try_from(account + 1).expect("few accounts"));
        let purse = process.shared.purses.get(num).expect("a purse");
        let (kind, amount) = match self.random.bool() {
            true => (EntryKind::Grant, self.random.i64(1..60)),
            false => (EntryKind::Adjustment, self.random.i64(-60..60)),
        };
        let takes_all = kind == EntryKind::Adjustment && self.random.bool();
        let lot = LotTerms {
            bucket: ["sub", "paygo", "default"][self.random.usize(..3)].parse().expect("a name"),
            expires: self.random.bool().then(|| WallTime(self.clock.wall().0 + self.random.i64(-HOUR..HOUR))),
            of_refill: false,
        };
        let mut booking = Booking {
            key: None,
            lot: Some(lot).filter(|_| kind == EntryKind::Grant && self.random.bool()),
            account: format!("a{account}").parse().expect("an id"),
            kind,
            amount: Credits::from_millionths(amount),
            reference: format!("r{}", self.random.u32(..1_000)),
            actor: "command".to_owned(),
        };
        self.ask(Asked::Book, move |books| {
            if takes_all {
                // Takes all available credits, so that a booking that is written too early overspends the account.
                booking.amount = Credits::ZERO.checked_sub(purse.available()).expect("an amount");
            }
            books.book(&booking, &no_notes())
        });
    }

    fn ask_to_refill(&mut self) {
        let Some(process) = &self.process else { return };
        let account = self.random.usize(..ACCOUNTS);
        let calendar = Calendar { every: Every::Hour, zone: jiff::tz::TimeZone::UTC };
        let now = self.clock.wall();
        let mut period = calendar.period(WallTime(0), now).expect("a period");
        period.start.0 += self.random.i64(0..1_000); // many refills
        let (amount, bucket) = (Credits::from_millionths, "sub".parse().expect("a name"));
        let mode = match self.random.bool() {
            true => Mode::Reset { rollover: amount(self.random.i64(0..10)) },
            false => Mode::Add { cap: Some(amount(self.random.i64(20..80))) },
        };
        let refill = Refill { credits: amount(self.random.i64(1..50)), calendar, mode, bucket };
        let order = RefillOrder {
            num: AccountNum(u32::try_from(account + 1).expect("few accounts")),
            account: format!("a{account}").parse().expect("an id"),
            plan: "p".to_owned(),
            what: RefillWhat::Refill(Arc::new(refill), period, self.random.u64(1..3)),
        };
        let job: Job = Box::new(move |books| drop(books.refill(&[order])));
        let _ = process.jobs.try_send(job); // a full queue drops the job
    }

    fn ask_to_raise_a_limit(&mut self) {
        let Some(process) = &self.process else { return };
        let (account, by) = (self.random.usize(1..ACCOUNTS), self.random.i64(1..60));
        let raise = self.disk.look(|_, durable| limits::raise(account, by, durable));
        let _ = process.jobs.try_send(raise); // a full queue drops the job
    }

    fn ask_to_give_back(&mut self) {
        let doubts = self.disk.look(|_, durable| durable.doubts());
        if let Some(id) = self.random.choice(doubts) {
            self.ask(Asked::GiveBack, move |books| books.give_back(id, "command", &no_notes()));
        }
    }

    fn ask_to_settle_kept(&mut self) {
        let kept = self.disk.look(|_, durable| durable.kept());
        let (Some((account, id)), Some(process)) = (self.random.choice(kept), &self.process) else { return };
        let account = format!("a{}", account.0 - 1).parse().expect("an id");
        let charge = Credits::from_millionths(self.random.i64(0..40));
        let external_id = ExternalId::new(&id.to_string()).expect("an external id");
        let job: Job =
            Box::new(move |books| drop(books.settle_external(&account, &external_id, Some(charge))));
        let _ = process.jobs.try_send(job); // a full queue drops the job
    }

    /// Sends a job to the books thread, as the control plane does.
    fn ask(&self, asked: Asked, work: impl FnOnce(&mut BooksThread) -> Result<Booked> + Send + 'static) {
        let Some(process) = &self.process else { return };
        let answers = Arc::clone(&process.answers);
        let job: Job = Box::new(move |books| {
            let answer = work(books);
            answers.lock().push((asked, answer));
        });
        let _ = process.jobs.try_send(job); // a full queue drops the job
    }

    /// Ends the process without a clean stop, and starts the next one. That start may fail or be cut, too.
    fn crash(&mut self) {
        self.seen.cuts += 1;
        self.leave();
        self.disk.power_back();
        loop {
            // A change whose call failed during a start may be on disk at the next start.
            match catch_unwind(AssertUnwindSafe(|| self.start())) {
                Ok(Ok((process, books, commit))) => {
                    self.opened(&process, true);
                    return self.take_up(process, books, commit);
                }
                Ok(Err(_)) => self.disk.power_back(),
                Err(broken) if broken.is::<PowerCut>() => self.disk.power_back(),
                Err(broken) => resume_unwind(broken),
            }
        }
    }

    fn leave(&mut self) {
        threads::with_workers(|workers| {
            self.seen.acknowledged += workers.acknowledged;
            self.seen.refused += workers.refused;
            self.seen.capped += workers.capped;
            self.seen.polled += workers.jobs_settled;
            self.ids = workers.ids();
            let (replayed, lost) = workers.replays();
            self.seen.replayed += replayed;
            self.seen.lost += lost;
        });
        threads::set(None);
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
            for row in BooksReader::accounts(books, None, ACCOUNTS).expect("accounts") {
                let purse = process.shared.purses.get(row.num).expect("a purse");
                assert_eq!(purse.available().millionths(), durable.left(row.num));
            }
            durable.spent.agrees(&process.shared);
        });
    }

    /// Stops cleanly and starts again. If the stop fails, it counts as a crash.
    fn restart(&mut self) {
        threads::with_workers(Workers::stop);
        match self.or_cut(|_| threads::finish()) {
            None => {} // the power was cut, and `or_cut` restarted the process
            Some(Ok(())) => {
                self.leave();
                let Some(started) = self.or_cut(|world| world.start()) else { return };
                match started {
                    Ok((process, books, commit)) => {
                        self.opened(&process, false);
                        self.take_up(process, books, commit);
                    }
                    Err(_) => self.crash(),
                }
            }
            Some(Err(_)) => self.crash(),
        }
    }

    /// Ends the run on a disk without faults: no task keeps waiting, and after a clean stop no hold is open except kept
    /// ones.
    fn end(&mut self) {
        threads::with_workers(Workers::be_still);
        for _ in 0..3 {
            self.run(threads::commit);
            self.run(threads::work);
            self.clock.advance(Duration::from_secs(60));
        }
        threads::with_workers(Workers::nobody_sleeps);
        threads::with_workers(Workers::stop);
        threads::finish().expect("a sound disk");
        self.disk.look(|books, durable| durable.agree(books));
        self.leave();
        let (process, ..) = self.start().expect("a sound disk");
        self.opened(&process, false);
    }
}
