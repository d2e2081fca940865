//! Sets the spending limits of accounts, and begins the periods of all spending limits.

use std::sync::Arc;

use super::books::BooksThread;
use crate::ledger::caps::{KeyCaps, SpendCap};
use crate::ledger::store::{AccountRow, Changed, GroupId, GroupRow, KeyRow, LeaseOf, Notes, Result};
use crate::policy::credit::{SpendLimit, Spending};
use crate::types::{AccountId, AccountNum, Credits, GroupName};

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
                    self.shared.return_lease(&cap);
                }
                (None, Some(_)) => {
                    let cap = SpendCap::new(LeaseOf::Limit(num), &after, self.is_leased());
                    let held = self.returning(|hold| hold.account == num);
                    cap.iter()
                        .for_each(|cap| cap.change(Credits::ZERO.checked_sub(held).unwrap_or_default()));
                    self.shared.caps.note();
                    purse.set_cap(cap.map(Arc::new));
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
        let (caps, is_leased) = (&self.shared.caps, self.is_leased());
        match (&changed.before, &changed.after) {
            (Some(before), None) => caps.remove_group(&before.id),
            (None, Some(after)) => {
                let cap = SpendCap::new(LeaseOf::Group(after.num), &after.spending, is_leased);
                cap.into_iter().for_each(|cap| caps.add_group(after.id.clone(), Arc::new(cap)));
            }
            (Some(before), Some(after)) => {
                let change = before.spending.left().zip(after.spending.limit.zip(after.spending.left()));
                if let (Some(cap), Some((old, (limit, new)))) = (caps.group(&after.id), change) {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                    self.shared.return_lease(&cap);
                }
            }
            (None, None) => {}
        }
        Ok(changed)
    }

    /// Takes over what gateways of the fleet changed: the spending limits of accounts, of their groups and of keys.
    pub(in crate::ledger) fn saw(&self, accounts: &[(AccountRow, Vec<GroupRow>)], keys: &[KeyRow]) {
        for (row, groups) in accounts {
            self.saw_account(row, groups);
        }
        for row in keys {
            let known = self.shared.caps.get(row.num).own;
            let own = self.cap_of(known, LeaseOf::Key(row.num), &row.spending);
            let group = row.group.clone().and_then(|name| self.shared.caps.group(&(row.account, name)));
            self.shared.caps.set(row.num, KeyCaps { own, group });
        }
    }

    fn saw_account(&self, row: &AccountRow, groups: &[GroupRow]) {
        let caps = &self.shared.caps;
        if let Some(purse) = self.shared.purses.get(row.num) {
            let known = purse.cap();
            let cap = self.cap_of(known.clone(), LeaseOf::Limit(row.num), &row.spending);
            if cap.as_ref().map(Arc::as_ptr) != known.as_ref().map(Arc::as_ptr) {
                caps.note();
                purse.set_cap(cap);
            }
        }
        for group in groups {
            let known = caps.group(&group.id);
            let is_new = known.is_none();
            let cap = self.cap_of(known, LeaseOf::Group(group.num), &group.spending);
            cap.filter(|_| is_new).into_iter().for_each(|cap| caps.add_group(group.id.clone(), cap));
        }
        let is_gone = |id: &GroupId| groups.iter().all(|group| group.id != *id);
        caps.groups_of(row.num).iter().filter(|id| is_gone(id)).for_each(|id| caps.remove_group(id));
    }

    /// The cap that follows from what was read: the known one, if it stays.
    fn cap_of(
        &self,
        known: Option<Arc<SpendCap>>,
        of: LeaseOf,
        spending: &Spending,
    ) -> Option<Arc<SpendCap>> {
        let known = known.filter(|cap| spending.limit.is_some() && cap.is_of(of));
        let Some(cap) = known else { return SpendCap::new(of, spending, self.is_leased()).map(Arc::new) };
        if cap.saw(spending) {
            self.shared.return_lease(&cap);
        }
        Some(cap)
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
            self.shared.caps.get(key).own.iter().for_each(|cap| cap.receive(more));
        }
        for (group, more) in begun.groups {
            self.shared.caps.group(&group).iter().for_each(|cap| cap.receive(more));
        }
        for (account, more) in begun.accounts {
            let purse = self.shared.purses.get(account);
            purse.and_then(|purse| purse.cap()).iter().for_each(|cap| cap.receive(more));
        }
        Ok(count)
    }
}
