//! Imports accounts, many at a time.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccountInput, terms_of_new};
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::{Imported, MAX_IMPORTED};
use crate::ledger::store::{AccountRow, AccountState, NewAccount, Notes};
use crate::types::AccountId;

/// A line of an import, with an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountLine {
    /// The number of the line, from 1 on.
    pub line: u64,
    /// The account.
    pub account: AccountInput,
}

impl Control {
    /// Creates accounts, with their opening grants. A line whose account is there already with the same terms is counted
    /// as known, so that an import can be repeated; other lines that cannot be imported are refused alone.
    ///
    /// # Errors
    /// If there are more than [`MAX_IMPORTED`] lines, or the ledger failed.
    pub async fn import_accounts(&self, caller: &Caller, lines: Vec<AccountLine>) -> Result<Imported> {
        caller.may(Permission::Manage)?;
        if lines.len() > MAX_IMPORTED {
            return OperationError::invalid("lines", format!("at most {MAX_IMPORTED} lines at a time"));
        }
        let _alone = self.changes.lock().await;
        let (mut told, mut new, mut seen) = (Imported::default(), Vec::new(), HashSet::new());
        for AccountLine { line, account } in lines {
            if !seen.insert(account.id.clone()) {
                told.refuse(line, format!("account {} is in an earlier line", account.id));
                continue;
            }
            match self.known_account(&account.id).await? {
                Some(row) if row.state == AccountState::Closed => {
                    told.refuse(line, format!("account {} was deleted; choose another id", row.id));
                }
                Some(row) if is_as(&row, &account) => told.known += 1,
                Some(row) => {
                    told.refuse(line, format!("account {} exists already, with other terms", row.id));
                }
                None => match self.new_account(caller, account) {
                    Ok(account) => new.push((line, account)),
                    Err(error) => told.refuse(line, error),
                },
            }
        }
        let accounts: Vec<NewAccount> = new.iter().map(|(_, account)| account.clone()).collect();
        if accounts.is_empty() {
            return Ok(told);
        }
        match self.add_accounts(accounts, noting(caller)).await {
            Ok(()) => told.imported += new.len() as u64,
            Err(OperationError::Unavailable(why)) => return Err(OperationError::Unavailable(why)),
            // One of them was refused, and so all: each alone then.
            Err(_) => {
                for (line, account) in new {
                    match self.add_accounts(vec![account], noting(caller)).await {
                        Ok(()) => told.imported += 1,
                        Err(error) => told.refuse(line, error),
                    }
                }
            }
        }
        Ok(told)
    }

    async fn known_account(&self, id: &AccountId) -> Result<Option<AccountRow>> {
        if self.directory.account(id).is_none() {
            return Ok(None);
        }
        let id = id.clone();
        self.read(move |reader| Ok(reader.account(&id)?)).await
    }
}

fn is_as(row: &AccountRow, account: &AccountInput) -> bool {
    let grant = |credits: Option<crate::types::Credits>| credits.filter(|credits| !credits.is_zero());
    row.name == account.name && row.plan == account.plan && grant(row.opening) == grant(account.credits)
}

/// Writes an audit entry for each account.
fn noting(caller: &Caller) -> Notes<Vec<AccountRow>> {
    let caller = caller.clone();
    Arc::new(move |rows| {
        let entry = |row: &AccountRow| {
            let object = format!("account/{}", row.id);
            caller.audit(
                "account.import",
                &Noted { object, before: None, after: Some(terms_of_new(row)), output: () },
            )
        };
        rows.iter().map(entry).collect()
    })
}
