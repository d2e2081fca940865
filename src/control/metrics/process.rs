//! The usual metrics of a process, from Linux's `/proc`.

use std::fmt::Result;

use procfs::process::{LimitValue, Process};
use procfs::{CurrentSI, WithCurrentSystemInfo};

use super::NO_LABELS;
use super::families::Families;

/// Writes the metrics of this process; none where `/proc` cannot be read.
pub(super) fn encode(families: &mut Families<'_>) -> Result {
    let Ok(process) = Process::myself() else { return Ok(()) };
    let Ok(stat) = process.stat() else { return Ok(()) };
    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    families.counters_f64(
        "process_cpu_seconds",
        "CPU time",
        [(NO_LABELS, seconds(stat.utime + stat.stime))],
    )?;
    families.gauges(
        "process_resident_memory_bytes",
        "Memory in use",
        [(NO_LABELS, whole(stat.rss_bytes().get()))],
    )?;
    families.gauges("process_virtual_memory_bytes", "Address space", [(NO_LABELS, whole(stat.vsize))])?;
    families.gauges("process_threads", "Threads", [(NO_LABELS, stat.num_threads)])?;
    if let Ok(descriptors) = process.fd_count() {
        let open = i64::try_from(descriptors).unwrap_or(i64::MAX);
        families.gauges("process_open_fds", "Open file descriptors", [(NO_LABELS, open)])?;
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        families.gauges("process_max_fds", "Most open file descriptors", [(NO_LABELS, whole(most))])?;
    }
    if let Ok(kernel) = procfs::KernelStats::current() {
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let started = kernel.btime as f64 + seconds(stat.starttime);
        families.gauges_f64(
            "process_start_time_seconds",
            "When the process began",
            [(NO_LABELS, started)],
        )?;
    }
    Ok(())
}
