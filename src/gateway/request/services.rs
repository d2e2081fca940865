//! The services and counters that the requests of one worker share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::limits::Limits;
use crate::directory::Directory;
use crate::gateway::connection::Connections;
use crate::ledger::Spender;
use crate::telemetry::decisions::DecisionLane;
use crate::telemetry::lines::{Batch, LogEntry};
use crate::telemetry::routes::RouteLanes;
use crate::telemetry::traces::Traces;
use crate::telemetry::usage::UsageLane;
use crate::telemetry::{Lane, WorkerTelemetry};
use crate::types::{Moment, RequestId, RequestIdStart};

/// The services and counters that the requests of one worker share.
#[derive(Debug)]
pub(in crate::gateway) struct Services {
    pub(in crate::gateway) connections: Rc<Connections>,
    pub(super) directory: Arc<Directory>,
    pub(super) limits: Arc<Limits>,
    pub(super) stats: Arc<Lane>,
    pub(super) spender: Spender,
    /// Usage of accounts, keys and routes.
    pub(in crate::gateway) usage: UsageLane,
    /// Counters of routes.
    pub(super) routes: RouteLanes,
    /// Keeps what was decided.
    pub(in crate::gateway) decisions: DecisionLane,
    /// Takes the spans of traced requests.
    pub(super) traces: Arc<Traces>,
    /// Draws trace ids and which requests are traced.
    random: RefCell<fastrand::Rng>,
    /// The access log, if requests are logged.
    log: Option<RefCell<Batch>>,
    /// Notified when a log line is added and none waited to be written before.
    pub(in crate::gateway) log_pending: Notify,
    /// Counts the callbacks that are being answered.
    pub(super) callbacks: Rc<()>,
    /// Counts the requests whose bodies are read before they are paid for.
    pub(super) reading: Rc<()>,
    /// Bytes of responses to requests with an idempotency key that are kept while they are not complete.
    pub(super) kept_bytes: Cell<usize>,
    id_start: RequestIdStart,
    id_count: Cell<u64>,
}

impl Services {
    pub(in crate::gateway) fn new(
        connections: Rc<Connections>,
        directory: Arc<Directory>,
        limits: Arc<Limits>,
        telemetry: WorkerTelemetry,
        spender: Spender,
        id_start: RequestIdStart,
    ) -> Self {
        let WorkerTelemetry { stats, lines, routes, decisions, traces, usage } = telemetry;
        Self {
            connections,
            directory,
            limits,
            stats,
            spender,
            usage: UsageLane::new(usage),
            routes: RouteLanes::new(routes),
            decisions: DecisionLane::new(decisions),
            traces,
            random: RefCell::new(fastrand::Rng::new()),
            log: lines.map(|lines| RefCell::new(Batch::new(lines))),
            log_pending: Notify::new(),
            callbacks: Rc::new(()),
            reading: Rc::new(()),
            kept_bytes: Cell::new(0),
            id_start,
            id_count: Cell::new(0),
        }
    }

    /// The time of the current poll.
    pub(super) fn now(&self) -> Moment {
        self.connections.time.now()
    }

    /// The next request's id. `given`: the id that a trusted proxy gave the request.
    pub(super) fn next_id(&self, given: Option<&[u8]>) -> RequestId {
        let count = self.id_count.get();
        self.id_count.set(count + 1);
        RequestId::new(self.id_start, count, given)
    }

    /// A random number, for nothing secret.
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    pub(super) fn log(&self, entry: &LogEntry<'_>) {
        if self.log.as_ref().is_some_and(|batch| batch.borrow_mut().add(entry)) {
            self.log_pending.notify_one();
        }
    }

    pub(in crate::gateway) fn flush_log(&self) {
        if let Some(batch) = &self.log {
            batch.borrow_mut().flush();
        }
    }
}
