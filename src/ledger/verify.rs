//! Recomputes every balance from the entries.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::Serialize;

use super::store::{Entry, Reader, Result, each_account, each_entry};
use crate::types::{AccountId, Credits};

/// An account whose books do not add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whose books.
    pub account: AccountId,
    /// The first entry whose balance is not that before it plus its amount; none if the entries
    /// add up but the account's balance is another.
    pub entry: Option<u64>,
    /// What the books say.
    pub recorded: Credits,
    /// What the entries add up to.
    pub computed: Credits,
}

/// What was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Accounts.
    pub accounts: u64,
    /// Entries.
    pub entries: u64,
    /// Where the books do not add up; empty if all is well.
    pub differences: Vec<Difference>,
}

/// Walks all entries once; memory grows with accounts, not with entries.
///
/// # Errors
/// Where the store cannot be read.
pub fn verify(reader: &mut dyn Reader) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut sums: HashMap<AccountId, Credits> = HashMap::new();
    let mut broken: HashMap<AccountId, Difference> = HashMap::new();
    reader.freeze()?; // entries and balances of one moment
    each_entry(reader, None, |entry: Entry| {
        verified.entries += 1;
        let sum = sums.entry(entry.account.clone()).or_default();
        let next = sum.checked_add(entry.amount);
        if next != Some(entry.balance_after) {
            let computed = next.unwrap_or(*sum);
            let (account, recorded) = (entry.account.clone(), entry.balance_after);
            let found = Difference { account, entry: Some(entry.id), recorded, computed };
            broken.entry(entry.account).or_insert(found);
        }
        *sum = next.unwrap_or(*sum);
        ControlFlow::Continue(())
    })?;
    each_account(reader, |row| {
        verified.accounts += 1;
        let computed = sums.get(&row.id).copied().unwrap_or_default();
        if let Some(difference) = broken.remove(&row.id) {
            verified.differences.push(difference);
        } else if computed != row.balance {
            let (account, recorded) = (row.id, row.balance);
            verified.differences.push(Difference { account, entry: None, recorded, computed });
        }
        ControlFlow::Continue(())
    })?;
    Ok(verified)
}
