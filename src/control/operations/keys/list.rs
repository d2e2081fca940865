//! Lists keys.

use super::KeyView;
use crate::config::parse_duration;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Page;
use crate::ledger::store::OwnedKey;
use crate::types::{AccountId, KeyNum, WallTime};

impl Control {
    /// Lists keys of one account or of all, in the order of their creation. `idle`: only those that are not revoked and
    /// were not used for this time.
    ///
    /// # Errors
    /// If there is no such account, or the ledger cannot be read.
    pub async fn keys(
        &self,
        caller: &Caller,
        account: Option<AccountId>,
        idle: Option<&str>,
        after: KeyNum,
        most: usize,
    ) -> Result<Page<KeyView>> {
        caller.may_touch(Permission::ReadAccounts, account.as_ref(), || {
            OperationError::Missing("there is no such account".to_owned())
        })?;
        if let Some(id) = account.clone().filter(|id| self.directory.account(id).is_none()) {
            return Err(id.into());
        }
        let since = idle.map(|idle| self.ago("idle", idle)).transpose()?;
        let rows = self.read(move |reader| match since {
            Some(since) => Ok(reader.idle_keys(account.as_ref(), since, after, most + 1)?),
            None => Ok(reader.keys(account.as_ref(), after, most + 1)?),
        });
        let rows = rows.await?;
        let describe = self.describer();
        let page = Page::of(rows, most, |(row, _): &OwnedKey| row.num.0.to_string());
        Ok(page.map(|(row, owner)| describe.key(&row, &owner)))
    }

    /// Lists keys of an account, the newest first, from before a number on.
    ///
    /// # Errors
    /// If there is no such account, or the ledger cannot be read.
    pub async fn newest_keys(
        &self,
        caller: &Caller,
        account: AccountId,
        before: Option<KeyNum>,
        most: usize,
    ) -> Result<Page<KeyView>> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        let rows = self.read(move |reader| Ok(reader.newest_keys(&account, before, most + 1)?)).await?;
        let describe = self.describer();
        let page = Page::of(rows, most, |(row, _): &OwnedKey| row.num.0.to_string());
        Ok(page.map(|(row, owner)| describe.key(&row, &owner)))
    }

    /// The time that was a duration ago, such as `30d`.
    fn ago(&self, field: &'static str, text: &str) -> Result<WallTime> {
        let Ok(ago) = parse_duration(text) else {
            return OperationError::invalid(field, "a duration looks like \"30d\" or \"12h\"");
        };
        let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        Ok(WallTime(self.clock.wall().0.saturating_sub(millis)))
    }
}
