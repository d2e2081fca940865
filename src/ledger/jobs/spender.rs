//! What the data plane needs of jobs: finds them, also those of a fleet, and settles them.

use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::{FoundJob, OpenJob, Settling, Taken, Took};
use crate::ledger::adoption::Settlement;
use crate::ledger::outbox::{NotDurable, Ticket};
use crate::ledger::purse::Purse;
use crate::ledger::record::ExternalId;
use crate::ledger::spender::{Commit, Settled, Spender};
use crate::ledger::store::{FleetJob, LedgerError, Result};
use crate::ledger::threads::open_job;
use crate::types::{AccountNum, Credits, RequestId, StatusClass};

/// How often a worker checks if the settlement of a job is on disk.
const CHECKED_EVERY: Duration = Duration::from_millis(1);
/// Longest time that the response to a request that opened a job waits until the fleet can find the job.
const MAX_SHARE_WAIT: Duration = Duration::from_secs(2);
/// How often a fold is asked for meanwhile.
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether another gateway has settled a job.
const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// Longest time that a request waits until it is known what became of a job.
const MAX_FIND: Duration = Duration::from_secs(2);
/// Longest time that a response waits until a job of the fleet is settled.
const MAX_SETTLE: Duration = Duration::from_secs(8);
/// Most jobs of the fleet that wait to be settled. Further ones stay open.
const MAX_SETTLING: usize = 10_000;
/// Most reads of the store for jobs at a time.
const MAX_READS: usize = 16;
static READS: Semaphore = Semaphore::const_new(MAX_READS);

impl Spender {
    /// Finds a job by the upstream's id, of one account or of all.
    ///
    /// # Errors
    /// If the jobs of the fleet cannot be read.
    pub async fn find_job(&self, purse: Option<&Purse>, external_id: &ExternalId) -> Result<FoundJob> {
        let shared = &self.0.shared;
        let own = match purse {
            Some(purse) => shared.jobs.find(purse.num, external_id),
            None => shared.jobs.find_alone(external_id),
        };
        if let Some(job) = own {
            return Ok(FoundJob::Open(job));
        }
        if shared.desk.is_none() {
            let is_settled = match purse {
                Some(purse) => shared.jobs.knows(purse.num, external_id),
                None => shared.jobs.is_settled(external_id),
            };
            return Ok(if is_settled { FoundJob::Settled } else { FoundJob::Unknown });
        }
        let account = purse.map(|purse| purse.num);
        let found = tokio::time::timeout(MAX_FIND, async {
            loop {
                match self.job_of_fleet(account, external_id).await? {
                    FleetJob::Open(hold) => {
                        return Ok(open_job(&hold).map_or(FoundJob::Unknown, FoundJob::Open));
                    }
                    FleetJob::Settled => return Ok(FoundJob::Settled),
                    FleetJob::Unknown => return Ok(FoundJob::Unknown),
                    // Until that is on disk, the gateway may be lost, and the job open again.
                    FleetJob::BeingSettled => tokio::time::sleep(LOOKED_EVERY).await,
                }
            }
        });
        found.await.unwrap_or_else(|_| Err(LedgerError::Failed("the job is being settled".to_owned())))
    }

    /// What became of a job of the fleet.
    async fn job_of_fleet(&self, account: Option<AccountNum>, external_id: &ExternalId) -> Result<FleetJob> {
        while self.0.shared.jobs.is_moving(external_id) {
            tokio::time::sleep(CHECKED_EVERY).await; // until it is stored
        }
        let (readers, id) = (self.0.readers.clone(), external_id.clone());
        let permit = READS.acquire().await.map_err(|_| LedgerError::Closed)?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit; // until it is read, although nobody may wait for it any more
            readers.open()?.find_job(account, &id)
        });
        read.await.map_err(|_| LedgerError::Closed)?
    }

    /// Settles a job: charges at most what is held for it. `None` if it was settled meanwhile, as far as this gateway knows.
    pub fn settle_job(
        &self,
        job: &OpenJob,
        charge: Credits,
        outcome: StatusClass,
    ) -> Option<(Credits, Settled)> {
        let shared = &self.0.shared;
        let Some(job) = shared.jobs.take(job.hold) else {
            shared.desk.as_ref()?;
            let settled = match shared.successor.is_open() {
                true => {
                    Commit::Successor(shared.successor.pass_on(job.hold, Settlement::Job(charge, outcome)))
                }
                false => Commit::OfFleet(self.clone(), self.settle_of_fleet(job, charge, outcome)),
            };
            return Some((charge.min(job.amount), Settled(Some(settled))));
        };
        let commit = match shared.settle_job(&job, charge, outcome) {
            (_, Some(ticket)) => Commit::Books(self.clone(), ticket),
            (charge, None) => {
                let settlement = Settlement::Job(charge, outcome); // the ledger was handed over
                Commit::Successor(shared.successor.pass_on(job.hold, settlement))
            }
        };
        Some((charge.min(job.amount), Settled(Some(commit))))
    }

    /// Has the books thread take a job of the fleet, and settle it.
    fn settle_of_fleet(&self, job: &OpenJob, charge: Credits, outcome: StatusClass) -> Taken {
        let (done, took) = watch::channel(None);
        let mut settling = self.0.shared.jobs.settling.lock();
        if settling.len() < MAX_SETTLING {
            settling.push_back(Settling { hold: job.hold, charge, outcome, done });
            self.0.shared.job_added(); // otherwise too many wait, and `done` is dropped
        }
        Taken { job: job.clone(), took }
    }

    /// Waits until the settlement of a job of the fleet is on disk, also if somebody else settles it.
    pub(in crate::ledger) async fn taken(&self, taken: &Taken) -> Result<(), NotDurable> {
        let settled = async {
            match taken.took().await {
                Some(Took::Settled(ticket)) => {
                    self.books_durable(ticket).await?;
                    self.0.shared.want_fold(); // so that all gateways see soon what became of it
                    Ok(())
                }
                Some(Took::TooLate) => self.settled_elsewhere(&taken.job).await,
                Some(Took::Failed) | None => Err(NotDurable),
            }
        };
        tokio::time::timeout(MAX_SETTLE, settled).await.unwrap_or(Err(NotDurable))
    }

    /// Waits until somebody else has settled a job.
    async fn settled_elsewhere(&self, job: &OpenJob) -> Result<(), NotDurable> {
        loop {
            match self.job_of_fleet(Some(job.account), &job.external_id).await {
                Ok(FleetJob::Settled) => return Ok(()),
                // If the gateway that settles it is lost, it is open again. So is a later one with the same id.
                Ok(FleetJob::Open(hold)) if hold.id == job.hold => return Err(NotDurable),
                Ok(FleetJob::Open(_)) => return Ok(()),
                Ok(FleetJob::BeingSettled) => tokio::time::sleep(LOOKED_EVERY).await,
                Ok(FleetJob::Unknown) | Err(_) => return Err(NotDurable),
            }
        }
    }

    /// Waits until the fleet can find a job, for a bounded time: it is on disk.
    pub(in crate::ledger) async fn until_shared(&self, hold: RequestId) {
        let shared = &self.0.shared;
        let wait = async {
            while shared.jobs.has(hold) {
                shared.want_fold();
                let asked = async {
                    while shared.jobs.has(hold) {
                        tokio::time::sleep(CHECKED_EVERY).await;
                    }
                };
                let _ = tokio::time::timeout(ASKED_EVERY, asked).await; // then it is asked for again
            }
        };
        let _ = tokio::time::timeout(MAX_SHARE_WAIT, wait).await; // then it is found later
    }

    /// Waits until a record of the books thread's outbox is on disk. Only jobs have such records, so that looking for it
    /// again and again costs little.
    pub(in crate::ledger) async fn books_durable(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let shared = &self.0.shared;
        let Some(outbox) = shared.outboxes.last() else { return Err(NotDurable) };
        loop {
            if let Some(state) = outbox.state(ticket) {
                return state;
            }
            shared.commit_wanted();
            tokio::time::sleep(CHECKED_EVERY).await;
        }
    }
}
