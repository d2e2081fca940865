//! Counts the connections of one worker to all its upstreams.

use std::cell::Cell;
use std::rc::Rc;

/// Most connections of one worker to all its upstreams; beyond it, requests are refused as `overloaded`.
pub const MAX_CONNECTIONS: usize = 16_384;

/// The number of connections that are open or being opened.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionCount(Rc<Cell<usize>>);

impl ConnectionCount {
    /// Counts one more connection; `None` if [`MAX_CONNECTIONS`] are open.
    pub(super) fn add(&self) -> Option<CountedConnection> {
        if self.0.get() >= MAX_CONNECTIONS {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(CountedConnection(self.clone()))
    }
}

/// Counts one connection, from the start of connecting until it is closed.
#[derive(Debug)]
pub(super) struct CountedConnection(ConnectionCount);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let ConnectionCount(count) = &self.0;
        count.set(count.get() - 1);
    }
}
