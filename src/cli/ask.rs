//! Sends a command to the running gateway, or executes it in this process if no gateway is running.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::failed::{Failed, Result};
use super::output::Output;
use crate::app::{ControlPlane, StartError};
use crate::clock::Clock;
use crate::config;
use crate::control::command::Command;
use crate::control::operations::Caller;
use crate::control::{MAX_ROWS, socket};

/// The gateway or ledger to send a command to, and the output format.
pub(super) struct Asker {
    pub(super) config: PathBuf,
    pub(super) output: Output,
}

fn failed((message, _): (String, Value)) -> Failed {
    Failed(format!("error: {message}"))
}

impl Asker {
    /// Executes a command, and passes each row of its result to `row` as it arrives.
    pub(super) fn each(&self, command: &Command, row: impl FnMut(Value)) -> Result<Value> {
        match self.connect()? {
            Some(stream) => socket::ask(stream, command, row).map_err(failed),
            None => self.offline(command, row),
        }
    }

    /// Executes a command whose result is one record.
    pub(super) fn one(&self, command: &Command) -> Result<Value> {
        self.each(command, |_| {})
    }

    /// Executes a command, and prints the rows of its result as they arrive.
    pub(super) fn table(&self, command: &Command, columns: &'static [&'static str]) -> Result {
        let mut table = self.output.rows(columns);
        let mut printed = Ok(());
        self.each(command, |row| {
            if printed.is_ok() {
                printed = table.add(&row);
            }
        })?;
        printed.and_then(|()| table.finish())
    }

    /// Executes a command that only a running gateway can execute.
    ///
    /// # Errors
    /// If no gateway is running with this configuration, or the command failed.
    pub(super) fn online(&self, command: &Command) -> Result<Value> {
        let Some(stream) = self.connect()? else {
            return Err(Failed(format!("error: no gateway serves {}", self.config.display())));
        };
        socket::ask(stream, command, |_| {}).map_err(failed)
    }

    /// Starts to send several commands. Without a running gateway, the ledger stays open between them.
    pub(super) fn session(&self) -> Result<Session<'_>> {
        let ledger = match self.connect()? {
            Some(_) => None,
            None => Some(OpenLedger::open(&self.config, false)?),
        };
        Ok(Session { asker: self, ledger })
    }

    fn connect(&self) -> Result<Option<UnixStream>> {
        socket::connect(&self.config).map_err(|message| Failed(format!("error: {message}")))
    }

    fn offline(&self, command: &Command, row: impl FnMut(Value)) -> Result<Value> {
        let ledger = OpenLedger::open(&self.config, command.only_reads())?;
        let result = ledger.execute(command, row);
        ledger.plane.close()?;
        result
    }
}

/// A ledger that this process has opened, since no gateway is running.
struct OpenLedger {
    runtime: Runtime,
    plane: ControlPlane,
}

impl OpenLedger {
    fn open(path: &Path, reads: bool) -> Result<Self> {
        let loaded = config::load(path).map_err(|report| Failed(report.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let plane = runtime.block_on(ControlPlane::open(path, loaded, reads, &Clock::system()))?;
        Ok(Self { runtime, plane })
    }

    fn execute(&self, command: &Command, mut row: impl FnMut(Value)) -> Result<Value> {
        self.runtime.block_on(async {
            let (sender, mut rows) = mpsc::channel(MAX_ROWS);
            let (control, command) = (std::sync::Arc::clone(&self.plane.control), command.clone());
            let work =
                tokio::spawn(async move { control.execute(&Caller::command(), command, sender).await });
            while let Some(value) = rows.recv().await {
                row(value);
            }
            work.await?.map_err(|failure| Failed(format!("error: {failure}")))
        })
    }
}

/// Several commands to one gateway or ledger.
pub(super) struct Session<'a> {
    asker: &'a Asker,
    /// `None` if a gateway is running.
    ledger: Option<OpenLedger>,
}

impl Session<'_> {
    /// Executes a command whose result is one record.
    pub(super) fn one(&self, command: &Command) -> Result<Value> {
        match &self.ledger {
            Some(ledger) => ledger.execute(command, |_| {}),
            None => self.asker.online(command),
        }
    }

    /// Ends the session: writes what is pending.
    pub(super) fn close(self) -> Result {
        self.ledger.map_or(Ok(()), |ledger| Ok(ledger.plane.close()?))
    }
}

impl StartError {
    /// The message for standard error.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Config(report) => report.to_string(),
            Self::Other(message) => format!("error: {message}"),
        }
    }
}

/// Implements `reload`: reports the problems of a configuration in the form that `check` reports them.
pub(super) fn reload(asker: &Asker) -> Result {
    let Some(stream) = asker.connect()? else {
        return Err(Failed(format!("error: no gateway serves {}", asker.config.display())));
    };
    match socket::ask(stream, &Command::Reload, |_| {}) {
        Ok(done) => asker.output.record(&done),
        Err((message, problems)) if asker.output == Output::Json => {
            super::output::json(
                &serde_json::json!({ "reloaded": false, "message": message, "problems": problems }),
            )?;
            Err(Failed(String::new()))
        }
        Err((message, problems)) => {
            let of_file = problems.as_array().is_some_and(|list| !list.is_empty());
            Err(Failed(if of_file { message } else { format!("error: {message}") }))
        }
    }
}
