//! Sets the spending limits of accounts, and begins the periods of all spending limits.

use super::books::BooksThread;
use crate::ledger::caps::SpendCap;
use crate::ledger::store::{Changed, GroupRow, Notes, Result};
use crate::policy::credit::SpendLimit;
use crate::types::{AccountId, AccountNum, GroupName};

/// Most keys, groups and accounts whose period begins in one transaction.
const MAX_BEGUN_AT_ONCE: usize = 10_000;
/// Most such transactions after a fold. The rest follows after the next one.
const MAX_ROUNDS: usize = 5;

impl BooksThread {
    /// Sets the spending limits of accounts. What an account has in flight when it gets its first limit counts once it is
    /// charged.
    pub(in crate::ledger) fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
    ) -> Result<()> {
        self.fold()?; // so that the rows say what was spent
        let changed = self.books.limit_accounts(limits, self.clock.wall())?;
        for (num, before, after) in changed {
            let Some(purse) = self.shared.purses.get(num) else { continue };
            match (before.left().zip(purse.cap()), after.limit.zip(after.left())) {
                (_, None) => purse.set_cap(None),
                (Some((old, cap)), Some((limit, new))) => {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                }
                (None, Some((limit, left))) => {
                    let held = self.returning(|hold| hold.account == num);
                    self.shared.caps.note();
                    purse.set_cap(Some(SpendCap::new(limit, left.checked_sub(held).unwrap_or_default())));
                }
            }
        }
        Ok(())
    }

    /// Sets the spending limit of a group of keys, creates it or deletes it.
    pub(in crate::ledger) fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        notes: &Notes<Changed<Option<GroupRow>>>,
    ) -> Result<Changed<Option<GroupRow>>> {
        self.fold()?; // so that the row says what was spent
        let changed = self.books.change_group(account, name, limit, notes, self.clock.wall())?;
        let caps = &self.shared.caps;
        match (&changed.before, &changed.after) {
            (Some(before), None) => caps.remove_group(&before.id),
            (None, Some(after)) => {
                SpendCap::of(&after.spending)
                    .into_iter()
                    .for_each(|cap| caps.add_group(after.id.clone(), cap));
            }
            (Some(before), Some(after)) => {
                let change = before.spending.left().zip(after.spending.limit.zip(after.spending.left()));
                if let (Some(cap), Some((old, (limit, new)))) = (caps.group(&after.id), change) {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                }
            }
            (None, None) => {}
        }
        Ok(changed)
    }

    /// Begins the periods of spending limits that are over. Charges that are not folded yet count in the new period.
    pub(super) fn begin_periods(&mut self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            if self.begin_some_periods()? < MAX_BEGUN_AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    /// Begins at most [`MAX_BEGUN_AT_ONCE`] periods of keys, of groups and of accounts. Returns the larger number.
    fn begin_some_periods(&mut self) -> Result<usize> {
        let begun = self.books.begin_periods(self.clock.wall(), MAX_BEGUN_AT_ONCE)?;
        let count = begun.keys.len().max(begun.groups.len()).max(begun.accounts.len());
        for (key, more) in begun.keys {
            self.shared.caps.get(key).own.iter().for_each(|cap| cap.change(more));
        }
        for (group, more) in begun.groups {
            self.shared.caps.group(&group).iter().for_each(|cap| cap.change(more));
        }
        for (account, more) in begun.accounts {
            let purse = self.shared.purses.get(account);
            purse.and_then(|purse| purse.cap()).iter().for_each(|cap| cap.change(more));
        }
        Ok(count)
    }
}
