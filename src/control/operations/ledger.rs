//! Verifies, exports and backs up the ledger.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::caller::{Caller, Noted, Permission};
use super::credits::EntryView;
use super::error::{OperationError, Result};
use crate::control::Control;
use crate::ledger::store::each_entry;
use crate::ledger::verify::{Difference, Verified, verify};
use crate::types::AccountId;

/// The result of recomputing every balance and link from the entries.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verification {
    /// Number of accounts.
    pub accounts: u64,
    /// Number of entries.
    pub entries: u64,
    /// Number of differences; 0 if the ledger is consistent.
    pub found: u64,
    /// The first differences: what differs, where, what is recorded and what was computed.
    #[schema(value_type = Vec<Object>)]
    pub differences: Vec<Difference>,
}

/// A copy of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Backup {
    /// The file of the copy.
    #[schema(value_type = String)]
    pub backup: PathBuf,
}

impl Control {
    /// Recomputes every balance and link from the entries.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn verify_ledger(&self, caller: &Caller) -> Result<Verification> {
        caller.may(Permission::ReadAll)?;
        let Verified { accounts, entries, found, differences } =
            self.read_folded(|reader| Ok(verify(reader)?)).await?;
        Ok(Verification { accounts, entries, found, differences })
    }

    /// Calls `each` for every entry of one account, or of all accounts, in order, on another thread. Returns their
    /// number.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn each_entry(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        mut each: impl FnMut(EntryView) -> ControlFlow<()> + Send + 'static,
    ) -> Result<u64> {
        caller.may(Permission::ReadAccounts)?;
        self.read_folded(move |reader| {
            if let Some(id) = &account {
                reader.account(id)?.ok_or_else(|| id.clone())?;
            }
            let mut count = 0;
            each_entry(reader, account.as_ref(), |entry| {
                count += 1;
                each(EntryView::of(&entry))
            })?;
            Ok(count)
        })
        .await
    }

    /// Copies the ledger to a new file.
    ///
    /// # Errors
    /// If the path is relative or exists already, or the copy cannot be written.
    pub async fn backup(&self, caller: &Caller, to: PathBuf) -> Result<Backup> {
        caller.may(Permission::Manage)?;
        if !to.is_absolute() {
            return OperationError::invalid("to", "the path of a backup must be absolute");
        }
        let path = to.clone();
        self.read_folded(move |reader| Ok(reader.backup(&path)?)).await?;
        let noted =
            Noted { object: "ledger".to_owned(), before: None, after: Some(json!({ "to": to })), output: () };
        self.bookkeeper.note(vec![caller.audit("ledger.backup", &noted)]).await?;
        Ok(Backup { backup: to })
    }
}
