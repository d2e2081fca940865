//! Upgraded connections: bytes both ways until one side is done.

use std::rc::Rc;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Gate;
use super::connection::Connection;
use super::limits::Pass;
use super::record::Record;

/// Both ends of a tunnel, and what it keeps occupied until its end.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    pub(super) pass: Pass,
    pub(super) record: Rc<Record>,
    /// Keeps its place among the connections.
    pub(super) connection: Arc<Connection>,
}

impl Tunnel {
    /// Carries bytes once both sides have switched; the drain waits for it.
    pub(super) fn dig(self, gate: &Rc<Gate>) {
        gate.outlive(async move {
            let Self { client, upstream, pass, record, connection } = self;
            let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else { return };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await; // either end may break off
            drop((pass, record, connection));
        });
    }
}
