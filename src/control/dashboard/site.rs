//! What all handlers share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::reveals::Reveals;
use crate::control::Control;
use crate::control::operations::Result;
use crate::snapshot::dashboard::Dashboard;
use crate::types::WallTime;

/// Most pages that are updated live. Others ask now and then.
const MAX_LIVE: usize = 64;

/// What all handlers share.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) control: Arc<Control>,
    /// Secrets that are shown once.
    pub(super) reveals: Arc<Reveals>,
    pub(super) live: Arc<Semaphore>,
}

impl Site {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self { control, reveals: Arc::default(), live: Arc::new(Semaphore::new(MAX_LIVE)) }
    }

    pub(super) fn settings(&self) -> Result<Arc<Dashboard>> {
        self.control.dashboard()
    }

    /// True if browsers reach the dashboard over HTTPS.
    pub(super) fn is_https(&self) -> Result<bool> {
        Ok(self.settings()?.url.as_deref().is_some_and(|url| url.starts_with("https:")))
    }

    /// The name of the API, and whether it has a logo.
    pub(super) fn brand(&self) -> (String, bool) {
        match self.settings() {
            Ok(dashboard) => (dashboard.name.clone(), dashboard.logo.is_some()),
            Err(_) => ("Dashboard".to_owned(), false),
        }
    }

    pub(super) fn now(&self) -> WallTime {
        self.control.clock.wall()
    }
}
