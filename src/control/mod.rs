//! Implements the control plane: publishes configurations, creates keys and accounts, books credits.
//!
//! Commands arrive through the control socket of a running gateway, or directly if no gateway is running. Both call
//! [`Control::execute`].

mod accounts;
mod books;
pub mod command;
mod explain;
pub mod health;
mod keys;
mod publish;
mod reload;
pub mod socket;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::clock::Clock;
use crate::config::{self, LoadedConfig, ProblemJson, Report, Watched};
use crate::directory::Directory;
use crate::ledger::Bookkeeper;
use crate::ledger::store::LedgerError;
use crate::snapshot::{Publisher, Snapshot, SnapshotReader};
use crate::telemetry::Stats;
use crate::types::{KeyHash, KeyId, NameId};
use command::Command;
pub use reload::Refused;

/// Most rows of a result that wait to be sent. When the queue is full, reading the ledger waits.
pub const MAX_ROWS: usize = 1024;

/// The channel that the rows of a long result are sent to.
pub type Rows = mpsc::Sender<Value>;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A message for the operator.
    #[error("{0}")]
    Message(String),
    /// The configuration was refused: the report with its problems.
    #[error("{0}")]
    Config(Box<Report>),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Message(error.to_string())
    }
}

impl Failure {
    /// The problems of the configuration if it was refused, otherwise none.
    #[must_use]
    pub fn problems(&self) -> Vec<ProblemJson> {
        match self {
            Self::Config(report) => report.to_json(),
            Self::Message(_) => Vec::new(),
        }
    }
}

fn refused<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Message(message.into()))
}

/// The control plane of a process.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    directory: Arc<Directory>,
    bookkeeper: Bookkeeper,
    publisher: Publisher,
    view: SnapshotReader,
    clock: Clock,
    stats: Arc<Stats>,
    /// State of the current configuration. Locked while a configuration, key or account is changed.
    state: Mutex<InForce>,
}

/// State of the current configuration that the control plane keeps, besides the snapshot.
#[derive(Debug)]
struct InForce {
    hash: KeyHash,
    watched: Watched,
    keys: FileKeys,
    /// Warnings about the current configuration.
    warnings: Vec<String>,
    last_error: Option<String>,
}

/// The keys of the configuration file, by their ids.
type FileKeys = HashMap<KeyId, ListedKey>;

/// The data about a key of the configuration file that commands and the next reload need. Its rules are in the
/// directory, its label in the ledger.
#[derive(Debug, PartialEq, Eq)]
struct ListedKey {
    hash: KeyHash,
    /// The label as a number, to detect a changed label at the next reload.
    label: NameId,
}

impl ListedKey {
    fn of(key: &config::FileKey) -> Self {
        Self { hash: key.hash, label: NameId::of(&key.label) }
    }
}

impl Control {
    /// Publishes the first configuration: restores saved limit states, adds the accounts and keys that were created by
    /// command, registers the file's accounts, keys and routes in the ledger and books their opening grants, publishes
    /// the snapshot, then adds the file's accounts and keys.
    ///
    /// `grants`: true if accounts of the file that are not in the ledger are created there. If false, those accounts
    /// and their keys are left out, because a command that only reads must not book anything.
    ///
    /// # Errors
    /// If the configuration contradicts the ledger, or the ledger cannot be written.
    pub async fn boot(
        path: &Path,
        mut loaded: LoadedConfig,
        grants: bool,
        bookkeeper: Bookkeeper,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let mut reader = bookkeeper.reader().await?;
        let (accounts, secrets) = reader.counts()?;
        if !grants {
            let mut known = HashSet::new();
            for account in &loaded.accounts {
                known.extend(reader.account(&account.id)?.map(|row| row.id));
            }
            loaded.accounts.retain(|account| known.contains(&account.id));
            loaded.keys.retain(|key| known.contains(&key.account));
        }
        let directory =
            Arc::new(Directory::with_capacity(accounts + loaded.accounts.len(), secrets + loaded.keys.len()));
        let (publisher, view) = crate::snapshot::channel(loaded.snapshot.clone());
        let inner = InForce {
            hash: loaded.hash,
            watched: loaded.watched.clone(),
            keys: FileKeys::default(),
            warnings: Vec::new(),
            last_error: None,
        };
        let stats = Arc::new(Stats::default());
        let control = Self {
            path: path.to_owned(),
            directory,
            bookkeeper,
            publisher,
            view,
            clock,
            stats,
            state: Mutex::new(inner),
        };
        control.restore_meters(&mut *reader)?;
        control.publish_store(&mut *reader)?;
        drop(reader);
        let mut state = control.state.lock().await;
        state.warnings = control.publish(loaded, &mut state).await?;
        drop(state);
        Ok(control)
    }

    /// The current snapshot, for the data plane.
    #[must_use]
    pub fn view(&self) -> SnapshotReader {
        self.view.clone()
    }

    /// Keys and accounts, for the data plane.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// Counters, for the data plane.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Removes parked meters whose limits are fully available again and key rules that no key uses, and frees former
    /// snapshots that are no longer in use.
    pub fn prune_meters(&self) {
        self.directory.sweep(self.clock.now());
        self.publisher.free();
    }

    /// True if requests that cost credits can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.bookkeeper.is_healthy()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.view.load()
    }

    /// Executes a command. The rows of a long result are sent to `rows` before the final result is returned.
    ///
    /// # Errors
    /// A message for the operator. The command has changed nothing.
    pub async fn execute(self: &Arc<Self>, command: Command, rows: Rows) -> Result<Value, Failure> {
        match command {
            Command::Reload => self.reload().await,
            Command::Status => Ok(self.status().await),
            Command::TakeOver => refused("no gateway runs that could be taken over"),
            Command::KeyCreate(new) => self.create_key(new).await,
            Command::KeyList { account } => self.list_keys(account, rows).await,
            Command::KeyShow { id } => self.show_key(id).await,
            Command::KeyRotate { id, overlap } => self.rotate_key(id, overlap).await,
            Command::KeyState { id, state } => self.set_key_state(id, state).await,
            Command::AccountCreate { id, plan } => self.create_account(id, plan).await,
            Command::AccountList => self.list_accounts(rows).await,
            Command::AccountShow { id } => self.show_account(id).await,
            Command::AccountSuspend { id, suspended } => self.suspend_account(id, suspended).await,
            Command::Book { account, adjustment, credits, reference } => {
                self.book(account, adjustment, credits, reference).await
            }
            Command::Statement { account } => self.entries(Some(account), rows).await,
            Command::Export => self.entries(None, rows).await,
            Command::Verify => self.verify().await,
            Command::InDoubt { request } => self.in_doubt(request.as_deref(), &rows).await,
            Command::GiveBack { id } => self.give_back(&id).await,
            Command::Backup { to } => self.backup(to).await,
            Command::Explain { key, method, url } => self.explain(key, &method, &url).await,
        }
    }

    async fn status(&self) -> Value {
        let state = self.state.lock().await;
        let counters = self.bookkeeper.counters();
        let mut status = self.stats.to_json();
        let more = json!({
            "ledger_healthy": self.bookkeeper.is_healthy(),
            "ledger_commits": counters.commits.load(Ordering::Relaxed),
            "ledger_failures": counters.failures.load(Ordering::Relaxed),
            "keys": self.directory.keys(),
            "accounts": self.directory.accounts(),
            "config": self.path.display().to_string(),
            "config_hash": state.hash.to_hex(),
            "last_reload_error": state.last_error,
            "upstreams": upstreams::report(&self.snapshot(), self.clock.now()),
        });
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        status
    }
}
