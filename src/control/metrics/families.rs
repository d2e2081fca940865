//! Writes families of metrics: a name with its help, and a value for each set of labels.

use std::fmt::Result;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::types::HistogramCounts;

/// The unit of a histogram's values: billionths of a second.
pub(super) const NANOS: f64 = 1e-9;
/// The unit of a histogram's values: ones.
pub(super) const ONES: f64 = 1.0;

/// Writes families of metrics.
pub(super) struct Families<'e>(pub(super) DescriptorEncoder<'e>);

impl Families<'_> {
    /// Writes counters. The format adds `_total` to their name.
    pub(super) fn counters<const N: usize, L: EncodeLabel>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], u64)>,
    ) -> Result {
        self.counter_values(name, help, rows)
    }

    /// Writes counters whose values are not whole.
    pub(super) fn counters_f64<const N: usize, L: EncodeLabel>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], f64)>,
    ) -> Result {
        self.counter_values(name, help, rows)
    }

    fn counter_values<const N: usize, L: EncodeLabel, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], V)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, V, f64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes gauges.
    pub(super) fn gauges<const N: usize, L: EncodeLabel>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], i64)>,
    ) -> Result {
        self.gauge_values(name, help, rows)
    }

    /// Writes gauges whose values are not whole.
    pub(super) fn gauges_f64<const N: usize, L: EncodeLabel>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], f64)>,
    ) -> Result {
        self.gauge_values(name, help, rows)
    }

    fn gauge_values<const N: usize, L: EncodeLabel, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], V)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Writes histograms. `unit`: what a value of 1 is in the family's unit.
    pub(super) fn histograms<const N: usize, L: EncodeLabel>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([L; N], HistogramCounts)>,
        unit: f64,
    ) -> Result {
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let float = |value: u64| value as f64 * unit;
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, counts) in rows {
            let bounds = counts.bounds.iter().map(|&bound| float(bound)).chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.counts.iter().copied()).collect();
            let count = counts.counts.iter().sum();
            let sum = float(counts.sum);
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
