//! Writes metrics in Prometheus's text format and as OpenMetrics. All names and labels are in this file. No label is a
//! key, an account or a path.

mod families;
mod fleet;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::Control;
use super::operations::{Caller, OperationError, Permission, Result};
use crate::policy::outcome::{Outcome, ShadowRule};
use crate::servers::ServerState;
use crate::telemetry::routes::CLASSES;
use crate::types::{HistogramCounts, LONG, SHORT};
use families::Families;

/// The format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus's text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The `Content-Type` of the format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Control {
    /// Writes all metrics.
    ///
    /// # Errors
    /// If the caller may not read them, or the ledger cannot be read.
    pub async fn metrics(self: &Arc<Self>, caller: &Caller, format: MetricsFormat) -> Result<String> {
        caller.may(Permission::ReadAll)?;
        let (_, in_doubt) = self.read(|reader| Ok(reader.open_doubts()?)).await?;
        let control = Arc::clone(self);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { control, in_doubt: in_doubt.millionths() }));
        let mut out = String::new();
        let written = match format {
            MetricsFormat::Prometheus => prometheus_text::encode(&mut out, &registry),
            MetricsFormat::OpenMetrics => text::encode(&mut out, &registry),
        };
        written.map_err(|error| OperationError::Unavailable(error.to_string()))?;
        Ok(out)
    }
}

/// The values of one scrape.
struct Scrape {
    control: Arc<Control>,
    in_doubt: i64,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.requests(&mut families)?;
        self.credits(&mut families)?;
        self.shadows(&mut families)?;
        self.upstreams(&mut families)?;
        self.ledger(&mut families)?;
        self.fleet(&mut families)?;
        self.configuration(&mut families)?;
        self.sent(&mut families)?;
        self.workers(&mut families)?;
        process::encode(&mut families)
    }
}

/// The labels of a metric without labels.
const NO_LABELS: [(&str, &str); 0] = [];
const MILLION: f64 = 1_000_000.0;

/// Credits as a number of a metric, which is a float by its format. Nothing is computed from it.
fn shown(millionths: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
    let millionths = millionths as f64;
    millionths / MILLION
}

impl Scrape {
    fn requests(&self, families: &mut Families<'_>) -> fmt::Result {
        let lanes = self.control.stats.routes.lanes();
        let mut requests: BTreeMap<(&str, &str, &str, &str), u64> = BTreeMap::new();
        let (mut durations, mut overhead) = (BTreeMap::new(), HistogramCounts::none(SHORT));
        for lane in &lanes {
            lane.each_request(|method, class, outcome, count| {
                *requests.entry((&lane.route, method, class, outcome.code())).or_default() += count;
            });
            let sums = durations.entry(&*lane.route).or_insert_with(|| HistogramCounts::none(LONG));
            sums.merge(&lane.durations.counts());
            overhead.merge(&lane.overhead.counts());
        }
        let rows = requests.into_iter().map(|((route, method, class, outcome), count)| {
            let labels = [("route", route), ("method", method), ("code_class", class), ("outcome", outcome)];
            (labels, count)
        });
        families.counters("tollgate_requests", "Finished requests", rows)?;
        let rows = durations.into_iter().map(|(route, counts)| ([("route", route)], counts));
        let help = "Time from a request's head to the end of its response";
        families.histograms("tollgate_request_duration_seconds", help, rows, families::NANOS)?;
        let help = "Time that the gateway added to the upstream's, to the response's head";
        families.histograms("tollgate_overhead_seconds", help, [(NO_LABELS, overhead)], families::NANOS)?;
        let (connections, holds) = self.control.stats.gauges();
        let help = "Open connections of clients";
        families.gauges("tollgate_connections", help, [([("state", "open")], connections)])?;
        families.gauges("tollgate_holds", "Requests in flight that hold credits", [(NO_LABELS, holds)])
    }

    fn credits(&self, families: &mut Families<'_>) -> fmt::Result {
        let lanes = self.control.stats.routes.lanes();
        let (mut charged, mut refused, mut capped) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for lane in lanes.iter().filter(|lane| !lane.route.is_empty()) {
            let sums =
                [(&mut charged, &lane.charged), (&mut refused, &lane.refused), (&mut capped, &lane.capped)];
            for (sums, counter) in sums {
                *sums.entry(&*lane.route).or_insert(0_u64) += counter.load(Ordering::Relaxed);
            }
        }
        let millionths = |sum: u64| shown(i64::try_from(sum).unwrap_or(i64::MAX));
        let credits = |sums: BTreeMap<_, u64>| {
            sums.into_iter().map(move |(route, sum)| ([("route", route)], millionths(sum)))
        };
        families.counters_f64("tollgate_credits_charged", "Credits charged", credits(charged))?;
        let help = "Credits that requests would have held that were refused because there were too few";
        families.counters_f64("tollgate_credits_refused", help, credits(refused))?;
        let rows = capped.into_iter().map(|(route, count)| ([("route", route)], count));
        let help = "Charges whose price was above the hold, or could not be read: the hold was charged";
        families.counters("tollgate_charge_capped", help, rows)?;
        let help = "Credits of holds that a crash left in doubt and that were not given back";
        families.gauges_f64("tollgate_in_doubt_credits", help, [(NO_LABELS, shown(self.in_doubt))])
    }

    /// What shadow rules would have refused and charged.
    fn shadows(&self, families: &mut Families<'_>) -> fmt::Result {
        let lanes = self.control.stats.routes.lanes();
        let (mut refused, mut charged) = (BTreeMap::new(), BTreeMap::new());
        for lane in lanes.iter().filter(|lane| !lane.route.is_empty()) {
            for rule in ShadowRule::ALL {
                let count = lane.shadow[rule as usize].load(Ordering::Relaxed);
                if count > 0 {
                    *refused.entry((&*lane.route, rule.name())).or_insert(0) += count;
                }
            }
            let credits = lane.shadow_charged.load(Ordering::Relaxed);
            if credits > 0 {
                *charged.entry(&*lane.route).or_insert(0) += credits;
            }
        }
        let rows =
            refused.into_iter().map(|((route, rule), count)| ([("route", route), ("rule", rule)], count));
        families.counters(
            "tollgate_shadow_refusals",
            "Requests that a shadow rule would have refused",
            rows,
        )?;
        let credits = |sum: u64| shown(i64::try_from(sum).unwrap_or(i64::MAX));
        let rows = charged.into_iter().map(|(route, sum)| ([("route", route)], credits(sum)));
        families.counters_f64(
            "tollgate_shadow_credits",
            "Credits that shadow prices would have charged",
            rows,
        )
    }

    fn upstreams(&self, families: &mut Families<'_>) -> fmt::Result {
        let lanes = self.control.stats.routes.lanes();
        let mut responses: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for lane in &lanes {
            for (class, count) in
                CLASSES.iter().zip(lane.upstream_responses()).filter(|(_, count)| *count > 0)
            {
                *responses.entry((&lane.upstream, class)).or_default() += count;
            }
        }
        let rows = responses
            .into_iter()
            .map(|((upstream, class), count)| ([("upstream", upstream), ("code_class", class)], count));
        families.counters("tollgate_upstream_requests", "Responses of upstreams", rows)?;
        let view = self.control.snapshot();
        let name = |at: usize| view.upstreams[at].name.as_str();
        let connects = (0..view.upstreams.len())
            .map(|at| ([("upstream", name(at))], view.upstreams[at].servers.connects.counts()));
        let help = "Time to connect to a server of an upstream, TLS included";
        families.histograms("tollgate_upstream_connect_seconds", help, connects, families::NANOS)?;
        let (now, mut up, mut waiting) = (self.control.clock.now(), Vec::new(), Vec::new());
        for (at, upstream) in view.upstreams.iter().enumerate() {
            let servers = upstream.servers.servers();
            let usable =
                servers.iter().filter(|(server, _)| matches!(server.state(now), ServerState::Up(_))).count();
            let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            up.push(([("upstream", name(at)), ("state", "up")], count(usable)));
            up.push(([("upstream", name(at)), ("state", "down")], count(servers.len() - usable)));
            waiting.push(([("upstream", name(at))], count(upstream.servers.queue().len())));
        }
        families.gauges("tollgate_upstream_servers", "Servers of an upstream", up)?;
        families.gauges("tollgate_upstream_waiting", "Requests that wait for a server", waiting)
    }

    fn ledger(&self, families: &mut Families<'_>) -> fmt::Result {
        let (bookkeeper, counters) = (&self.control.bookkeeper, self.control.bookkeeper.counters());
        let help = "Time to write a batch of records to disk";
        let times = [(NO_LABELS, counters.commit_times.counts())];
        families.histograms("tollgate_ledger_commit_seconds", help, times, families::NANOS)?;
        let sizes = [(NO_LABELS, counters.batch_sizes.counts())];
        families.histograms("tollgate_ledger_batch_size", "Records of a batch", sizes, families::ONES)?;
        let waiting = i64::try_from(bookkeeper.waiting_records()).unwrap_or(i64::MAX);
        families.gauges(
            "tollgate_ledger_queue_depth",
            "Records that wait to be written",
            [(NO_LABELS, waiting)],
        )?;
        let failures = counters.failures.load(Ordering::Relaxed);
        families.counters(
            "tollgate_ledger_commit_failures",
            "Batches that could not be written",
            [(NO_LABELS, failures)],
        )?;
        let healthy = i64::from(bookkeeper.is_healthy());
        families.gauges("tollgate_ledger_healthy", "1 if the ledger can be written", [(NO_LABELS, healthy)])
    }

    fn configuration(&self, families: &mut Families<'_>) -> fmt::Result {
        let in_force = self.control.in_force.load();
        let is_refused = self.control.last_reload_error.lock().is_some();
        let help = "1 if the last reload was accepted";
        let accepted = [(NO_LABELS, i64::from(!is_refused))];
        families.gauges("tollgate_config_last_reload_successful", help, accepted)?;
        let help = "When a configuration was last accepted";
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let at = in_force.published.0 as f64 / 1000.0;
        families.gauges_f64(
            "tollgate_config_last_reload_success_timestamp_seconds",
            help,
            [(NO_LABELS, at)],
        )?;
        let hash = in_force.hash.to_hex();
        families.gauges(
            "tollgate_config_info",
            "The configuration in force",
            [([("hash", &hash[..16])], 1)],
        )?;
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        families.gauges("tollgate_build_info", "The version of the program", version)?;
        let help = "Log lines that were dropped because the log was read too slowly";
        let dropped = self.control.stats.dropped_lines();
        families.counters("tollgate_log_lines_dropped", help, [(NO_LABELS, dropped)])
    }

    /// What the gateway sends by itself: webhooks and traces.
    fn sent(&self, families: &mut Families<'_>) -> fmt::Result {
        let deliveries = self.control.deliveries.rows().map(|(result, count)| ([("result", result)], count));
        families.counters("tollgate_webhook_deliveries", "Attempts to deliver a webhook", deliveries)?;
        let traces = &self.control.stats.traces;
        let traces = [("exported", &traces.exported), ("dropped", &traces.dropped)];
        let traces = traces.map(|(result, count)| ([("result", result)], count.load(Ordering::Relaxed)));
        families.counters("tollgate_traces", "Traced requests whose spans were sent to the collector", traces)
    }

    fn workers(&self, families: &mut Families<'_>) -> fmt::Result {
        let (mut busy, mut tasks) = (Vec::new(), Vec::new());
        for (number, runtime) in self.control.stats.runtimes().into_iter().enumerate() {
            let (worker, metrics) = (number.to_string(), runtime.metrics());
            let alive = i64::try_from(metrics.num_alive_tasks()).unwrap_or(i64::MAX);
            busy.push(([("worker", worker.clone())], metrics.worker_total_busy_duration(0).as_secs_f64()));
            tasks.push(([("worker", worker)], alive));
        }
        families.counters_f64("tollgate_worker_busy_seconds", "Time that a worker was not idle", busy)?;
        families.gauges("tollgate_worker_tasks", "Tasks of a worker", tasks)
    }
}

/// All outcomes of requests, as they are labels: for tests of dashboards and alerts.
#[must_use]
pub fn outcomes() -> Vec<&'static str> {
    Outcome::all().map(Outcome::code).collect()
}
