//! Runs the gateway inside the bench's own program, with its ledger in a file or in memory. The cost of durability is
//! then the only difference.

use std::path::Path;

use tollgate::app::{App, find_ledger};
use tollgate::clock::Clock;
use tollgate::config;
use tollgate::ledger::memory::MemoryStore;

use crate::Result;

/// The argument that starts this gateway instead of the bench: `own memory|file CONFIG`.
pub const ARGUMENT: &str = "own";
pub const MEMORY: &str = "memory";
pub const FILE: &str = "file";

pub fn run(ledger: &str, path: &Path) -> Result<()> {
    let loaded = config::load(path).map_err(|report| report.to_string())?;
    let storage = match ledger {
        MEMORY => MemoryStore::default().storage(),
        _ => find_ledger(&path.to_string_lossy())?.open()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let app = App::start_with(storage, path, loaded, Clock::system(), None).await?;
        app.run().await
    });
    runtime.shutdown_background();
    ended.map_err(|error| format!("{error:?}").into())
}
