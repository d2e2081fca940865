//! Connects what workers count with the ledger, which keeps it.

use std::sync::Arc;

use crate::ledger::store::LedgerError;
use crate::ledger::{Bookkeeper, UsageSource};
use crate::policy::outcome::usage::UsagePart;
use crate::snapshot::SnapshotReader;
use crate::telemetry::usage::Usage;

/// Counts in the ledger what workers pass on.
///
/// # Errors
/// If the ledger is closed.
pub(super) async fn count(bookkeeper: &Bookkeeper, view: SnapshotReader) -> Result<Arc<Usage>, LedgerError> {
    let usage: Arc<Usage> = Arc::default();
    bookkeeper.count_usage_from(Box::new(CountedUsage { usage: Arc::clone(&usage), view })).await?;
    Ok(usage)
}

/// What workers count, and how long the configuration keeps it.
struct CountedUsage {
    usage: Arc<Usage>,
    view: SnapshotReader,
}

impl UsageSource for CountedUsage {
    fn take(&mut self) -> Vec<UsagePart> {
        self.usage.take()
    }

    fn kept(&self) -> [i64; 3] {
        self.view
            .load()
            .settings
            .usage_kept
            .map(|kept| i64::try_from(kept.as_secs() / 60).unwrap_or(i64::MAX / 2))
    }
}
