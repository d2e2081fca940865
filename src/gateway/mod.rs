//! The data plane: what a request may touch.
//!
//! One [`Gate`] per worker thread; nothing in it crosses threads but what is shared on purpose:
//! the snapshot, the directory, the limits, the ledger.

mod addresses;
mod arrive;
mod body;
mod chunk;
mod connection;
mod corked;
mod exchange;
mod frames;
mod guesses;
mod handle;
mod head;
pub mod limits;
mod listen;
mod meter;
mod outbound;
mod outgoing;
mod permit;
mod pieces;
mod places;
mod priced;
mod record;
mod respond;
mod revoke;
mod serve;
mod socket;
mod stream;
mod target;
mod tunnel;
mod visit;
mod waits;
mod watched;
mod websocket;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::Waker;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listen::{Listening, Public, WorkerSeed, bind, run};
pub use places::Places;

use crate::clock::{Beat, Clock};
use crate::directory::Directory;
use crate::ledger::Spender;
use crate::snapshot::Views;
use crate::telemetry::Lane;
use crate::telemetry::lines::{Batch, Entry};
use crate::types::RequestId;
use crate::upstream::Pool;
use connection::Connection;
use limits::Limits;
use waits::Waits;

/// Everything that a worker's requests share.
#[derive(Debug)]
pub struct Gate {
    views: Views,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    stats: Arc<Lane>,
    /// Lines about requests, where they are wanted.
    log: Option<RefCell<Batch>>,
    /// Told when a line begins to wait.
    log_waits: Notify,
    spender: Spender,
    pool: Pool,
    clock: Clock,
    /// The time of the present turn of a connection's task.
    beat: Beat,
    /// Tunnels and settlements that outlive their connection; the drain waits for them.
    tasks: TaskTracker,
    /// Nothing new is accepted.
    stop: CancellationToken,
    /// The worker ends: nothing that outlives a connection is begun any more.
    closing: Cell<bool>,
    /// Connections finish what they serve and take nothing new.
    stopping: Cell<bool>,
    /// Each connection, and what wakes it to be told something. As many as there are connections.
    connections: RefCell<HashMap<u64, (Waker, Weak<Connection>)>>,
    /// Requests that became tunnels: no connection knows of them any more. As many as there are,
    /// and those that ended lately.
    tunnels: RefCell<Vec<Weak<Waits>>>,
    id_start: u64,
    id_count: Cell<u64>,
    connection_count: Cell<u64>,
}

impl Gate {
    /// The next request's id; `given`: that of a trusted proxy.
    fn next_id(&self, given: Option<&[u8]>) -> RequestId {
        let count = self.id_count.get();
        self.id_count.set(count + 1);
        match given {
            None => RequestId::new(self.id_start, count),
            Some(given) => RequestId::of_proxy(self.id_start, count, given),
        }
    }

    fn next_connection(&self) -> u64 {
        self.connection_count.replace(self.connection_count.get() + 1)
    }

    fn log(&self, entry: &Entry<'_>) {
        if self.log.as_ref().is_some_and(|batch| batch.borrow_mut().add(entry)) {
            self.log_waits.notify_one();
        }
    }

    fn flush_log(&self) {
        if let Some(batch) = &self.log {
            batch.borrow_mut().flush();
        }
    }

    /// Tells every connection to finish.
    fn stop(&self) {
        self.stopping.set(true);
        for (waker, _) in self.connections.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Goes on with something after its client has gone.
    fn outlive(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        if !self.closing.get() {
            self.tasks.spawn_local(work);
        }
    }
}
