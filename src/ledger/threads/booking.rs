//! Books grants, adjustments, returned holds and new accounts.

use std::sync::Arc;

use super::books::BooksThread;
use crate::ledger::caps::{KeyCaps, SpendCap};
use crate::ledger::entry::EntryKind;
use crate::ledger::purse::{Lessee, Purse};
use crate::ledger::store::{
    AccountRow, AccountState, Booked, Booking, Changed, KeyChange, KeyEdit, KeyRow, LeaseOf, LedgerError,
    MAX_LOTS, NewAccount, Notes, OwnedKey, Registered, Registration, Result, unbalanced,
};
use crate::ledger::tally::OpenHold;
use crate::policy::credit::{MAX_BALANCE, Split, Wallet};
use crate::types::{AccountId, Credits, KeyId, KeyNum, RequestId};

impl BooksThread {
    /// Refuses bookings in a ledger that does not balance, because they would hide the error.
    pub(super) fn check_balance(&self) -> Result<()> {
        if self.off_by == 0 { Ok(()) } else { Err(LedgerError::Refused(unbalanced(self.off_by))) }
    }

    fn purse(&self, row: &AccountRow) -> Arc<Purse> {
        self.shared.purses.add(row.num, row.balance.checked_sub(row.held).unwrap_or_default())
    }

    pub(super) fn account(&mut self, id: &AccountId) -> Result<AccountRow> {
        let unknown = || LedgerError::Unknown(format!("there is no account {id}"));
        self.books.account(id)?.ok_or_else(unknown)
    }

    pub(in crate::ledger) fn register(&mut self, wanted: &Registration) -> Result<Registered> {
        let lists = wanted.lists_requests.filter(|lists| *lists != self.tally.lists_requests());
        if lists.is_some() {
            self.fold()?;
        }
        let registered = self.books.register(wanted, self.clock.wall())?;
        lists.into_iter().for_each(|lists| self.tally.list_requests(lists));
        for row in &registered.accounts {
            let purse = self.purse(row);
            row.wallet.iter().for_each(|wallet| purse.show(Wallet::clone(wallet)));
        }
        Ok(registered)
    }

    pub(in crate::ledger) fn create_accounts(
        &mut self,
        new: &[NewAccount],
        notes: &Notes<Vec<AccountRow>>,
    ) -> Result<Vec<AccountRow>> {
        if new.iter().any(|new| new.opening.is_some()) {
            self.check_balance()?;
        }
        if new.iter().filter_map(|new| new.opening.as_ref()).any(|(amount, _)| *amount > MAX_BALANCE) {
            return Err(LedgerError::Refused(format!("a balance is at most {MAX_BALANCE} credits")));
        }
        let rows = self.books.create_accounts(new, notes, self.clock.wall())?;
        for row in &rows {
            self.purse(row);
        }
        Ok(rows)
    }

    /// Books a grant or an adjustment once: a repeated reference returns the first booking.
    pub(in crate::ledger) fn book(&mut self, booking: &Booking, notes: &Notes<Booked>) -> Result<Booked> {
        self.check_balance()?;
        let account = self.account(&booking.account)?;
        if let Some(entry) = self.books.find_booking(account.num, booking)? {
            if entry.amount != booking.amount {
                return Err(LedgerError::Taken(format!(
                    "reference {:?} is used already, for {} credits",
                    booking.reference, entry.amount
                )));
            }
            let bucket = booking.lot.as_ref().map(|lot| lot.bucket.clone()).unwrap_or_default();
            let paying_debt = Wallet::granted(&bucket, entry.amount, entry.balance_after);
            let expected = [Split::whole(bucket, entry.amount), paying_debt];
            if booking.kind == EntryKind::Grant && !expected.contains(&entry.split) {
                let message =
                    format!("reference {:?} is used already, for another bucket", booking.reference);
                return Err(LedgerError::Taken(message));
            }
            let booked = Booked { entry, repeated: true };
            let notes = notes(&booked);
            if !notes.is_empty() {
                self.books.note(&notes, self.clock.wall())?;
            }
            return Ok(booked);
        }
        if account.state == AccountState::Closed {
            return Err(LedgerError::Refused(format!("account {} was deleted", account.id)));
        }
        let booked = match booking.amount.is_negative() {
            true => self.take(&account, booking, notes),
            false => self.grant(&account, booking, notes),
        };
        if account.wallet.is_some() || booking.lot.is_some() {
            self.show_buckets([account.num]);
        }
        booked
    }

    fn grant(&mut self, account: &AccountRow, booking: &Booking, notes: &Notes<Booked>) -> Result<Booked> {
        let purse = self.purse(account);
        let after = purse.available().checked_add(booking.amount);
        if after.is_none_or(|after| after > MAX_BALANCE) {
            let message = format!("a balance is at most {MAX_BALANCE} credits");
            return Err(LedgerError::Refused(message));
        }
        if let Some(terms) = booking.lot.as_ref().filter(|terms| !terms.is_rest()) {
            let wallet = self.books.wallet(account.num)?;
            if wallet.lots.len() >= MAX_LOTS && wallet.lot_of(terms).is_none() {
                let message =
                    format!("account {} has {MAX_LOTS} grants that expire at different times", account.id);
                return Err(LedgerError::Refused(message));
            }
        }
        let entry = self.books.book(account, booking, notes, self.clock.wall())?;
        self.return_withheld();
        purse.receive(entry.amount);
        Ok(Booked { entry, repeated: false })
    }

    /// Books an adjustment that takes credits away, in an order in which no crash can overspend the account (promise
    /// 2).
    fn take(&mut self, account: &AccountRow, booking: &Booking, notes: &Notes<Booked>) -> Result<Booked> {
        let purse = self.purse(account);
        // First subtract the credits in memory, so that no request spends them in the meantime.
        let amount = Credits::ZERO.checked_sub(booking.amount).unwrap_or(Credits::MAX);
        let caps = booking.key.map(|key| self.shared.caps_of(key, Some(&purse))).unwrap_or_default();
        let lessees = caps.all().map(|(_, cap)| Arc::clone(cap) as _).chain([Arc::clone(&purse) as _]);
        self.gather(&lessees.map(|lessee| (lessee, amount)).collect::<Vec<_>>())?;
        caps.try_take(amount).map_err(|capped| {
            LedgerError::Insufficient(format!("the {}'s spending limit is reached", capped.name()))
        })?;
        if !purse.try_take(amount) {
            caps.change(amount);
            let available = purse.available();
            let message = format!("account {} has only {available} credits available", account.id);
            return Err(LedgerError::Insufficient(message));
        }
        // Then wait until the settlements that returned the credits are on disk: if a crash left the booking without
        // them, the account would be overspent.
        self.wait_until_written().inspect_err(|_| {
            purse.give(amount);
            caps.change(amount);
        })?;
        match self.books.book(account, booking, notes, self.clock.wall()) {
            Ok(entry) => {
                self.return_withheld();
                Ok(Booked { entry, repeated: false })
            }
            // It may be booked: the credits stay unavailable until the next start.
            Err(error @ LedgerError::Uncertain(_)) => Err(error),
            Err(error) => {
                // The booking may still be found after a crash, so these credits stay unavailable until a later commit
                // succeeds.
                self.withheld.push((purse, caps, amount));
                Err(error)
            }
        }
    }

    /// Leases credits that are to be taken from purses. Other gateways of a fleet return what they do not need.
    pub(super) fn gather(&self, wanted: &[(Arc<dyn Lessee>, Credits)]) -> Result<()> {
        let leased = self.shared.desk.as_ref().map_or(Ok(()), |desk| desk.lease_now(wanted));
        leased.map_err(|error| LedgerError::Failed(error.to_string()))
    }

    /// True if gateways of a fleet lease credits.
    pub(super) fn is_leased(&self) -> bool {
        self.shared.desk.is_some()
    }

    /// Returns the credits of failed bookings to their purses, after a commit has succeeded: a crash can no longer find
    /// those bookings.
    pub(super) fn return_withheld(&mut self) {
        for (purse, caps, amount) in self.withheld.drain(..) {
            purse.give(amount);
            caps.change(amount);
        }
    }

    /// Makes sure that failed bookings were not written, and returns their credits.
    pub(super) fn confirm(&mut self) -> Result<()> {
        if !self.withheld.is_empty() {
            self.books.confirm()?;
            self.return_withheld();
        }
        Ok(())
    }

    pub(in crate::ledger) fn give_back(
        &mut self,
        id: RequestId,
        actor: &str,
        notes: &Notes<Booked>,
    ) -> Result<Booked> {
        self.check_balance()?;
        let booked = self.books.give_back(id, actor, notes, self.clock.wall())?;
        if !booked.repeated {
            let account = self.account(&booked.entry.account)?;
            let purse = self.purse(&account);
            purse.receive(booked.entry.amount);
            purse.cap().iter().for_each(|cap| cap.receive(booked.entry.amount));
            if account.wallet.is_some() {
                self.show_buckets([account.num]);
            }
            // The booking is made: if the key cannot be read now, its caps are lower until the next start.
            if let Ok(caps) = self.caps_of(booked.entry.key) {
                caps.all().for_each(|(_, cap)| cap.receive(booked.entry.amount));
            }
        }
        Ok(booked)
    }

    fn caps_of(&self, key: Option<KeyId>) -> Result<KeyCaps> {
        let Some(key) = key.filter(|_| !self.shared.caps.is_empty()) else { return Ok(KeyCaps::NONE) };
        let row = self.books.reader()?.key(key)?;
        Ok(row.map(|(row, _)| self.shared.caps.get(row.num)).unwrap_or_default())
    }

    pub(in crate::ledger) fn create_keys(
        &mut self,
        rows: &[KeyRow],
        notes: &Notes<Vec<KeyNum>>,
    ) -> Result<Vec<KeyNum>> {
        let numbers = self.books.create_keys(rows, notes, self.clock.wall())?;
        for (row, num) in rows.iter().zip(&numbers) {
            let own = self.new_cap(LeaseOf::Key(*num), &row.spending)?;
            self.shared.caps.set(*num, KeyCaps { own, group: self.group_cap(row) });
        }
        Ok(numbers)
    }

    fn group_cap(&self, row: &KeyRow) -> Option<Arc<SpendCap>> {
        self.shared.caps.group(&(row.account, row.group.clone()?))
    }

    /// Changes a key. What it has in flight when it gets its first spending limit, or is put in another group, counts there
    /// once it is charged.
    pub(in crate::ledger) fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        notes: &Notes<Changed<OwnedKey>>,
    ) -> Result<Changed<OwnedKey>> {
        if matches!(edit.change, KeyChange::Terms(_)) {
            self.fold()?; // so that the row says what the key has spent, and its group
        }
        let changed = self.books.change_key(id, edit, notes, self.clock.wall())?;
        let (before, row) = (&changed.before.0.spending, &changed.after.0);
        let known = self.shared.caps.get(row.num);
        let (old_left, limit) = (before.left(), row.spending.limit.zip(row.spending.left()));
        let own = match (limit, known.own.clone().zip(old_left)) {
            (None, _) => None,
            (Some(_), None) => {
                let cap = self.new_cap(LeaseOf::Key(row.num), &row.spending)?;
                let held = self.returning(|hold| hold.key == row.num);
                cap.iter().for_each(|cap| cap.change(Credits::ZERO.checked_sub(held).unwrap_or_default()));
                cap
            }
            (Some((limit, new)), Some((cap, old))) => {
                cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                self.shared.return_lease(&cap);
                Some(cap)
            }
        };
        let caps = KeyCaps { own, group: self.group_cap(row) };
        if changed.before.0.group != row.group {
            let returning = self.returning(|hold| hold.key == row.num);
            known.group.iter().for_each(|cap| cap.change(returning));
            let taken = Credits::ZERO.checked_sub(returning).unwrap_or_default();
            caps.group.iter().for_each(|cap| cap.change(taken));
        }
        self.shared.caps.set(row.num, caps);
        Ok(changed)
    }

    /// The credits of open holds that return to a new cap when they are settled, and must be taken from it.
    pub(super) fn returning(&self, is_wanted: impl Fn(&OpenHold) -> bool) -> Credits {
        let returns = |hold: &&OpenHold| hold.kept.is_some() || self.adopted.contains(&hold.id);
        let held = self.tally.open_holds().filter(returns).filter(|hold| is_wanted(hold));
        held.fold(Credits::ZERO, |sum, hold| sum.checked_add(hold.amount).unwrap_or(sum))
    }
}
