//! What a gateway takes over when it starts: listening sockets, and the ledger of the process before it.

use std::path::Path;

use super::handover::Predecessor;
use super::service;
use crate::gateway::PassedSocket;

/// What a gateway takes over when it starts.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) sockets: Vec<PassedSocket>,
    pub(super) predecessor: Option<Predecessor>,
}

impl Inherited {
    /// The sockets that the service manager opened.
    #[must_use]
    pub fn from_service_manager() -> Self {
        let passed = service::sockets().into_iter();
        let sockets = passed.map(|socket| PassedSocket { socket, label: None }).collect();
        Self { sockets, predecessor: None }
    }

    /// Takes over from the gateway that runs with this configuration file: its sockets, and its ledger. `None` if none
    /// runs. The caller must have checked everything that can be checked before: from now on clients wait.
    ///
    /// # Errors
    /// If the gateway refuses, or does not respond.
    pub fn take_over(path: &Path) -> Result<Option<Self>, String> {
        let Some((predecessor, sockets)) = Predecessor::take_over(path)? else { return Ok(None) };
        Ok(Some(Self { sockets, predecessor: Some(predecessor) }))
    }
}
