//! Logs to standard output from a separate thread, so that no worker waits for the output.

use std::sync::Arc;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::lines::{Dropped, Lines, TARGET};

/// Most lines that wait to be written; further lines are dropped and counted.
const MAX_WAITING: usize = 16_384;
/// The environment variable with a log filter, such as `debug` or `tollgate::upstream=debug`.
const LEVEL: &str = "TOLLGATE_LOG";

/// Keeps the writing thread alive. Dropping it writes the lines that still wait.
#[derive(Debug)]
pub struct Logs {
    lines: Lines,
    _guard: WorkerGuard,
}

impl Logs {
    /// Starts logging for this process, as JSON lines or as text.
    ///
    /// # Errors
    /// If the process logs already.
    pub fn start(json: bool) -> Result<Self, String> {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_WAITING)
            .thread_name("tollgate-logs")
            .finish(std::io::stdout());
        let dropped = Dropped { writes: writer.error_counter(), more: Arc::default() };
        let lines = Lines { writer: writer.clone(), json, dropped };
        // Log events of crates that parse clients' data contain that data, so they stay disabled whatever the filter.
        let asked: Targets = std::env::var(LEVEL).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        let default = Targets::new().with_target("tollgate", LevelFilter::INFO);
        let filter = default
            .with_targets(asked.iter().filter(|(target, _)| target.starts_with("tollgate")))
            .with_default(LevelFilter::WARN)
            .with_targets(["hyper", "hyper_util", "h2", "rustls"].map(|target| (target, LevelFilter::OFF)));
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        let registry = tracing_subscriber::registry().with(filter);
        let started = if json {
            registry
                .with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false))
                .try_init()
        } else {
            registry.with(layer).try_init()
        };
        started.map_err(|error| error.to_string())?;
        Ok(Self { lines, _guard: guard })
    }

    /// The counter of lines that were dropped because the reader of the log was too slow.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.lines.dropped.clone()
    }

    /// A worker's handle to the log writer; `None` if the access log is off.
    #[must_use]
    pub fn lines(&self) -> Option<Lines> {
        tracing::enabled!(target: TARGET, Level::INFO).then(|| self.lines.clone())
    }
}
