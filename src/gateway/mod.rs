//! The data plane: what a request may touch.
//!
//! One [`Gate`] per worker thread; nothing in it crosses threads but what is shared on purpose:
//! the snapshot, the directory, the limits, the ledger.

mod body;
mod connection;
mod exchange;
mod handle;
mod head;
pub mod limits;
mod listen;
mod meter;
mod outgoing;
mod permit;
mod record;
mod respond;
mod target;
mod tunnel;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

pub use listen::{Listening, WorkerSeed, bind, run};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::ledger::Spender;
use crate::snapshot::Reader;
use crate::telemetry::Stats;
use crate::types::RequestId;
use crate::upstream::Pool;
use body::Inbound;
use limits::Limits;

/// Everything that a worker's requests share.
#[derive(Debug)]
pub struct Gate {
    view: Reader,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    stats: Arc<Stats>,
    spender: Spender,
    pool: Pool<Inbound>,
    clock: Clock,
    /// Tunnels and settlements that outlive their connection; the drain waits for them.
    tasks: TaskTracker,
    /// The worker ends: nothing that outlives a connection is begun any more.
    closing: Cell<bool>,
    id_start: u64,
    id_count: Cell<u64>,
}

impl Gate {
    fn next_id(&self) -> RequestId {
        let count = self.id_count.get();
        self.id_count.set(count + 1);
        RequestId::new(self.id_start, count)
    }

    /// Goes on with something after its client has gone.
    fn outlive(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        if !self.closing.get() {
            self.tasks.spawn_local(work);
        }
    }
}
