//! Follows what other gateways of a fleet change: accounts, keys and tokens.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Control;
use super::operations::{Caller, Permission, Result};
use crate::ledger::store::{
    AccountRow, AccountState, Change, ChangedWhat, Changes, GroupRow, NodeRow, OwnedKey, Source,
    each_account, each_key,
};
use crate::types::{Credits, KeyHash, NameId, Repeats};

/// Pause until changes are read again.
const RETRY: Duration = Duration::from_millis(250);

/// How long a gateway was not seen that is said to be lost, in milliseconds.
const LOST: u64 = 5_000;

/// A gateway of the fleet.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    name: String,
    /// `serving`, `lost` or `stopped`.
    state: &'static str,
    /// How long ago it was last seen, in milliseconds.
    seen_ms: Option<u64>,
    /// Where its journal is: `local` or `shared`.
    journal: &'static str,
    /// Number of accounts of which it has leased credits.
    accounts: u64,
    /// The credits that it has leased and not spent.
    leased: Credits,
}

impl NodeView {
    fn of(row: NodeRow) -> Self {
        let state = match row.seen {
            None if row.is_local => "lost", // it ended without a clean stop before it was seen
            None => "stopped",
            Some(ago) if ago > LOST => "lost",
            Some(_) => "serving",
        };
        let NodeRow { name, seen, accounts, leased, is_local, .. } = row;
        Self {
            name,
            state,
            seen_ms: seen,
            journal: if is_local { "local" } else { "shared" },
            accounts,
            leased,
        }
    }
}

impl Control {
    /// Lists the gateways of the fleet. One that is alone lists none.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn nodes(&self, caller: &Caller) -> Result<Vec<NodeView>> {
        caller.may(Permission::ReadAll)?;
        let rows = self.read(|reader| Ok(reader.nodes()?)).await?;
        Ok(rows.into_iter().map(NodeView::of).collect())
    }

    /// True if this gateway does what one of a fleet does at a time.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.bookkeeper.leads()
    }

    /// Looks for messages that other gateways of a fleet have written.
    pub fn look_for_webhooks(&self) {
        if self.bookkeeper.is_of_fleet() {
            self.doorbell.ring();
        }
    }

    /// Follows changes until the task is aborted. A request with a key that was revoked on any gateway is refused on this one
    /// within a second.
    pub async fn follow_fleet(self: Arc<Self>) {
        let mut failures = Repeats::default();
        let mut changes = self.bookkeeper.changes();
        while let Some(some) = changes.recv().await {
            // What cannot be read now is tried again, since a later change does not repeat it.
            while let Err(error) = self.apply(&some).await {
                if let Some(more) = failures.should_log(self.clock.now()) {
                    tracing::error!(%error, more, "changes of other gateways could not be read; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn apply(&self, changes: &Changes) -> Result<()> {
        let _alone = self.changes.lock().await; // a change of this gateway could be overwritten by what was before it
        match changes {
            Changes::Some(some) => {
                for change in some {
                    self.apply_one(change).await?;
                }
                Ok(())
            }
            Changes::Lost(_) => self.read_all_again().await,
        }
    }

    /// Reads all accounts, keys and tokens again.
    async fn read_all_again(&self) -> Result<()> {
        let all = self.read(|reader| {
            let (mut accounts, mut keys, mut groups) = (Vec::new(), Vec::new(), HashMap::new());
            reader.each_group(None, &mut |row: GroupRow| {
                groups.entry(row.id.0).or_insert_with(Vec::new).push(row);
            })?;
            each_account(reader, |row| {
                let groups = groups.remove(&row.num).unwrap_or_default();
                accounts.push((row, groups));
                ControlFlow::Continue(())
            })?;
            each_key(reader, None, |row, owner| {
                keys.push((row, owner));
                ControlFlow::Continue(())
            })?;
            Ok((accounts, keys, reader.tokens()?))
        });
        let (accounts, keys, tokens) = all.await?;
        let secrets = keys.iter().flat_map(|(row, _)| &row.secrets);
        let hashes: HashSet<KeyHash> = secrets.map(|secret| secret.hash).collect();
        for (row, _) in &accounts {
            self.put_changed_account(row.clone());
        }
        self.bookkeeper.saw(accounts, keys.iter().map(|(row, _)| row.clone()).collect()).await?;
        keys.into_iter().for_each(|key| self.put_changed_key(key));
        self.directory.keep_stored(&hashes);
        self.tokens.load(tokens);
        Ok(())
    }

    async fn apply_one(&self, change: &Change) -> Result<()> {
        change.gone.iter().for_each(|hash| self.directory.remove(hash));
        match &change.what {
            ChangedWhat::Account(id) => {
                let id = id.clone();
                let read = self.read(move |reader| {
                    let (row, mut groups) = (reader.account(&id)?, Vec::new());
                    if let Some(row) = &row {
                        reader.each_group(Some(row.num), &mut |group| groups.push(group))?;
                    }
                    Ok(row.map(|row| (row, groups)))
                });
                if let Some((row, groups)) = read.await? {
                    self.put_changed_account(row.clone());
                    self.bookkeeper.saw(vec![(row, groups)], Vec::new()).await?;
                }
            }
            ChangedWhat::Key(id) => {
                let id = *id;
                if let Some((row, owner)) = self.read(move |reader| Ok(reader.key(id)?)).await? {
                    self.bookkeeper.saw(Vec::new(), vec![row.clone()]).await?;
                    self.put_changed_key((row, owner));
                }
            }
            ChangedWhat::Tokens => self.tokens.load(self.read(|reader| Ok(reader.tokens()?)).await?),
        }
        Ok(())
    }

    fn put_changed_account(&self, row: AccountRow) {
        drop(self.bookkeeper.purse_of(&row));
        let is_suspended = row.state != AccountState::Active;
        match self.directory.account(&row.id).filter(|_| row.source == Source::File) {
            Some(account) => account.set_suspended(is_suspended),
            None => {
                let plan = row.plan.as_deref().map(NameId::of);
                self.put_account(row, plan, Vec::new());
            }
        }
    }

    fn put_changed_key(&self, (row, owner): OwnedKey) {
        if row.source == Source::File {
            self.set_file_key_state(row.id, row.state);
        } else if let Some(account) = self.directory.account(&owner) {
            self.put_store_key(&row, &account, &[]);
        }
    }
}
