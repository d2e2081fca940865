//! Starts threads whose asynchronous tasks stay on them.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Starts a thread with a runtime of its own, which `configure` may adjust.
///
/// # Errors
/// If the thread or its runtime cannot be started.
pub fn start(
    name: String,
    configure: impl FnOnce(&mut Builder) + Send + 'static,
    run: impl FnOnce(LocalRuntime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (started, starts) = std::sync::mpsc::sync_channel(1);
    // A local runtime cannot be moved to another thread, so it is built on its own.
    let body = move || {
        let mut builder = Builder::new_current_thread();
        configure(&mut builder);
        match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let _ = started.send(Ok(())); // the receiver is waiting
                run(runtime);
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(body)?;
    starts.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
    Ok(thread)
}
