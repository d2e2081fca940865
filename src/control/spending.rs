//! Puts the spending limits of accounts in force: those of the configuration file, and of plans.

use std::collections::HashMap;

use super::Control;
use super::operations::Result;
use crate::config::FileAccount;
use crate::directory::Account;
use crate::ledger::store::Registered;
use crate::policy::credit::SpendLimit;
use crate::snapshot::AccountStatus;
use crate::types::AccountNum;

/// Most accounts whose limits are changed in one transaction.
const AT_ONCE: usize = 1_000;

/// The spending limits of the file's accounts in place of their plans'.
pub(super) fn own_limits(
    accounts: &[FileAccount],
    registered: &Registered,
) -> HashMap<AccountNum, SpendLimit> {
    let rows = accounts.iter().zip(&registered.accounts);
    rows.filter_map(|(account, row)| Some((row.num, account.spend_limit?))).collect()
}

impl Control {
    /// Sets the spending limits of all accounts that have another one than they are to have.
    pub(super) async fn limit_accounts(&self, own: &HashMap<AccountNum, SpendLimit>) -> Result<()> {
        let view = self.snapshot();
        let mut changes = Vec::new();
        let mut compare = |account: &Account| {
            if let AccountStatus::Served(plan) = view.account_status(account.num, account.stored_plan()) {
                let limit = own.get(&account.num).copied().or(plan.and_then(|plan| plan.spend_limit));
                if account.purse.spend_limit() != limit {
                    changes.push((account.num, limit));
                }
            }
        };
        self.directory.each_account(&mut compare);
        for some in changes.chunks(AT_ONCE) {
            self.bookkeeper.limit_accounts(some.to_vec()).await?;
        }
        Ok(())
    }

    /// Sets the spending limit of an account that was created by command, or whose plan was changed.
    pub(super) async fn limit_account(&self, account: &Account) -> Result<()> {
        let view = self.snapshot();
        if let AccountStatus::Served(plan) = view.account_status(account.num, account.stored_plan()) {
            let limit = plan.and_then(|plan| plan.spend_limit);
            if account.purse.spend_limit() != limit {
                self.bookkeeper.limit_accounts(vec![(account.num, limit)]).await?;
            }
        }
        Ok(())
    }
}
