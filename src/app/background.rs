//! What a gateway does again and again besides serving.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

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

/// How often a gateway looks if it does what one of a fleet does at a time.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Starts what a gateway does besides serving: it exports its traces, follows what others of its fleet change, and does what
/// one at a time does while it leads.
pub(super) fn start(control: &Arc<Control>) -> [JoinHandle<()>; 4] {
    [
        tokio::spawn(prune_meters(Arc::clone(control))),
        tokio::spawn(Arc::clone(control).follow_fleet()),
        tokio::spawn(lead(Arc::clone(control))),
        tokio::spawn(Arc::clone(control).export_traces()),
    ]
}

/// Prunes, refills accounts and tops them up, takes credits back, and delivers webhooks, while this gateway leads.
async fn lead(control: Arc<Control>) {
    loop {
        if !control.leads() {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let mut tasks = JoinSet::new(); // aborts its tasks when it is dropped
        tasks.spawn(prune(Arc::clone(&control)));
        tasks.spawn(Arc::clone(&control).refill_accounts());
        tasks.spawn(Arc::clone(&control).top_up_accounts());
        tasks.spawn(Arc::clone(&control).take_back_missing());
        tasks.spawn(Arc::clone(&control).deliver_webhooks());
        while control.leads() {
            tokio::time::sleep(LOOK_EVERY).await;
            control.look_for_webhooks();
        }
    }
}

async fn prune_meters(control: Arc<Control>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        control.prune_meters();
    }
}

/// Prunes what would accumulate in the ledger: answers that are too old to be repeated, and sessions that have ended.
async fn prune(control: Arc<Control>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        control.prune_answers().await;
        control.prune_repeats().await;
        control.prune_requests().await;
        control.prune_jobs().await;
        control.prune_people().await;
    }
}
