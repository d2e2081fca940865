//! Writes logs, and counts requests, connections, charges and usage.

pub mod lines;
pub mod logs;
pub mod routes;
mod stats;
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
    /// Takes what requests used.
    pub usage: Arc<usage::Usage>,
}
