//! Implements `serve`: runs the gateway.

use std::path::Path;

use clap::Args;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::disable_transparent_huge_pages;

use super::failed::{Failed, Result};
use crate::app::{App, Inherited};
use crate::clock::Clock;
use crate::config;
use crate::telemetry::logs::Logs;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Take over from the gateway that runs with this configuration: its sockets, and its ledger. It finishes its
    /// requests in flight and ends. If none runs, start as usual.
    #[arg(long)]
    upgrade: bool,
}

pub(super) fn run(path: &Path, arguments: &Arguments) -> Result {
    // Memory contains clients' data, so no core file is written.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let loaded = config::load(path).map_err(|report| Failed(report.to_string()))?;
    let logs = Logs::start(loaded.snapshot.settings.log.json).map_err(Failed)?;
    let dropped = logs.dropped();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = if arguments.upgrade {
        Inherited::take_over(path, &loaded.snapshot.settings).map_err(Failed)?
    } else {
        None
    };
    let inherited = taken.unwrap_or_else(Inherited::from_service_manager);
    let result = runtime.block_on(async {
        let app = App::start_inheriting(inherited, path, loaded, Clock::system(), logs.lines()).await?;
        // The key tables have been allocated in huge pages by now. Memory for connections uses small pages, so that of
        // h2's 16 KiB buffers only the used part is resident: an idle HTTP/2 connection over TLS takes 30 KB instead of
        // 45 KB. The setting applies to the whole process. A failure is ignored, since it only costs memory.
        let _ = disable_transparent_huge_pages(true);
        for public in &app.public {
            tracing::info!(address = %public.address, tls = public.is_tls, "serving clients");
        }
        tracing::info!(address = %app.admin, "serving operators");
        if let Some(address) = app.dashboard {
            tracing::info!(%address, "serving the dashboard");
        }
        if let Some(token) = app.control().first_token().await? {
            // Not a log line: logs are collected and kept.
            eprintln!("admin token: {} (shown only now; Tollgate keeps its SHA-256)", token.reveal());
        }
        app.run().await
    });
    // Ledger reads that are still running belong to commands whose clients have disconnected.
    runtime.shutdown_background();
    drop(logs);
    if dropped.lines() > 0 {
        eprintln!("warning: {} log lines were dropped because output was read too slowly", dropped.lines());
    }
    result.map_err(|error| Failed(error.message()))
}
