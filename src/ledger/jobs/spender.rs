//! What the data plane needs of jobs: finds them, also those of a fleet, and settles them.

use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::{FoundJob, OpenJob, Taken, Took};
use crate::ledger::adoption::Settlement;
use crate::ledger::outbox::{NotDurable, Ticket};
use crate::ledger::purse::Purse;
use crate::ledger::record::ExternalId;
use crate::ledger::spender::{Commit, Settled, Spender};
use crate::ledger::store::{LedgerError, Result};
use crate::ledger::threads::{BooksThread, open_job};
use crate::types::{Credits, RequestId, StatusClass};

/// How often a worker checks if the settlement of a job is on disk.
const CHECKED_EVERY: Duration = Duration::from_millis(1);
/// Longest time that the response to a request that opened a job waits until the fleet can find the job.
const MAX_SHARE_WAIT: Duration = Duration::from_secs(2);
/// How often a fold is asked for meanwhile.
const ASKED_EVERY: Duration = Duration::from_millis(50);
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
        while shared.jobs.is_moving(external_id) {
            tokio::time::sleep(CHECKED_EVERY).await; // until it is stored; the request has a time for its payment
        }
        let (readers, id, account) =
            (self.0.readers.clone(), external_id.clone(), purse.map(|purse| purse.num));
        let permit = READS.acquire().await.map_err(|_| LedgerError::Closed)?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit; // until it is read, although nobody may wait for it any more
            readers.open()?.find_job(account, &id)
        });
        let (open, is_settled) = read.await.map_err(|_| LedgerError::Closed)??;
        let is_of_one = open.iter().all(|hold| Some(hold.account) == open.first().map(|first| first.account));
        Ok(match open.first().filter(|_| is_of_one).and_then(open_job) {
            Some(job) => FoundJob::Open(job),
            None if is_settled => FoundJob::Settled,
            None => FoundJob::Unknown,
        })
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
            let taken = shared.desk.as_ref().map(|_| self.settle_of_fleet(job.hold, charge, outcome))?;
            return Some((charge.min(job.amount), Settled(Some(Commit::OfFleet(self.clone(), taken)))));
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
    fn settle_of_fleet(&self, hold: RequestId, charge: Credits, outcome: StatusClass) -> Taken {
        let (done, taken) = watch::channel(None);
        let settle = move |books: &mut BooksThread| {
            let settled = books.settle_of_fleet(hold, charge, outcome);
            if let Err(error) = &settled {
                tracing::error!(%error, "a job is not settled: it stays open");
            }
            done.send_replace(Some(match settled {
                Ok(Some((_, Some(ticket)))) => Took::Settled(ticket),
                Ok(None) => Took::TooLate,
                Ok(Some((_, None))) | Err(_) => Took::Failed, // or the ledger is closed
            }));
        };
        if self.0.books.try_send(Box::new(settle)).is_ok() {
            self.0.shared.job_added(); // otherwise too many wait, and `done` is dropped
        }
        Taken(taken)
    }

    /// Waits until the settlement of a job of the fleet is on disk, unless somebody else settled it.
    pub(in crate::ledger) async fn taken(&self, taken: &Taken) -> Result<(), NotDurable> {
        match taken.took().await {
            Some(Took::Settled(ticket)) => {
                self.books_durable(ticket).await?;
                self.0.shared.want_fold(); // so that all gateways see soon what became of it
                Ok(())
            }
            Some(Took::TooLate) => Ok(()),
            Some(Took::Failed) | None => Err(NotDurable),
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
