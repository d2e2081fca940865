//! Knows which holds outlive their requests: the open jobs of the upstreams. The one that takes a job out of the list
//! settles its hold, so that it is settled once.

mod spender;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use super::outbox::Ticket;
use super::record::ExternalId;
use crate::types::{AccountNum, Credits, KeyNum, RequestId, StatusClass};

/// Most open jobs. Further ones are refused.
pub const MAX_OPEN_JOBS: usize = 1_000_000;
/// Most settled jobs whose account is remembered, the newest ones.
pub const MAX_SETTLED_JOBS: usize = 1_000_000;

/// An open job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenJob {
    /// The id of the request that opened it.
    pub hold: RequestId,
    /// The account that pays.
    pub account: AccountNum,
    /// The key of the request.
    pub key: KeyNum,
    /// The credits held.
    pub amount: Credits,
    /// The upstream's id of the job.
    pub external_id: ExternalId,
}

/// What is known of the job with an external id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundJob {
    /// It is open.
    Open(OpenJob),
    /// It is settled.
    Settled,
    /// There was none, or several accounts have one.
    Unknown,
}

/// A job of a fleet that the books thread is to take and settle.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) hold: RequestId,
    pub(super) charge: Credits,
    pub(super) outcome: StatusClass,
    done: watch::Sender<Option<Took>>,
}

impl Settling {
    /// Tells what became of it; `None`: it could not be taken.
    pub(super) fn tell(self, settled: Option<Option<(Credits, Option<Ticket>)>>) {
        self.done.send_replace(Some(match settled {
            Some(Some((_, Some(ticket)))) => Took::Settled(ticket),
            Some(None) => Took::TooLate,
            Some(Some((_, None))) | None => Took::Failed, // or the ledger is closed
        }));
    }
}

/// A job of a fleet that the books thread is to settle, and what became of it once that is known.
#[derive(Debug)]
pub(super) struct Taken {
    job: OpenJob,
    took: watch::Receiver<Option<Took>>,
}

/// What became of a settlement of a job of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    /// It is in this record of the books thread's outbox.
    Settled(Ticket),
    /// Somebody else is settling the job.
    TooLate,
    Failed,
}

impl Taken {
    /// Waits until it is known; `None` if the ledger is closed, or too many wait.
    async fn took(&self) -> Option<Took> {
        self.took.clone().wait_for(Option::is_some).await.map_or(None, |took| *took)
    }

    /// True if somebody else settled the job.
    pub(super) fn was_too_late(&self) -> bool {
        *self.took.borrow() == Some(Took::TooLate)
    }
}

/// The open jobs of all accounts, and whose jobs the settled ones were.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    lists: Mutex<Lists>,
    /// Jobs of the fleet that the books thread is to settle.
    pub(super) settling: Mutex<VecDeque<Settling>>,
}

#[derive(Debug, Default)]
struct Lists {
    open: HashMap<RequestId, OpenJob>,
    names: HashMap<(AccountNum, ExternalId), RequestId>,
    /// Jobs that a fold gives to the fleet.
    moving: HashMap<RequestId, ExternalId>,
    /// The accounts that have an open job with an external id, usually one.
    accounts: HashMap<ExternalId, SmallVec<[AccountNum; 2]>>,
    /// Hashes of settled jobs, one of account and external id and one of the external id: 8 bytes each. That one of a
    /// million is equal to another by chance has a probability of 10^-7.
    settled: HashSet<u64>,
    order: VecDeque<u64>,
    hasher: RandomState,
}

impl Jobs {
    /// Adds a job once `record` has recorded it, so that no settlement is recorded before. `None` if the account has an
    /// open job with this external id: then nothing is recorded or added.
    pub(super) fn open<T>(&self, job: OpenJob, record: impl FnOnce() -> T) -> Option<T> {
        let mut lists = self.lists.lock();
        let name = (job.account, job.external_id.clone());
        if lists.names.contains_key(&name) {
            return None;
        }
        let recorded = record();
        lists.accounts.entry(job.external_id.clone()).or_default().push(job.account);
        lists.names.insert(name, job.hold);
        lists.open.insert(job.hold, job);
        Some(recorded)
    }

    /// True if no further job can be added.
    pub(super) fn is_full(&self) -> bool {
        self.lists.lock().open.len() >= MAX_OPEN_JOBS
    }

    /// Takes a job by its hold. The caller settles it.
    pub(super) fn take(&self, hold: RequestId) -> Option<OpenJob> {
        let mut lists = self.lists.lock();
        let job = lists.remove(hold)?;
        lists.settled(job.account, &job.external_id);
        Some(job)
    }

    /// Takes a job by its hold, to give it to the fleet. False if it is not here, or somebody settles it.
    pub(super) fn share(&self, hold: RequestId) -> bool {
        let mut lists = self.lists.lock();
        let job = lists.remove(hold);
        job.map(|job| lists.moving.insert(hold, job.external_id)).is_some()
    }

    /// The fleet has a job.
    pub(super) fn shared(&self, hold: RequestId) {
        self.lists.lock().moving.remove(&hold);
    }

    /// True until a job is settled, or the fleet has it.
    pub(super) fn has(&self, hold: RequestId) -> bool {
        let lists = self.lists.lock();
        lists.open.contains_key(&hold) || lists.moving.contains_key(&hold)
    }

    /// True if a job with this external id is on its way to the fleet.
    pub(super) fn is_moving(&self, external_id: &ExternalId) -> bool {
        self.lists.lock().moving.values().any(|moving| moving == external_id)
    }

    /// Remembers a settled job.
    pub(super) fn remember(&self, account: AccountNum, external_id: &ExternalId) {
        self.lists.lock().settled(account, external_id);
    }

    /// Finds the open job of an account.
    pub(super) fn find(&self, account: AccountNum, external_id: &ExternalId) -> Option<OpenJob> {
        let lists = self.lists.lock();
        lists.open.get(lists.names.get(&(account, external_id.clone()))?).cloned()
    }

    /// Finds the open job with this external id, whatever its account; `None` if there is none, or several accounts have one.
    pub(super) fn find_alone(&self, external_id: &ExternalId) -> Option<OpenJob> {
        let lists = self.lists.lock();
        match &**lists.accounts.get(external_id)? {
            [one] => lists.open.get(lists.names.get(&(*one, external_id.clone()))?).cloned(),
            _ => None,
        }
    }

    /// True if an account had a job with this external id, which is settled.
    pub(super) fn is_settled(&self, external_id: &ExternalId) -> bool {
        let lists = self.lists.lock();
        lists.settled.contains(&lists.hasher.hash_one(external_id))
    }

    /// True if the account has or had a job with this external id.
    pub(super) fn knows(&self, account: AccountNum, external_id: &ExternalId) -> bool {
        let lists = self.lists.lock();
        let hash = lists.hasher.hash_one((account, external_id));
        lists.names.contains_key(&(account, external_id.clone())) || lists.settled.contains(&hash)
    }
}

impl Lists {
    fn remove(&mut self, hold: RequestId) -> Option<OpenJob> {
        let job = self.open.remove(&hold)?;
        self.names.remove(&(job.account, job.external_id.clone()));
        if let Some(accounts) = self.accounts.get_mut(&job.external_id) {
            accounts.retain(|account| *account != job.account);
            if accounts.is_empty() {
                self.accounts.remove(&job.external_id);
            }
        }
        Some(job)
    }

    fn settled(&mut self, account: AccountNum, external_id: &ExternalId) {
        for hash in [self.hasher.hash_one((account, external_id)), self.hasher.hash_one(external_id)] {
            if !self.settled.insert(hash) {
                continue;
            }
            self.order.push_back(hash);
            if self.order.len() > 2 * MAX_SETTLED_JOBS
                && let Some(oldest) = self.order.pop_front()
            {
                self.settled.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_taken_once_and_remembered() {
        let (jobs, id) = (Jobs::default(), ExternalId::new("job_1").unwrap());
        let job = |hold: u128, account| OpenJob {
            hold: RequestId(hold),
            account: AccountNum(account),
            key: KeyNum(1),
            amount: Credits::from_millionths(5),
            external_id: id.clone(),
        };
        let open = |job| jobs.open(job, || ()).is_some();
        assert!(open(job(1, 1)) && !open(job(2, 1)) && open(job(3, 2)));
        assert_eq!(jobs.find(AccountNum(1), &id), Some(job(1, 1)));
        assert_eq!(jobs.find_alone(&id), None, "two accounts have one");
        assert_eq!(
            (jobs.take(RequestId(1)), jobs.take(RequestId(1)), jobs.take(RequestId(2))),
            (Some(job(1, 1)), None, None)
        );
        assert!(
            jobs.knows(AccountNum(1), &id)
                && jobs.knows(AccountNum(2), &id)
                && !jobs.knows(AccountNum(3), &id)
        );
        assert_eq!(jobs.find(AccountNum(1), &id), None);
        assert_eq!(jobs.find_alone(&id), Some(job(3, 2)));
        assert!(open(job(4, 1)), "the upstream may use an id again");
    }
}
