//! Wakes the task that delivers webhooks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How often is looked for messages that are due, while there are endpoints.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wakes the deliverer when an endpoint is created or a message is replayed.
#[derive(Debug, Default)]
pub(in crate::control) struct Doorbell {
    has_endpoints: AtomicBool,
    rung: Notify,
}

impl Doorbell {
    pub(in crate::control) fn ring(&self) {
        self.has_endpoints.store(true, Ordering::Relaxed);
        self.rung.notify_one();
    }

    /// Waits for the next time to look. Without endpoints, only until the bell is rung.
    pub(super) async fn next(&self) {
        if self.has_endpoints.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(LOOK_EVERY, self.rung.notified()).await;
        } else {
            self.rung.notified().await;
        }
    }
}
