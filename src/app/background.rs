//! What a gateway does again and again besides serving.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::reload::{EVERY, Look};
use crate::control::{Control, Refused};

/// How often meters of dropped keys are pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Reloads when the files change. An invalid file is reported once it no longer changes, so that a half-written file
/// is not reported.
pub(super) async fn watch(control: Arc<Control>, path: PathBuf, clock: Clock) {
    let mut last = Look::default();
    let mut refused: Option<Refused> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let look = Look::at(&path, &control.watched().await);
        let settled = refused.is_none_or(|refused| refused.is_reported);
        if look == last && settled && !look.is_fresh(clock.wall().0) {
            continue;
        }
        last = look;
        refused = control.refresh(refused).await;
    }
}

/// Prunes meters of dropped keys periodically, so that they do not accumulate between reloads.
pub(super) async fn prune_meters(control: Arc<Control>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        control.prune_meters();
    }
}
