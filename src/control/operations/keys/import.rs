//! Imports keys by their hashes, many at a time.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::KeyInput;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::{Imported, MAX_IMPORTED};
use crate::directory::Account;
use crate::ledger::store::{KeyRow, Notes, Source};
use crate::types::{AccountId, KeyHash, KeyNum};

/// A line of an import, with a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyLine {
    /// The number of the line, from 1 on.
    pub line: u64,
    /// The account that the key belongs to.
    pub account: AccountId,
    /// The key, with its hash.
    pub key: KeyInput,
}

/// A key that can be created.
struct New {
    line: u64,
    row: KeyRow,
    owner: Arc<Account>,
}

impl Control {
    /// Creates keys by their hashes. They work when this returns. A line whose key is there already is counted as known,
    /// so that an import can be repeated; other lines that cannot be imported are refused alone. Webhooks are not told.
    ///
    /// # Errors
    /// If there are more than [`MAX_IMPORTED`] lines, or the ledger failed.
    pub async fn import_keys(&self, caller: &Caller, lines: Vec<KeyLine>) -> Result<Imported> {
        caller.may(Permission::Manage)?;
        if lines.len() > MAX_IMPORTED {
            return OperationError::invalid("lines", format!("at most {MAX_IMPORTED} lines at a time"));
        }
        let _alone = self.changes.lock().await;
        let (mut told, mut new, mut seen) = (Imported::default(), Vec::new(), HashSet::new());
        let mut open = HashSet::new();
        for one in lines {
            let line = one.line;
            match self.new_key(one, &mut open).await {
                Ok(Some(key)) if key.row.secrets.iter().all(|secret| seen.insert(secret.hash)) => {
                    new.push(key);
                }
                Ok(Some(_)) => told.refuse(line, "a key with this hash is in an earlier line"),
                Ok(None) => told.known += 1,
                Err(OperationError::Unavailable(why)) => return Err(OperationError::Unavailable(why)),
                Err(error) => told.refuse(line, error),
            }
        }
        if new.is_empty() {
            return Ok(told);
        }
        match self.add_keys(caller, &new).await {
            Ok(()) => told.imported += new.len() as u64,
            Err(OperationError::Unavailable(why)) => return Err(OperationError::Unavailable(why)),
            // One of them was refused, and so all: each alone then.
            Err(_) => {
                for key in new {
                    let line = key.line;
                    match self.add_keys(caller, &[key]).await {
                        Ok(()) => told.imported += 1,
                        Err(error) => told.refuse(line, error),
                    }
                }
            }
        }
        Ok(told)
    }

    /// Checks a line. `None` if its key is there already. `open`: accounts that are known not to be deleted.
    async fn new_key(
        &self,
        KeyLine { line, account, key }: KeyLine,
        open: &mut HashSet<AccountId>,
    ) -> Result<Option<New>> {
        let Some(text) = &key.sha256 else {
            return OperationError::invalid("sha256", "an imported key needs its SHA-256");
        };
        let known = text.parse::<KeyHash>().ok().and_then(|hash| self.directory.find(&hash));
        if let Some(known) = known {
            let is_same = known.account.id == account && known.source == Source::Store;
            let taken = || OperationError::Conflict("a key with this hash exists already".to_owned());
            return if is_same { Ok(None) } else { Err(taken()) };
        }
        let owner = self.directory.account(&account).filter(|account| self.serves(account));
        let Some(owner) = owner else { return Err(account.into()) };
        if !open.contains(&owner.id) {
            self.refuse_closed_account(&owner.id).await?;
            open.insert(owner.id.clone());
        }
        let (row, _) = self.key_row(owner.num, key)?;
        Ok(Some(New { line, row, owner }))
    }

    /// Creates keys in the ledger, all or none, then in the directory.
    async fn add_keys(&self, caller: &Caller, new: &[New]) -> Result<()> {
        let rows: Vec<KeyRow> = new.iter().map(|new| new.row.clone()).collect();
        let numbers = self.bookkeeper.create_keys(rows, self.noting(caller, new)).await?;
        for (new, num) in new.iter().zip(numbers) {
            self.put_store_key(&KeyRow { num, ..new.row.clone() }, &new.owner, &[]);
        }
        Ok(())
    }

    /// Writes an audit entry for each key.
    fn noting(&self, caller: &Caller, new: &[New]) -> Notes<Vec<KeyNum>> {
        let describe = self.describer();
        let entry = |new: &New| {
            let view = describe.key(&new.row, &new.owner.id);
            let (object, after) = (format!("key/{}", view.id), Some(view.terms()));
            caller.audit("key.import", &Noted { object, before: None, after, output: () })
        };
        let entries: Vec<_> = new.iter().map(entry).collect();
        Arc::new(move |_| entries.clone())
    }
}
