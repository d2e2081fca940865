//! An open ledger and its control plane.

use std::path::Path;
use std::sync::Arc;

use super::error::StartError;
use super::storage;
use crate::clock::Clock;
use crate::config::LoadedConfig;
use crate::control::Control;
use crate::ledger::store::{LedgerError, Storage, unbalanced};
use crate::ledger::{Bookkeeper, Ledger, Opened};

/// How a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// The number of workers that hold credits.
    pub(super) workers: usize,
    /// Accounts of the file that are not in the ledger are created there.
    pub(super) grants: bool,
    /// Another process handed the ledger over.
    pub(super) adopts: bool,
}

/// An open ledger and its control plane. Commands use it without a gateway.
#[derive(Debug)]
pub struct ControlPlane {
    /// The control plane.
    pub control: Arc<Control>,
    pub(super) ledger: Ledger,
}

impl ControlPlane {
    /// Opens the ledger of a configuration and takes its lock. `reads`: the command only reads, so no accounts are
    /// created.
    ///
    /// # Errors
    /// If another process uses the ledger, or the ledger cannot be opened.
    pub async fn open(
        path: &Path,
        loaded: LoadedConfig,
        reads: bool,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let storage = storage::at(&loaded.snapshot.settings.ledger).open()?;
        let how = Opening { workers: 0, grants: !reads, adopts: false };
        let (plane, _, _) = Self::open_for(storage, path, loaded, how, clock).await?;
        Ok(plane)
    }

    pub(super) async fn open_for(
        storage: Storage,
        path: &Path,
        loaded: LoadedConfig,
        Opening { workers, grants, adopts }: Opening,
        clock: &Clock,
    ) -> Result<(Self, Bookkeeper, u32), StartError> {
        let delay = loaded.snapshot.settings.commit_delay;
        let open = if adopts { Ledger::adopt } else { Ledger::open };
        let (ledger, Opened { doubts, off_by, epoch }) = open(storage, workers, delay, clock.clone())?;
        // Commands still work, since `ledger verify` finds the fault; the ledger refuses bookings.
        if off_by != 0 && workers > 0 {
            return Err(StartError::Other(format!(
                "ledger {}: {}",
                storage::at(&loaded.snapshot.settings.ledger),
                unbalanced(off_by)
            )));
        }
        if doubts > 0 {
            tracing::warn!(
                holds = doubts,
                "holds that a crash left open were charged in full; `tollgate ledger in-doubt` lists them"
            );
        }
        let bookkeeper = ledger.bookkeeper();
        let control = Control::boot(path, loaded, grants, bookkeeper.clone(), clock.clone()).await?;
        Ok((Self { control: Arc::new(control), ledger }, bookkeeper, epoch))
    }

    /// Writes pending records and releases the lock.
    ///
    /// # Errors
    /// If the last commit failed.
    pub fn close(self) -> Result<(), LedgerError> {
        self.ledger.close()
    }
}
