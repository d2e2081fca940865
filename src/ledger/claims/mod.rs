//! Lets one of several requests with the same idempotency key through: the one that **claims** the key. The others get
//! its answer.
//!
//! Claims and answers are records of the journal, so that they are as durable as the hold and the charge that they belong
//! to. The list in memory has the claims that are in progress, and those that no fold has stored yet; all others are
//! read from the store. What a crash left in progress gets an empty answer at the next start: its answer is lost.

mod changes;
mod claim;
mod entry;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

pub use changes::ClaimChange;
pub(super) use changes::ClaimChanges;
pub use claim::Claim;
use entry::{Entry, Released, State};

use super::fleet::{Claiming, Desk, FleetClaim};
use super::outbox::{Outbox, Ticket};
use super::record::Record;
use super::store::{LedgerError, Readers, RepeatRow, Result};
use crate::types::{KeyHash, RequestId, WallTime};

/// Most claims in the list. Further requests with an idempotency key are refused.
const MAX_CLAIMS: usize = 100_000;

/// Most reads of the store at a time.
const MAX_READS: usize = 16;
/// Shortest time between two log lines about reads that failed, in milliseconds.
const LOGGED_EVERY: i64 = 10_000;

/// A request with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// The account and the idempotency key, as a hash.
    pub id: KeyHash,
    /// The request, as a hash.
    pub request: KeyHash,
}

/// What is known of a request with an idempotency key.
#[derive(Debug)]
pub enum Found<T> {
    /// It is the first one.
    First(T),
    /// The first one is in progress.
    InProgress,
    /// The first one was another request.
    Other,
    /// The encrypted answer.
    Answered(Arc<[u8]>),
    /// The first one was charged, or a crash ended it, and its answer was not kept.
    Lost,
}

/// Why nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// [`MAX_CLAIMS`] are in the list.
    Full,
    /// The ledger cannot be read or written.
    Unavailable,
}

/// The claims that are in progress, or not stored yet.
#[derive(Debug)]
pub(super) struct Claims {
    list: Mutex<HashMap<KeyHash, Entry>>,
    /// Permits to read the store.
    reads: Arc<Semaphore>,
    /// When a failed read was last logged.
    logged: AtomicI64,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            logged: AtomicI64::new(i64::MIN),
        }
    }
}

/// The records of an answer.
pub(super) fn records(id: RequestId, repeat: KeyHash, sealed: &[u8]) -> Vec<Record> {
    let mut rest = sealed;
    let mut records = Vec::new();
    loop {
        let (part, more) = rest.split_at(rest.len().min(Record::MAX_PART));
        rest = more;
        records.push(Record::Answer { id, repeat, is_last: rest.is_empty(), part: part.to_vec() });
        if rest.is_empty() {
            return records;
        }
    }
}

/// What to do about a request.
enum Next {
    Tell(Found<Option<FleetClaim>>),
    /// The last claim was released, and that is on disk soon.
    Soon,
    Wait(watch::Receiver<Option<Arc<RepeatRow>>>),
    Read(watch::Sender<Option<Arc<RepeatRow>>>),
}

impl Claims {
    /// Finds a request, in the list or in the store. If it is the first one, it is in the list then, in progress.
    ///
    /// # Errors
    /// [`NotFound`].
    pub(super) async fn find(
        &self,
        readers: &Readers,
        desk: Option<&Arc<Desk>>,
        wanted: &RepeatRow,
        now: WallTime,
    ) -> Result<Found<Option<FleetClaim>>, NotFound> {
        let repeatable = Repeatable { id: wanted.id, request: wanted.request };
        loop {
            let sender = match self.next(repeatable, now, desk.is_some())? {
                Next::Tell(found) => return Ok(found),
                Next::Soon => {
                    soon().await;
                    continue;
                }
                Next::Wait(mut read) => match read.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(row)) => return Ok(stored(row, repeatable, desk.is_some())),
                    _ => continue, // nothing is stored, or it could not be read
                },
                Next::Read(sender) => sender,
            };
            let mut reading = Reading { claims: self, id: repeatable.id, is_first: false };
            if let Some(desk) = desk {
                let claiming = desk.claim(wanted.clone(), now).await.map_err(|_| NotFound::Unavailable)?;
                match claiming {
                    Claiming::First(claim) => {
                        reading.is_first = true;
                        return Ok(Found::First(Some(claim)));
                    }
                    Claiming::Known(row) => {
                        let row = Arc::new(row);
                        sender.send_replace(Some(Arc::clone(&row)));
                        return Ok(stored(&row, repeatable, true));
                    }
                }
            }
            let (readers, id) = (readers.clone(), repeatable.id);
            let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| NotFound::Unavailable)?;
            let find = move || {
                let _permit = permit; // until it is read, although nobody may wait for it any more
                readers.open()?.repeat(&id)
            };
            let row = read(find).await.map_err(|error| {
                self.log(&error, now);
                NotFound::Unavailable
            })?;
            let Some(row) = row.filter(|row| row.until > now) else {
                reading.is_first = true;
                return Ok(Found::First(None));
            };
            let row = Arc::new(row);
            sender.send_replace(Some(Arc::clone(&row)));
            return Ok(stored(&row, repeatable, false));
        }
    }

    /// Logs that the store cannot be read, at most every [`LOGGED_EVERY`].
    fn log(&self, error: &LedgerError, now: WallTime) {
        let is_due =
            |logged: i64| (now.0.saturating_sub(logged) >= LOGGED_EVERY || logged > now.0).then_some(now.0);
        if self.logged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok() {
            tracing::error!(%error, "requests with an idempotency key are refused: what is stored of them cannot be read");
        }
    }

    /// `is_fleet`: the store must be asked before a key is claimed again, once a fold has told it what became of the last claim.
    fn next(
        &self,
        Repeatable { id, request }: Repeatable,
        now: WallTime,
        is_fleet: bool,
    ) -> Result<Next, NotFound> {
        let mut list = self.list.lock();
        let is_over = |entry: &Entry| match &entry.state {
            State::Released(released) => !is_fleet && released.is_durable(),
            State::Answered(..) | State::Lost => entry.until <= now,
            State::Reading(_) | State::InProgress | State::Adopted => false,
        };
        let is_full = list.len() >= MAX_CLAIMS;
        match list.get_mut(&id) {
            None if is_full => Err(NotFound::Full),
            None => {
                let (sender, receiver) = watch::channel(None);
                let state = State::Reading(receiver);
                list.insert(id, Entry { request, hold: None, until: now, state, released: None });
                Ok(Next::Read(sender))
            }
            Some(entry) if is_over(entry) && is_fleet => {
                let (sender, receiver) = watch::channel(None);
                let state = State::Reading(receiver);
                *entry = Entry { request, hold: None, until: now, state, released: None };
                Ok(Next::Read(sender))
            }
            Some(entry) if is_over(entry) => {
                let released = match &entry.state {
                    State::Released(released) => Some(released.clone()),
                    _ => None,
                };
                *entry = Entry { request, hold: None, until: now, state: State::InProgress, released };
                Ok(Next::Tell(Found::First(None)))
            }
            Some(Entry { state: State::Reading(read), .. }) => Ok(Next::Wait(read.clone())),
            Some(Entry { state: State::Released(released), .. }) => {
                match released.outbox.state(released.ticket) {
                    Some(Err(_)) => Err(NotFound::Unavailable),
                    _ if is_simulated() => Ok(Next::Tell(Found::InProgress)),
                    _ => Ok(Next::Soon),
                }
            }
            Some(entry) if entry.request != request => Ok(Next::Tell(Found::Other)),
            Some(entry) => Ok(Next::Tell(match &entry.state {
                State::Answered(answer, outbox, ticket) if outbox.state(*ticket) == Some(Ok(())) => {
                    Found::Answered(Arc::clone(answer))
                }
                State::Lost => Found::Lost,
                _ => Found::InProgress,
            })),
        }
    }

    /// Notes that the claim of a request is recorded.
    fn made(&self, id: &KeyHash, hold: RequestId, until: WallTime) {
        if let Some(entry) = self.list.lock().get_mut(id) {
            (entry.hold, entry.until) = (Some(hold), until);
        }
    }

    /// Decides a claim that was recorded for a request.
    fn decide(&self, id: &KeyHash, hold: RequestId, state: State) {
        if let Some(entry) = self.list.lock().get_mut(id).filter(|entry| entry.hold == Some(hold)) {
            entry.state = state;
        }
    }

    /// Removes a claim that was not recorded.
    fn forget(&self, id: &KeyHash) {
        let mut list = self.list.lock();
        let Some(entry) = list.get_mut(id).filter(|entry| entry.hold.is_none()) else { return };
        match entry.released.take() {
            Some(released) => (entry.hold, entry.state) = (Some(released.hold), State::Released(released)),
            None => drop(list.remove(id)),
        }
    }

    /// Forgets the claims that a fold has stored and that are decided.
    pub(super) fn folded(&self, changes: &[(KeyHash, ClaimChange)]) {
        if changes.is_empty() {
            return;
        }
        let mut list = self.list.lock();
        for (id, change) in changes {
            let (Some(decided), Some(entry)) = (change.decided(), list.get_mut(id)) else { continue };
            if entry.hold == Some(decided) {
                list.remove(id);
            } else if entry.released.as_ref().is_some_and(|released| released.hold == decided) {
                entry.released = None;
            }
        }
    }

    /// Decides an adopted claim, whose records the books thread has added to its outbox. No answer: it is released.
    pub(super) fn settle_adopted(
        &self,
        id: &KeyHash,
        hold: RequestId,
        answer: Option<Vec<u8>>,
        (outbox, ticket): (&Arc<Outbox>, Ticket),
    ) {
        let state = match answer {
            Some(sealed) => State::of(sealed, outbox, ticket),
            None => State::Released(Released { hold, outbox: Arc::clone(outbox), ticket }),
        };
        self.decide(id, hold, state);
    }

    /// Adds a claim of the process that handed the ledger over.
    pub(super) fn adopt(&self, row: &RepeatRow) {
        let RepeatRow { id, request, hold, until, .. } = *row;
        let entry = Entry { request, hold: Some(hold), until, state: State::Adopted, released: None };
        self.list.lock().insert(id, entry);
    }

    /// The adopted claims that are in progress.
    pub(super) fn adopted(&self) -> Vec<(KeyHash, RequestId)> {
        let list = self.list.lock();
        let adopted = list.iter().filter(|(_, entry)| matches!(entry.state, State::Adopted));
        adopted.filter_map(|(id, entry)| Some((*id, entry.hold?))).collect()
    }
}

/// True in the simulation, which has one thread and no timers.
fn is_simulated() -> bool {
    cfg!(test) && tokio::runtime::Handle::try_current().is_err()
}

/// Waits until a record may be on disk. A request waits for its payment for a bounded time.
async fn soon() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Reads from the store, which must not delay a worker.
async fn read<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if is_simulated() {
        return read();
    }
    tokio::task::spawn_blocking(read).await.map_err(|_| LedgerError::Closed)?
}

/// What the store tells about a request. `is_fleet`: one without an answer may be in progress at another gateway.
fn stored(row: &RepeatRow, repeatable: Repeatable, is_fleet: bool) -> Found<Option<FleetClaim>> {
    match &row.answer {
        _ if row.request != repeatable.request => Found::Other,
        Some(answer) if !answer.is_empty() => Found::Answered(answer.as_slice().into()),
        None if is_fleet => Found::InProgress,
        _ => Found::Lost,
    }
}

/// The store is being read for a claim. Dropped when that is done, or given up.
struct Reading<'a> {
    claims: &'a Claims,
    id: KeyHash,
    /// True if nothing was found: the request is the first one.
    is_first: bool,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut list = self.claims.list.lock();
        if !self.is_first {
            list.remove(&self.id);
        } else if let Some(entry) = list.get_mut(&self.id) {
            entry.state = State::InProgress;
        }
    }
}
