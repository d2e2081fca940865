//! Puts the spending limits of accounts in force: those of the configuration file, and of plans.

use std::collections::HashMap;
use std::sync::Arc;

use super::Control;
use super::operations::Result;
use crate::config::FileAccount;
use crate::directory::Account;
use crate::ledger::store::Registered;
use crate::policy::credit::SpendLimit;
use crate::snapshot::{AccountStatus, Snapshot};
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
        self.directory.each_account(&mut |account| changes.extend(change(&view, account, own)));
        for some in changes.chunks(AT_ONCE) {
            self.bookkeeper.limit_accounts(some.to_vec()).await?;
        }
        Ok(())
    }

    /// Sets the spending limits of accounts that were created by command, or whose plan was changed. If that fails, it is
    /// made up for by the next reload.
    pub(super) async fn limit_now(&self, accounts: &[Arc<Account>]) {
        let (view, own) = (self.snapshot(), HashMap::new());
        let changes: Vec<_> = accounts.iter().filter_map(|account| change(&view, account, &own)).collect();
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.bookkeeper.limit_accounts(changes).await {
            tracing::error!(%error, "spending limits could not be set; the next reload sets them");
        }
    }
}

/// The limit that an account is to have, if it has another one.
fn change(
    view: &Snapshot,
    account: &Account,
    own: &HashMap<AccountNum, SpendLimit>,
) -> Option<(AccountNum, Option<SpendLimit>)> {
    let AccountStatus::Served(plan) = view.account_status(account.num, account.stored_plan()) else {
        return None;
    };
    let limit = own.get(&account.num).copied().or(plan.and_then(|plan| plan.spend_limit));
    (account.purse.spend_limit() != limit).then_some((account.num, limit))
}
