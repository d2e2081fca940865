//! Receives the signals that stop, reload and upgrade a gateway.

use std::io;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// The signals of a gateway.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) stop: StopSignals,
    /// SIGHUP.
    pub(super) hangup: Signal,
    /// SIGUSR2.
    pub(super) upgrade: Signal,
    /// The program's file when the gateway started, which an upgrade replaces.
    pub(super) program: io::Result<PathBuf>,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the operating system refuses a handler.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            program: std::env::current_exe(),
        })
    }
}

impl StopSignals {
    /// Waits for the next of them after this many.
    pub(super) async fn next_but(&mut self, ignored: usize) {
        for _ in 0..ignored {
            self.next().await;
        }
        self.next().await;
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
