//! Sets the spending limits of accounts, and begins the periods of all spending limits.

use std::sync::Arc;

use super::books::BooksThread;
use crate::ledger::caps::{KeyCaps, SpendCap};
use crate::ledger::store::{AccountRow, Changed, GroupId, GroupRow, KeyRow, LeaseOf, Notes, Result};
use crate::ledger::tally::{ChargeKey, OpenHold};
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
        let mut limits = limits.to_vec();
        limits.sort_unstable_by_key(|(num, _)| *num); // so that gateways lock accounts in the same order
        let changed = self.books.limit_accounts(&limits, self.clock.wall())?;
        for (num, before, after) in changed {
            let Some(purse) = self.shared.purses.get(num) else { continue };
            match (before.left().zip(purse.cap()), after.limit.zip(after.left())) {
                (_, None) => purse.set_cap(None),
                (Some((old, cap)), Some((limit, new))) => {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                    self.shared.return_lease(&cap);
                }
                (None, Some(_)) => {
                    let cap = self.new_cap(LeaseOf::Limit(num), &after)?;
                    let held = self.returning(|hold| hold.account == num);
                    cap.iter()
                        .for_each(|cap| cap.change(Credits::ZERO.checked_sub(held).unwrap_or_default()));
                    self.shared.caps.note();
                    purse.set_cap(cap);
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
        match (&changed.before, &changed.after) {
            (Some(before), None) => self.shared.caps.remove_group(&before.id),
            (None, Some(after)) => {
                let cap = self.new_cap(LeaseOf::Group(after.num), &after.spending)?;
                cap.into_iter().for_each(|cap| self.shared.caps.add_group(after.id.clone(), cap));
            }
            (Some(before), Some(after)) => {
                let change = before.spending.left().zip(after.spending.limit.zip(after.spending.left()));
                let cap = self.shared.caps.group(&after.id);
                if let (Some(cap), Some((old, (limit, new)))) = (cap, change) {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                    self.shared.return_lease(&cap);
                }
            }
            (None, None) => {}
        }
        Ok(changed)
    }

    /// Takes over what gateways of the fleet changed: the spending limits of accounts, of their groups and of keys.
    ///
    /// The next fold takes what was charged here meanwhile from the limits that there are now. So it is taken from their caps.
    pub(in crate::ledger) fn saw(
        &mut self,
        accounts: &[(AccountRow, Vec<GroupRow>)],
        keys: &[KeyRow],
    ) -> Result<()> {
        let is_limited =
            |(row, groups): &(AccountRow, Vec<GroupRow>)| row.spending.limit.is_some() || !groups.is_empty();
        let is_capped = |row: &KeyRow| row.spending.limit.is_some() || row.group.is_some();
        if self.shared.caps.is_empty() && !accounts.iter().any(is_limited) && !keys.iter().any(is_capped) {
            return Ok(());
        }
        self.wait_until_written()?;
        self.apply_committed();
        accounts.iter().try_for_each(|(row, groups)| self.saw_account(row, groups))?;
        keys.iter().try_for_each(|row| self.saw_key(row))?;
        self.shared.want_fold_soon(); // what was charged here is counted by all then
        Ok(())
    }

    fn saw_key(&mut self, row: &KeyRow) -> Result<()> {
        let known = self.shared.caps.get(row.num);
        let charged = |books: &Self| books.spent_here(|of| of.key == row.num, |hold| hold.key == row.num);
        let own = self.cap_of(known.own, LeaseOf::Key(row.num), &row.spending, charged)?;
        let group = row.group.clone().and_then(|name| self.shared.caps.group(&(row.account, name)));
        if group.as_ref().map(Arc::as_ptr) != known.group.as_ref().map(Arc::as_ptr) {
            let moved = charged(self);
            known.group.iter().for_each(|cap| cap.change(moved));
            group.iter().for_each(|cap| cap.change(Credits::ZERO.checked_sub(moved).unwrap_or_default()));
        }
        self.shared.caps.set(row.num, KeyCaps { own, group });
        Ok(())
    }

    fn saw_account(&mut self, row: &AccountRow, groups: &[GroupRow]) -> Result<()> {
        if let Some(purse) = self.shared.purses.get(row.num) {
            let known = purse.cap();
            let charged =
                |books: &Self| books.spent_here(|of| of.account == row.num, |hold| hold.account == row.num);
            let cap = self.cap_of(known.clone(), LeaseOf::Limit(row.num), &row.spending, charged)?;
            if cap.as_ref().map(Arc::as_ptr) != known.as_ref().map(Arc::as_ptr) {
                self.shared.caps.note();
                purse.set_cap(cap);
            }
        }
        for group in groups {
            let (known, of) = (self.shared.caps.group(&group.id), LeaseOf::Group(group.num));
            let is_new = known.as_ref().is_none_or(|cap| !cap.is_of(of));
            let cap = self.cap_of(known, of, &group.spending, |_| Credits::ZERO)?; // its keys follow
            let cap = cap.filter(|_| is_new);
            cap.into_iter().for_each(|cap| self.shared.caps.add_group(group.id.clone(), cap));
        }
        let is_gone = |id: &GroupId| groups.iter().all(|group| group.id != *id);
        let caps = &self.shared.caps;
        caps.groups_of(row.num).iter().filter(|id| is_gone(id)).for_each(|id| caps.remove_group(id));
        Ok(())
    }

    /// What was charged here since the last fold, and what returns to caps when open holds are settled.
    fn spent_here(
        &self,
        is_charged: impl Fn(&ChargeKey) -> bool,
        is_held: impl Fn(&OpenHold) -> bool,
    ) -> Credits {
        let charged = self.tally.charged(is_charged);
        charged.checked_add(self.returning(is_held)).unwrap_or(charged)
    }

    /// The cap that follows from what was read: the known one, if it stays. `charged`: what was charged here since the last
    /// fold.
    fn cap_of(
        &mut self,
        known: Option<Arc<SpendCap>>,
        of: LeaseOf,
        spending: &Spending,
        charged: impl Fn(&Self) -> Credits,
    ) -> Result<Option<Arc<SpendCap>>> {
        let known = known.filter(|cap| spending.limit.is_some() && cap.is_of(of));
        let Some(cap) = known else {
            let cap = self.new_cap(of, spending)?;
            let charged = Credits::ZERO.checked_sub(charged(self)).unwrap_or_default();
            cap.iter().for_each(|cap| cap.change(charged));
            return Ok(cap);
        };
        if cap.saw(spending) {
            self.shared.return_lease(&cap);
        }
        Ok(Some(cap))
    }

    /// The cap of a new limit. What is leased of an earlier one ends: nothing of it is returned any more.
    pub(super) fn new_cap(&mut self, of: LeaseOf, spending: &Spending) -> Result<Option<Arc<SpendCap>>> {
        let Some(cap) = SpendCap::new(of, spending, self.is_leased()) else { return Ok(None) };
        self.books.end_lease(of)?;
        Ok(Some(Arc::new(cap)))
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
