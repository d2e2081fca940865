//! `serve`: runs the gateway.

use std::path::Path;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::disable_transparent_huge_pages;

use super::failed::{Failed, Result};
use crate::app::App;
use crate::clock::Clock;
use crate::config;
use crate::telemetry::logs::Logs;

pub(super) fn run(path: &Path) -> Result {
    // Memory contains what clients sent, so no core file is written.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let loaded = config::load(path).map_err(|report| Failed(report.to_string()))?;
    let logs = Logs::start(loaded.snapshot.settings.log.json).map_err(Failed)?;
    let dropped = logs.dropped();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let app = App::start(path, loaded, Clock::system(), logs.lines()).await?;
        // The tables of keys stand in huge pages by now. What connections get has small ones, so that of
        // h2's buffers, 16 KiB each, only what was used is resident: 30 KB instead of 45 for an idle
        // connection with HTTP/2 over TLS. It concerns the whole process, and is an aid, not a need.
        let _ = disable_transparent_huge_pages(true);
        for public in &app.public {
            tracing::info!(address = %public.address, tls = public.is_tls, "serving clients");
        }
        tracing::info!(address = %app.admin, "serving operators");
        app.run().await
    });
    // Reads that are still running belong to commands whose clients have disconnected.
    runtime.shutdown_background();
    drop(logs);
    if dropped.lines() > 0 {
        eprintln!("warning: {} log lines were dropped because they were read too slowly", dropped.lines());
    }
    result.map_err(|error| Failed(error.told()))
}
