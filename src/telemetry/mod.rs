//! Writes logs, counts requests, connections, charges and usage, and passes on traces.

pub mod decisions;
pub mod lines;
pub mod logs;
pub mod routes;
mod stats;
pub mod traces;
pub mod usage;

use std::sync::Arc;

pub use stats::{Lane, Stats};

/// What a worker reports to.
#[derive(Clone, Debug)]
pub struct WorkerTelemetry {
    /// The worker's counters.
    pub stats: Arc<Lane>,
    /// The access log, if requests are logged.
    pub lines: Option<lines::Lines>,
    /// The counters of routes.
    pub routes: Arc<routes::RouteMetrics>,
    /// Keeps what was decided.
    pub decisions: Arc<decisions::Decisions>,
    /// Takes the spans of traced requests.
    pub traces: Arc<traces::Traces>,
    /// Takes what requests used.
    pub usage: Arc<usage::Usage>,
}
