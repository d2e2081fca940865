//! What a gateway does again and again besides serving.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::reload::{EVERY, Look};
use crate::control::{Control, Refused};

/// How often that is pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Reloads when the files change. An invalid file is reported once it no longer changes, so that a half-written file
/// is not reported.
pub(super) async fn watch(control: Arc<Control>, path: PathBuf, clock: Clock) {
    let mut last = Look::default();
    let mut refused: Option<Refused> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let look = Look::at(&path, &control.watched());
        let settled = refused.is_none_or(|refused| refused.is_reported);
        if look == last && settled && !look.is_fresh(clock.wall().0) {
            continue;
        }
        last = look;
        refused = control.refresh(refused).await;
    }
}

/// Starts to prune, to refill accounts and to top them up, to take credits back, to deliver webhooks and to export traces.
pub(super) fn start(control: &Arc<Control>) -> [JoinHandle<()>; 6] {
    [
        tokio::spawn(prune(Arc::clone(control))),
        tokio::spawn(Arc::clone(control).refill_accounts()),
        tokio::spawn(Arc::clone(control).top_up_accounts()),
        tokio::spawn(Arc::clone(control).take_back_missing()),
        tokio::spawn(Arc::clone(control).deliver_webhooks()),
        tokio::spawn(Arc::clone(control).export_traces()),
    ]
}

/// Prunes what would accumulate: meters of dropped keys, answers that are too old to be repeated, and sessions that have
/// ended.
async fn prune(control: Arc<Control>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        control.prune_meters();
        control.prune_answers().await;
        control.prune_repeats().await;
        control.prune_requests().await;
        control.prune_jobs().await;
        control.prune_people().await;
    }
}
