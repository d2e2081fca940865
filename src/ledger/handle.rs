//! Opens a ledger, starts its threads, and creates the handles to them.

mod parts;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) use parts::Parts;
use tokio::sync::mpsc;

use super::adoption::PassedOn;
use super::bookkeeper::Bookkeeper;
use super::spender::SpenderSeed;
use super::store::{LedgerError, Readers, Result, Storage};
use super::threads::{Job, Shared};
use crate::clock::Clock;

/// Most jobs that wait for the books thread. When the queue is full, callers wait.
pub(super) const MAX_JOBS: usize = 64;

/// An open ledger with its running threads.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    books: JoinHandle<Result<()>>,
    commit: JoinHandle<Result<()>>,
    leases: Option<JoinHandle<Result<()>>>,
}

/// The state of a ledger that was found when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Holds that a crash left open, now charged and listed as in doubt.
    pub doubts: usize,
    /// The sum over all customers' and the operator's accounts, in millionths: zero unless the ledger is damaged.
    pub off_by: i128,
    /// The number of this start, which is higher than at each earlier start of this ledger.
    pub epoch: u32,
}

impl Ledger {
    /// Opens a ledger for `workers` spenders: folds the records that a crash left in the journal, then starts the
    /// threads. `commit_delay`: longest time that a record waits for its commit while no task waits for it.
    ///
    /// # Errors
    /// If the store cannot be read, or the journal contradicts itself.
    pub fn open(
        storage: Storage,
        workers: usize,
        commit_delay: Duration,
        clock: Clock,
    ) -> Result<(Self, Opened)> {
        Self::open_as(storage, workers, commit_delay, clock, false)
    }

    /// Opens a ledger that another process handed over ([`Ledger::hand_over`]). Its open holds are adopted:
    /// [`Bookkeeper::settle_adopted`] settles them, [`Bookkeeper::abandon_adopted`] puts the rest in doubt.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn adopt(
        storage: Storage,
        workers: usize,
        commit_delay: Duration,
        clock: Clock,
    ) -> Result<(Self, Opened)> {
        Self::open_as(storage, workers, commit_delay, clock, true)
    }

    fn open_as(
        storage: Storage,
        workers: usize,
        commit_delay: Duration,
        clock: Clock,
        adopts: bool,
    ) -> Result<(Self, Opened)> {
        let parts = Parts::open(storage, workers, commit_delay, clock, adopts)?;
        let Parts { shared, jobs, readers, books, commit, leases, opened } = parts;
        let commit = spawn("tollgate-commit", move || commit.run())?;
        let books = spawn("tollgate-books", move || books.run())?;
        let leases = leases.map(|leases| spawn("tollgate-leases", move || leases.run())).transpose()?;
        Ok((Self { shared, jobs, readers, books, commit, leases }, opened))
    }

    /// The handle of one worker, to be started on the worker's thread. Workers are numbered from 0. `None` if there are
    /// fewer workers.
    #[must_use]
    pub fn spender(&self, worker: usize) -> Option<SpenderSeed> {
        let (_, workers) = self.shared.outboxes.split_last()?; // the last outbox is the books thread's
        let outbox = workers.get(worker)?;
        Some(SpenderSeed::new(Arc::clone(&self.shared), Arc::clone(outbox), self.readers.clone()))
    }

    /// The control plane's handle.
    #[must_use]
    pub fn bookkeeper(&self) -> Bookkeeper {
        Bookkeeper::new(Arc::clone(&self.shared), self.jobs.clone(), self.readers.clone())
    }

    /// Closes the ledger for another process, although holds may be open. The other process adopts them; their
    /// settlements must be passed on to it.
    ///
    /// # Errors
    /// As [`Ledger::close`].
    pub fn hand_over(self) -> Result<mpsc::Receiver<PassedOn>> {
        let settlements = self.shared.successor.open();
        self.close()?;
        Ok(settlements)
    }

    /// Commits and folds all records, saves limit states and ends the threads. The books thread ends first, since it
    /// needs the commit thread for that; what is leased is returned last.
    ///
    /// # Errors
    /// If the last commit or the last fold failed.
    pub fn close(self) -> Result<()> {
        let Self { shared, jobs, books, commit, leases, .. } = self;
        drop(jobs);
        shared.books_must_end.store(true, Ordering::SeqCst);
        shared.job_added();
        let books = join(books);
        shared.commit_must_end.store(true, Ordering::SeqCst);
        shared.commit_wanted();
        let commit = join(commit);
        let is_settled = books.is_ok() && commit.is_ok() && shared.is_folded();
        shared.desk.iter().for_each(|desk| desk.close(is_settled));
        let leases = leases.map_or(Ok(()), join);
        books.and(commit).and(leases)
    }
}

/// Opens the ledger of a gateway that was lost, which charges what it held, and closes it, which returns its leases. Returns
/// the number of holds.
fn settle_lost(storage: Storage, clock: Clock) -> Result<usize> {
    let (ledger, opened) = Ledger::open(storage, 0, Duration::ZERO, clock)?;
    ledger.close().map(|()| opened.doubts)
}

fn spawn(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<JoinHandle<Result<()>>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| LedgerError::Unusable(format!("cannot start a ledger thread: {error}")))
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| LedgerError::Failed("a ledger thread panicked".to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Settlement;
    use crate::ledger::memory::MemoryStore;
    use crate::ledger::memory::keys::plain_key;
    use crate::ledger::record::{ExternalId, Kept};
    use crate::ledger::spender::HoldRequest;
    use crate::ledger::store::{
        Journal, JournalRow, KeyChange, KeyEdit, KeyRow, KeyTerms, NewFileAccount, Registration, no_notes,
    };
    use crate::policy::credit::SpendLimit;
    use crate::types::{Credits, KeyId, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

    struct Panicking(MemoryStore);

    impl Journal for Panicking {
        fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
            self.0.read(folded)
        }

        fn append(&mut self, _: u64, _: WallTime, _: &[u8]) -> Result<()> {
            panic!("on purpose")
        }

        fn reset(&mut self, _: u64) {}
    }

    /// After the commit thread has panicked, calls return an error instead of waiting for it, and holds are refused.
    #[tokio::test]
    async fn a_commit_thread_that_panics_is_not_waited_for() {
        let store = MemoryStore::default();
        let storage = Storage { journal: Box::new(Panicking(store.clone())), ..store.storage() };
        let delay = Duration::from_millis(5);
        let (ledger, _) = Ledger::open(storage, 1, delay, Clock::system()).unwrap();
        let bookkeeper = ledger.bookkeeper();
        let accounts = vec![NewFileAccount::new("acme".parse().unwrap(), Some(Credits::from_millionths(2)))];
        let wanted = Registration { accounts, ..Registration::default() };
        let num = bookkeeper.register(wanted).await.unwrap().accounts[0].num;
        let (spender, purse) = (ledger.spender(0).unwrap().start(), bookkeeper.purse(num).unwrap());
        let one = Credits::from_millionths(1);
        let held = spender.hold(&purse, KeyNum(1), RouteNum(1), one, RequestId(1)).unwrap();
        assert!(matches!(bookkeeper.reader().await, Err(LedgerError::Closed)));
        assert!(spender.hold(&purse, KeyNum(1), RouteNum(1), one, RequestId(2)).is_err());
        drop((held, bookkeeper));
        assert!(ledger.close().is_err());
    }

    /// What is in flight when a limit is set counts against it once it is charged, also if it is kept meanwhile, and a limit
    /// that replaces another knows of all of it.
    #[tokio::test]
    async fn a_limit_knows_of_what_was_in_flight() {
        let (store, delay) = (MemoryStore::default(), Duration::from_millis(5));
        let (ledger, _) = Ledger::open(store.storage(), 1, delay, Clock::system()).unwrap();
        let bookkeeper = ledger.bookkeeper();
        let credits = |millionths: i64| Credits::from_millionths(millionths);
        let accounts = vec![NewFileAccount::new("acme".parse().unwrap(), Some(credits(1_000)))];
        let keys = vec![(KeyId(1), "acme".parse().unwrap(), "k".to_owned())];
        let routes = vec!["r".parse().unwrap()];
        let wanted = Registration { accounts, keys, routes, ..Registration::default() };
        let num = bookkeeper.register(wanted).await.unwrap().accounts[0].num;
        let (spender, purse) = (ledger.spender(0).unwrap().start(), bookkeeper.purse(num).unwrap());
        let hold =
            |id: u128| spender.hold(&purse, KeyNum(1), RouteNum(1), credits(10), RequestId(id)).unwrap();
        let limit = async |amount: Option<i64>| {
            let limit = amount.map(|amount| SpendLimit { credits: credits(amount), every: None });
            bookkeeper.limit_accounts(vec![(num, limit)]).await.unwrap();
        };
        let left = || purse.cap().map(|cap| cap.left().millionths());
        let (first, second, third) = (hold(1), hold(2), hold(3));
        limit(Some(100)).await;
        assert_eq!(left(), Some(100));
        drop(first.settle(credits(4), StatusClass::Success));
        assert_eq!(left(), Some(96));
        let external_id = ExternalId::new("job").unwrap();
        let kept = Kept {
            external_id: external_id.clone(),
            deadline: WallTime(i64::MAX),
            charge_at_deadline: credits(0),
        };
        drop(second.keep(kept, None));
        assert_eq!(left(), Some(86));
        limit(None).await;
        limit(Some(50)).await;
        let (_, fourth) = (assert_eq!(left(), Some(36)), hold(4));
        assert_eq!(left(), Some(26));
        drop((
            third.settle(credits(10), StatusClass::Success),
            fourth.settle(credits(1), StatusClass::Success),
        ));
        assert_eq!(left(), Some(25));
        let settled = bookkeeper.settle_job("acme".parse().unwrap(), external_id, Some(credits(3))).await;
        assert_eq!(settled.unwrap(), Some(credits(3)));
        assert_eq!(left(), Some(32));
        drop((spender, purse, bookkeeper));
        ledger.close().unwrap();
    }

    /// What a key has in flight when it is put in another group counts there, also if it is kept meanwhile, and no more in the
    /// group before: as the books say.
    #[tokio::test]
    async fn what_is_in_flight_moves_with_its_key() {
        let (store, delay) = (MemoryStore::default(), Duration::from_millis(5));
        let (ledger, _) = Ledger::open(store.storage(), 1, delay, Clock::system()).unwrap();
        let bookkeeper = ledger.bookkeeper();
        let credits = |millionths: i64| Credits::from_millionths(millionths);
        let accounts = vec![NewFileAccount::new("acme".parse().unwrap(), Some(credits(1_000)))];
        let wanted = Registration { accounts, routes: vec!["r".parse().unwrap()], ..Registration::default() };
        let num = bookkeeper.register(wanted).await.unwrap().accounts[0].num;
        for group in ["red", "blue"] {
            let limit = Some(SpendLimit { credits: credits(100), every: None });
            let (acme, name) = ("acme".parse().unwrap(), group.parse().unwrap());
            bookkeeper.change_group(acme, name, limit, no_notes()).await.unwrap();
        }
        let row = KeyRow { group: Some("red".parse().unwrap()), ..plain_key(KeyId(1), num, WallTime(0)) };
        let (id, key) = (row.id, bookkeeper.create_keys(vec![row], no_notes()).await.unwrap()[0]);
        let (spender, purse) = (ledger.spender(0).unwrap().start(), bookkeeper.purse(num).unwrap());
        let hold = |number: u128| {
            let (caps, route, id) = (&bookkeeper.key_caps(key), RouteNum(1), RequestId(number));
            let wanted =
                HoldRequest { purse: &purse, caps, key, route, amount: credits(10), id, claim: None };
            spender.hold_as(wanted).unwrap()
        };
        let left = async || {
            let mut left = Vec::new();
            let mut reader = bookkeeper.reader().await.unwrap();
            reader.each_group(None, &mut |row| left.push(row.spending.left().unwrap().millionths())).unwrap();
            let now = bookkeeper.key_caps(key).group.unwrap().left().millionths();
            (left[0], left[1], now) // in the books of blue and of red; of the key's group in memory
        };
        let (first, second, third) = (hold(1), hold(2), hold(3));
        let external_id = ExternalId::new("job").unwrap();
        let kept =
            |external_id| Kept { external_id, deadline: WallTime(i64::MAX), charge_at_deadline: credits(0) };
        drop(first.keep(kept(external_id.clone()), None));
        assert_eq!(left().await, (100, 100, 70));
        let terms = KeyTerms { group: Some("blue".parse().unwrap()), ..KeyTerms::default() };
        let edit = KeyEdit { version: None, change: KeyChange::Terms(terms) };
        let red = bookkeeper.key_caps(key).group.unwrap();
        bookkeeper.change_key(id, edit, no_notes()).await.unwrap();
        assert_eq!((left().await, red.left()), ((100, 100, 90), credits(80)));
        drop(second.settle(credits(4), StatusClass::Success));
        assert_eq!((left().await, red.left()), ((96, 100, 86), credits(90)));
        drop(third.keep(kept(ExternalId::new("other").unwrap()), None));
        assert_eq!((left().await, red.left()), ((96, 100, 76), credits(100)));
        for job in [external_id, ExternalId::new("other").unwrap()] {
            bookkeeper.settle_job("acme".parse().unwrap(), job, Some(credits(3))).await.unwrap();
        }
        assert_eq!((left().await, red.left()), ((90, 100, 90), credits(100)));
        drop((spender, purse, red, bookkeeper));
        ledger.close().unwrap();
    }

    /// Holds that are open when a ledger is handed over are settled by the new process, each once; those that nobody
    /// settles become holds in doubt.
    #[tokio::test]
    async fn open_holds_are_adopted() {
        let (store, delay) = (MemoryStore::default(), Duration::from_millis(5));
        let (old, _) = Ledger::open(store.storage(), 1, delay, Clock::system()).unwrap();
        let bookkeeper = old.bookkeeper();
        let credits = |millionths: i64| Credits::from_millionths(millionths);
        let accounts = vec![NewFileAccount::new("acme".parse().unwrap(), Some(credits(100)))];
        let wanted = Registration { accounts, ..Registration::default() };
        let num = bookkeeper.register(wanted).await.unwrap().accounts[0].num;
        let (spender, purse) = (old.spender(0).unwrap().start(), bookkeeper.purse(num).unwrap());
        let hold =
            |id: u128| spender.hold(&purse, KeyNum(1), RouteNum(1), credits(10), RequestId(id)).unwrap();
        let (first, second, third, fourth) = (hold(1), hold(2), hold(3), hold(4));
        drop(first.settle(credits(4), StatusClass::Success));
        drop(bookkeeper);
        let mut settlements = tokio::task::spawn_blocking(|| old.hand_over()).await.unwrap().unwrap();
        let refused = spender.hold(&purse, KeyNum(1), RouteNum(1), credits(1), RequestId(5));
        assert_eq!(refused.err(), Some(crate::ledger::HoldError::Unavailable));

        let (new, opened) = Ledger::adopt(store.storage(), 1, delay, Clock::system()).unwrap();
        assert_eq!(opened.doubts, 0);
        let bookkeeper = new.bookkeeper();
        let available = || bookkeeper.purse(num).unwrap().available().millionths();
        assert_eq!(available(), 96 - 30);
        let settled = second.settle(credits(7), StatusClass::Success);
        drop(third); // released
        for _ in 0..2 {
            let passed = settlements.recv().await.unwrap();
            let adopted = bookkeeper.settle_adopted(passed.id, passed.settlement.clone()).await.unwrap();
            passed.finish(adopted);
        }
        settled.committed().await.unwrap();
        assert_eq!(available(), 96 - 7 - 10);
        let again = Settlement::Charge(credits(1), StatusClass::Success);
        assert!(!bookkeeper.settle_adopted(RequestId(2), again).await.unwrap());
        assert_eq!(bookkeeper.abandon_adopted().await.unwrap(), 1);
        drop(settlements);
        assert!(
            fourth.settle(credits(1), StatusClass::Success).committed().await.is_err(),
            "nobody takes it"
        );
        assert_eq!(available(), 96 - 7 - 10, "charged in full");
        drop(bookkeeper);
        tokio::task::spawn_blocking(|| new.close()).await.unwrap().unwrap();
        let (again, opened) = Ledger::open(store.storage(), 1, delay, Clock::system()).unwrap();
        assert_eq!((opened.doubts, opened.off_by), (0, 0));
        assert_eq!(again.bookkeeper().purse(num).unwrap().available().millionths(), 79);
    }
}
