//! The parts of an open ledger, before its threads run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{MAX_JOBS, Opened, settle_lost};
use crate::clock::Clock;
use crate::ledger::fleet::LeaseThread;
use crate::ledger::purse::Lessee;
use crate::ledger::store::{Leases, Readers, Result, Storage};
use crate::ledger::threads::{BooksThread, CommitThread, Job, Shared};

/// An open ledger whose threads do not run yet.
pub(in crate::ledger) struct Parts {
    pub(in crate::ledger) shared: Arc<Shared>,
    pub(in crate::ledger) jobs: mpsc::Sender<Job>,
    pub(in crate::ledger) readers: Readers,
    pub(in crate::ledger) books: BooksThread,
    pub(in crate::ledger) commit: CommitThread,
    pub(in crate::ledger) leases: Option<LeaseThread>,
    pub(super) opened: Opened,
}

impl Parts {
    /// Opens a ledger, or adopts one that another process handed over.
    pub(in crate::ledger) fn open(
        storage: Storage,
        workers: usize,
        commit_delay: Duration,
        clock: Clock,
        adopts: bool,
    ) -> Result<Self> {
        let Storage { books, mut journal, mut leases } = storage;
        let shared = Arc::new(Shared::new(workers, commit_delay, leases.is_some()));
        let (jobs, queue) = mpsc::channel(MAX_JOBS);
        let readers = books.readers();
        // Before anything is read, so that no later change is missed.
        let version = leases.as_mut().map_or(Ok(0), |leases| leases.version())?;
        let (books, found) =
            BooksThread::open(books, &mut *journal, Arc::clone(&shared), queue, clock.clone(), adopts)?;
        let own = leases.as_mut().map_or(Ok(Vec::new()), |leases| adopt_leases(&shared, &mut **leases))?;
        let leases = leases.zip(shared.desk.clone()).map(|(leases, desk)| {
            LeaseThread::new(leases, desk, Arc::clone(&shared), clock.clone(), (version, own), settle_lost)
        });
        let commit = CommitThread::new(journal, Arc::clone(&shared), found.last_seq, clock);
        let opened = Opened { doubts: found.doubts, off_by: found.off_by, epoch: found.epoch };
        Ok(Self { shared, jobs, readers, books, commit, leases, opened })
    }
}

/// Takes over what an earlier process leased. Returns of what.
fn adopt_leases(shared: &Shared, leases: &mut dyn Leases) -> Result<Vec<Arc<dyn Lessee>>> {
    let (mut own, mut gone) = (Vec::new(), Vec::new());
    for (of, leased) in leases.own()? {
        match shared.lessee(of) {
            Some(purse) => {
                purse.pot().adopt(leased);
                own.push(purse);
            }
            None => gone.push((of, leased)), // of a spending limit that was removed
        }
    }
    if !gone.is_empty() {
        leases.give_back(&gone)?;
    }
    Ok(own)
}
