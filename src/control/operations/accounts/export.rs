//! Exports all accounts and keys, as they would stand in a configuration file.

use std::ops::ControlFlow;

use serde::Serialize;

use super::AccountView;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::describe::Describer;
use crate::control::operations::error::Result;
use crate::control::operations::keys::KeyView;
use crate::ledger::store::{AccountState, BooksReader, KeyRow, each_key};
use crate::policy::key::KeyState;
use crate::types::KeyHash;

/// Accounts that are read at a time.
const PAGE: usize = 1_000;

/// A row of an export: an account, then its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exported {
    /// An account that was not deleted.
    Account(Box<AccountView>),
    /// A key that is not revoked.
    Key(Box<ExportedKey>),
}

/// A key with its hash.
#[derive(Debug, Serialize)]
pub struct ExportedKey {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// SHA-256 of its newest secret.
    pub sha256: String,
}

impl Control {
    /// Calls `each` for every account and its keys, on another thread. Returns their numbers.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn export(
        &self,
        caller: &Caller,
        mut each: impl FnMut(Exported) -> ControlFlow<()> + Send + 'static,
    ) -> Result<[u64; 2]> {
        caller.may(Permission::ReadAll)?;
        let describe = self.describer();
        let read = move |reader: &mut dyn BooksReader| {
            let (mut counts, mut after) = ([0, 0], None);
            loop {
                let page = reader.accounts(after.as_ref(), PAGE)?;
                let Some(last) = page.last() else { return Ok(counts) };
                after = Some(last.id.clone());
                for row in page.iter().filter(|row| row.state != AccountState::Closed) {
                    counts[0] += 1;
                    if each(Exported::Account(Box::new(describe.account(row)))).is_break() {
                        return Ok(counts);
                    }
                    each_key(reader, Some(&row.id), |key, owner| {
                        let Some(sha256) = hash(&describe, &key) else { return ControlFlow::Continue(()) };
                        counts[1] += 1;
                        let key = describe.key(&key, &owner);
                        each(Exported::Key(Box::new(ExportedKey { key, sha256: sha256.to_hex() })))
                    })?;
                }
            }
        };
        self.read_folded(read).await
    }
}

/// The hash of the newest secret of a key that is not revoked.
fn hash(describe: &Describer, key: &KeyRow) -> Option<KeyHash> {
    let stored = key.secrets.iter().find(|secret| secret.until.is_none()).map(|secret| secret.hash);
    stored.or_else(|| describe.file_hash(key)).filter(|_| key.state != KeyState::Revoked)
}
