//! Implements the control plane: publishes configurations, creates keys and accounts, books credits.
//!
//! Commands arrive through the control socket of a running gateway, or directly if no gateway is running. Both call
//! [`Control::execute`].

pub mod api;
pub mod command;
pub mod dashboard;
mod execute;
mod fleet;
mod http_client;
pub mod listener;
mod mail;
pub mod metrics;
pub mod operations;
mod page_reads;
mod payments;
mod publish;
mod quota;
mod refills;
mod reload;
pub mod socket;
mod spending;
mod traces;
mod upstreams;
mod webhooks;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use crate::clock::Clock;
use crate::config::{self, LoadedConfig, Watched};
use crate::directory::Directory;
use crate::ledger::Bookkeeper;
use crate::limit_store::LimitStore;
use crate::snapshot::{Publisher, Snapshot, SnapshotReader};
use crate::telemetry::Stats;
use crate::types::{KeyHash, KeyId, Moment, NameId, WallTime};
use http_client::HttpClient;
use operations::{OperationError, People, Tokens};
use page_reads::PageReads;
pub use reload::Refused;

/// Most rows of a result that wait to be sent. When the queue is full, reading the ledger waits.
pub const MAX_ROWS: usize = 1024;

/// The channel that the rows of a long result are sent to.
pub type Rows = mpsc::Sender<Value>;

/// Random bytes from the operating system.
fn random<const N: usize>() -> operations::Result<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            let message = format!("the operating system failed to generate random numbers: {error}");
            Err(OperationError::Unavailable(message))
        }
    }
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
    /// Held while a key, an account or a token is changed, and while a configuration is published. Reads never wait for
    /// it.
    changes: Mutex<()>,
    /// Held while a configuration is loaded and published.
    reloading: Mutex<()>,
    in_force: ArcSwap<InForce>,
    last_reload_error: parking_lot::Mutex<Option<String>>,
    tokens: Tokens,
    page_reads: PageReads,
    people: People,
    doorbell: webhooks::Doorbell,
    deliveries: webhooks::DeliveryCounts,
    /// Set once, if this gateway counts limits together with others.
    limit_store: OnceLock<Arc<LimitStore>>,
    /// Reads the system's certificate authorities when it is first used.
    payment_client: LazyLock<HttpClient>,
}

/// What the control plane keeps of the current configuration, besides the snapshot.
#[derive(Debug)]
struct InForce {
    hash: KeyHash,
    watched: Watched,
    keys: FileKeys,
    /// Warnings about the current configuration.
    warnings: Vec<String>,
    /// When it was published.
    published: WallTime,
    /// Its text without secrets.
    text: Option<Arc<str>>,
    /// What it changed in the one before.
    diff: Option<Arc<str>>,
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
    ) -> Result<Self, OperationError> {
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
        let in_force = Arc::new(InForce {
            hash: loaded.hash,
            watched: loaded.watched.clone(),
            keys: FileKeys::default(),
            warnings: Vec::new(),
            published: clock.wall(),
            text: loaded.text.clone(),
            diff: None,
        });
        let control = Self {
            path: path.to_owned(),
            directory,
            bookkeeper,
            publisher,
            view,
            clock,
            stats: Arc::default(),
            changes: Mutex::default(),
            reloading: Mutex::default(),
            in_force: ArcSwap::new(Arc::clone(&in_force)),
            last_reload_error: parking_lot::Mutex::default(),
            tokens: Tokens::default(),
            page_reads: PageReads::default(),
            people: People::default(),
            doorbell: webhooks::Doorbell::default(),
            deliveries: webhooks::DeliveryCounts::default(),
            limit_store: OnceLock::new(),
            payment_client: LazyLock::new(HttpClient::new),
        };
        control.restore_meters(&mut *reader)?;
        control.publish_store(&mut *reader)?;
        control.tokens.load(reader.tokens()?);
        drop(reader);
        let published = control.publish(loaded, &in_force).await?;
        if grants && let Some(warning) = control.apply_terms(&published.own).await {
            tracing::error!("{warning}");
        }
        Ok(control)
    }

    /// The current snapshot, for the data plane.
    #[must_use]
    pub fn view(&self) -> SnapshotReader {
        self.view.clone()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
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

    /// Shows how limits are counted together with other gateways, in metrics.
    pub fn show_limit_store(&self, store: &Arc<LimitStore>) {
        let _ = self.limit_store.set(Arc::clone(store)); // a gateway has one
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
}
