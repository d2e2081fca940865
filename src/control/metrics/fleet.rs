//! Metrics of a gateway of a fleet. One that is alone has none.

use std::fmt;
use std::sync::atomic::Ordering;

use super::families::{self, Families};
use super::{NO_LABELS, Scrape};

impl Scrape {
    pub(super) fn fleet(&self, families: &mut Families<'_>) -> fmt::Result {
        let bookkeeper = &self.control.bookkeeper;
        if !bookkeeper.is_of_fleet() {
            return Ok(());
        }
        let counters = bookkeeper.counters();
        let nodes = i64::try_from(counters.nodes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        families.gauges("tollgate_fleet_nodes", "Gateways of the fleet that live", [(NO_LABELS, nodes)])?;
        let leads = i64::from(bookkeeper.leads());
        let help = "1 if this gateway does what one of the fleet does at a time";
        families.gauges("tollgate_fleet_leads", help, [(NO_LABELS, leads)])?;
        let lag = self.control.clock.wall().0.saturating_sub(counters.beaten.load(Ordering::Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let lag = lag.max(0) as f64 / 1000.0;
        let help = "Time since this gateway last reached the database";
        families.gauges_f64("tollgate_fleet_lag_seconds", help, [(NO_LABELS, lag)])?;
        let times = [(NO_LABELS, counters.lease_times.counts())];
        families.histograms("tollgate_lease_seconds", "Time to lease credits", times, families::NANOS)?;
        let failures = counters.lease_failures.load(Ordering::Relaxed);
        let help = "Times that the database did not answer about leases";
        families.counters("tollgate_lease_failures", help, [(NO_LABELS, failures)])?;
        self.limit_store(families)
    }

    /// How limits are counted together with other gateways.
    fn limit_store(&self, families: &mut Families<'_>) -> fmt::Result {
        let Some(store) = self.control.limit_store.get() else { return Ok(()) };
        let answers = i64::from(store.answers());
        let help = "1 if the store of limits answers";
        families.gauges("tollgate_limit_store_answers", help, [(NO_LABELS, answers)])?;
        let times = [(NO_LABELS, store.counters.times.counts())];
        let help = "Time that the store of limits took to answer";
        families.histograms("tollgate_limit_store_seconds", help, times, families::NANOS)?;
        let failures = store.counters.failures.load(Ordering::Relaxed);
        let help = "Messages that the store of limits did not answer";
        families.counters("tollgate_limit_store_failures", help, [(NO_LABELS, failures)])?;
        let shares = i64::try_from(store.counters.shares.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let help = "Limits, of one key, account or address each, of which this gateway has a share";
        families.gauges("tollgate_limit_shares", help, [(NO_LABELS, shares)])
    }
}
