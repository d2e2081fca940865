//! What a gateway takes over when it starts: listening sockets, and the ledger of the process before it.

use std::path::Path;

use super::handover::Predecessor;
use super::service;
use super::sockets::Sockets;
use crate::gateway::PassedSocket;
use crate::snapshot::Settings;

/// What a gateway takes over when it starts.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets that the service manager opened.
    pub(super) passed: Vec<PassedSocket>,
    /// The process that this one takes over from, which has released the ledger; and all sockets.
    pub(super) taken: Option<(Predecessor, Sockets)>,
}

impl Inherited {
    /// The sockets that the service manager opened.
    #[must_use]
    pub fn from_service_manager() -> Self {
        let passed = service::sockets().into_iter();
        Self { passed: passed.map(|socket| PassedSocket { socket, label: None }).collect(), taken: None }
    }

    /// Takes over from the gateway that runs with this configuration file: its sockets, and its ledger. Opens the
    /// sockets that it did not have before it releases the ledger. `None` if no gateway runs.
    ///
    /// # Errors
    /// If an address cannot be used, or the gateway refuses or does not respond. It goes on then, unless it has released
    /// the ledger.
    pub fn take_over(path: &Path, settings: &Settings) -> Result<Option<Self>, String> {
        let Some((predecessor, passed)) = Predecessor::connect(path)? else { return Ok(None) };
        let sockets = Sockets::open(settings, passed)?;
        predecessor.wait_for_release()?;
        Ok(Some(Self { passed: Vec::new(), taken: Some((predecessor, sockets)) }))
    }
}
