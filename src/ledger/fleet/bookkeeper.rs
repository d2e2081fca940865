//! What the control plane of a gateway of a fleet needs besides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use crate::ledger::bookkeeper::Bookkeeper;
use crate::ledger::purse::Purse;
use crate::ledger::store::{AccountRow, Changes, GroupRow, KeyRow, Result};

/// Most lists of changes that wait. Further ones are read later.
const MAX_CHANGES: usize = 4;

impl Bookkeeper {
    /// The purse of an account that may be new: another gateway created it.
    #[must_use]
    pub fn purse_of(&self, row: &AccountRow) -> Arc<Purse> {
        self.shared.purses.add(row.num, row.balance.checked_sub(row.held).unwrap_or_default())
    }

    /// Takes over what gateways of the fleet changed: the spending limits of accounts, of their groups and of keys.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn saw(&self, accounts: Vec<(AccountRow, Vec<GroupRow>)>, keys: Vec<KeyRow>) -> Result<()> {
        self.run(move |thread| thread.saw(&accounts, &keys)).await
    }

    /// True if the gateways of a fleet share the credits of accounts.
    #[must_use]
    pub fn is_of_fleet(&self) -> bool {
        self.shared.desk.is_some()
    }

    /// True if this gateway does what one at a time does.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.leads.load(Ordering::SeqCst)
    }

    /// Receives the changes of accounts, keys and tokens that gateways of the fleet make, also this one, from the opening of
    /// the ledger on.
    #[must_use]
    pub fn changes(&self) -> mpsc::Receiver<Changes> {
        let (sender, receiver) = mpsc::channel(MAX_CHANGES);
        *self.shared.feed.lock() = Some(sender);
        receiver
    }
}
