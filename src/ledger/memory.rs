//! Implements a ledger store in memory: the model that the stores in SQL are compared with in tests.
//!
//! Written for simplicity, not speed: vectors with linear search. Its data survives the handle, as a file would, so
//! that tests can simulate a crash and reopen it.

mod credits;
mod data;
pub(in crate::ledger) mod keys;
mod lots;
mod reader;
mod requests;
mod usage;

use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, EntryKind};
use super::store::{
    AccountChange, AccountRow, Begun, Booked, Booking, Books, Changed, Doubt, GroupRow, Journal, JournalRow,
    KeyEdit, KeyRow, LedgerError, LoadedBooks, LotEnd, NewAccount, Note, Notes, OwnedKey, Place, Readers,
    RefillBooking, Registered, Registration, Result, Storage, TokenRow, UsageRetention, no_notes,
};
use super::tally::{ChargeKey, Fold, OpenHold};
use crate::policy::credit::{LotId, SpendLimit, Spending, Wallet};
use crate::policy::outcome::usage::UsagePart;
use crate::types::{AccountId, AccountNum, Credits, GroupName, KeyId, KeyNum, RequestId, RouteNum, WallTime};
use data::{Data, NewEntry, number};

/// A store in memory. Clones share the same data.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Data>>);

impl MemoryStore {
    /// Books and journal, which share the data with this store.
    #[must_use]
    pub fn storage(&self) -> Storage {
        Storage { books: Box::new(self.clone()), journal: Box::new(self.clone()), leases: None }
    }

    /// Makes a change and adds its notes: all of it, or nothing.
    fn change<T>(
        &mut self,
        notes: &Notes<T>,
        at: WallTime,
        work: impl FnOnce(&mut Data) -> Result<T>,
    ) -> Result<T> {
        let mut data = self.0.lock();
        let mut next = data.clone();
        let done = work(&mut next)?;
        next.note(notes(&done), at)?;
        *data = next;
        Ok(done)
    }
}

impl Journal for MemoryStore {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        Ok(self.0.lock().journal.iter().filter(|(seq, ..)| *seq > folded).cloned().collect())
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        self.0.lock().journal.push((seq, at, records.to_vec()));
        Ok(())
    }

    fn reset(&mut self, upto: u64) {
        self.0.lock().journal.retain(|(seq, ..)| *seq > upto);
    }
}

impl Books for MemoryStore {
    fn load(&mut self, _at: WallTime) -> Result<LoadedBooks> {
        let mut data = self.0.lock();
        data.epoch += 1;
        let (open_holds, folded, epoch) = (data.open_holds.clone(), data.folded, data.epoch);
        let settled = data.jobs.iter().map(|job| (job.hold.account, job.external_id.clone()));
        let (settled_jobs, ended) = (settled.collect(), data.ended_lots());
        let lists_requests = data.requests.listed_since.is_some();
        Ok(LoadedBooks { open_holds, folded, epoch, settled_jobs, ended, lists_requests })
    }

    fn confirm(&mut self) -> Result<()> {
        Ok(())
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let mut data = self.0.lock();
        if !fold.charges.is_empty() && fold.upto <= data.folded {
            return Err(LedgerError::Failed("these batches stand in the entries already".to_owned()));
        }
        for &(ChargeKey { account, key, route, outcome, held }, sum) in &fold.charges {
            let amount = Credits::from_millionths(-sum.amount.millionths());
            let both = [
                (EntryKind::Charge, amount, sum.requests),
                (EntryKind::Release, Credits::ZERO, sum.released),
            ];
            for (kind, amount, requests) in both.into_iter().filter(|(.., requests)| *requests > 0) {
                let (key, route) = (data.key(key), Some(data.route(route)));
                let (outcome, actor) = (Some(outcome), "requests");
                let (reference, place) = (None, Place::Any(held));
                let new = NewEntry { kind, amount, key, route, outcome, requests, reference, actor, place };
                data.add_entry(account, at, new)?;
            }
        }
        let stored_anew = |hold: &OpenHold| fold.opened.iter().any(|opened| opened.id == hold.id);
        data.open_holds.retain(|hold| !fold.closed.contains(&hold.id) && !stored_anew(hold));
        data.open_holds.extend(fold.opened.iter().cloned());
        data.jobs.extend(fold.jobs.iter().cloned());
        data.requests.change_claims(&fold.claims);
        data.requests.add(&fold.requests);
        for hold in &fold.doubts {
            let key = data.key(hold.key);
            let account = data.accounts[data.account_at(hold.account)].id.clone();
            let route = data.route(hold.route);
            let (id, amount) = (hold.id, hold.amount);
            data.in_doubt.push(Doubt {
                id,
                account,
                key: key.unwrap_or(KeyId(0)),
                route: route.clone(),
                amount,
                at: hold.at,
                given_back: None,
            });
            let amount = Credits::from_millionths(-amount.millionths());
            let (kind, reference) = (EntryKind::InDoubt, Some(id.to_string()));
            let (route, outcome, actor) = (Some(route), None, "recovery");
            let place = Place::Any(Some(hold.at));
            let new = NewEntry { kind, amount, key, route, outcome, requests: 1, reference, actor, place };
            data.add_entry(hold.account, at, new)?;
        }
        data.folded = fold.upto;
        Ok(())
    }

    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered> {
        let mut data = self.0.lock();
        let mut next = data.clone();
        let mut registered = Registered::default();
        next.register_credits(wanted, at);
        wanted.lists_requests.into_iter().for_each(|lists| next.requests.list(lists, at));
        for account in &wanted.accounts {
            registered.accounts.push(next.register_account(account, at)?);
        }
        for (id, account, label) in &wanted.keys {
            registered.keys.push(next.register_key(*id, account, label, at)?);
        }
        for name in &wanted.routes {
            let known = next.routes.iter().position(|route| route == name);
            let at = known.unwrap_or_else(|| {
                next.routes.push(name.clone());
                next.routes.len() - 1
            });
            registered.routes.push(RouteNum(number(at)));
        }
        *data = next;
        Ok(registered)
    }

    fn create_accounts(
        &mut self,
        new: &[NewAccount],
        notes: &Notes<Vec<AccountRow>>,
        at: WallTime,
    ) -> Result<Vec<AccountRow>> {
        self.change(notes, at, |data| new.iter().map(|new| data.create_account(new, at)).collect())
    }

    fn change_account(
        &mut self,
        id: &AccountId,
        change: &AccountChange,
        notes: &Notes<Changed<AccountRow>>,
        at: WallTime,
    ) -> Result<Changed<AccountRow>> {
        self.change(notes, at, |data| data.change_account(id, change))
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        let data = self.0.lock();
        Ok(data.find_account(id).map(|row| data.account_row(row.num)))
    }

    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>> {
        let data = self.0.lock();
        let id = &data.accounts[data.account_at(account)].id;
        let reference = Some(&booking.reference);
        let same = |entry: &&Entry| {
            entry.account == *id && entry.kind == booking.kind && entry.reference.as_ref() == reference
        };
        Ok(data.entries.iter().find(same).cloned())
    }

    fn book(
        &mut self,
        account: &AccountRow,
        booking: &Booking,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Entry> {
        let booked = self.change(notes, at, |data| {
            data.book(account.num, booking, at).map(|entry| Booked { entry, repeated: false })
        });
        booked.map(|booked| booked.entry)
    }

    fn wallet(&mut self, account: AccountNum) -> Result<Wallet> {
        Ok(self.0.lock().wallet(account))
    }

    fn due_lots(&mut self, now: WallTime, most: usize) -> Result<Vec<(AccountNum, LotId)>> {
        Ok(self.0.lock().due_lots(now, most))
    }

    fn ended_lots(&mut self) -> Result<Vec<(AccountNum, WallTime)>> {
        Ok(self.0.lock().ended_lots())
    }

    fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
        at: WallTime,
    ) -> Result<Vec<(AccountNum, Spending, Spending)>> {
        Ok(self.0.lock().limit_accounts(limits, at))
    }

    fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        notes: &Notes<Changed<Option<GroupRow>>>,
        at: WallTime,
    ) -> Result<Changed<Option<GroupRow>>> {
        self.change(notes, at, |data| data.change_group(account, name, limit, at))
    }

    fn begin_periods(&mut self, now: WallTime, most: usize) -> Result<Begun> {
        Ok(self.0.lock().begin_periods(now, most))
    }

    fn end_lots(&mut self, ends: &[LotEnd], at: WallTime) -> Result<()> {
        self.change(&no_notes(), at, |data| data.end_lots(ends, at))
    }

    fn refill(&mut self, refills: &[RefillBooking], at: WallTime) -> Result<()> {
        self.change(&no_notes(), at, |data| refills.iter().try_for_each(|refill| data.refill(refill, at)))
    }

    fn create_keys(
        &mut self,
        rows: &[KeyRow],
        notes: &Notes<Vec<KeyNum>>,
        at: WallTime,
    ) -> Result<Vec<KeyNum>> {
        self.change(notes, at, |data| rows.iter().map(|row| data.create_key(row)).collect())
    }

    fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        notes: &Notes<Changed<OwnedKey>>,
        at: WallTime,
    ) -> Result<Changed<OwnedKey>> {
        self.change(notes, at, |data| data.change_key(id, edit, at))
    }

    fn give_back(
        &mut self,
        id: RequestId,
        actor: &str,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Booked> {
        self.change(notes, at, |data| data.give_back(id, actor, at))
    }

    fn put_token(&mut self, token: &TokenRow, notes: &Notes<TokenRow>, at: WallTime) -> Result<()> {
        let put = |data: &mut Data| {
            let mut next = token.clone();
            if let Some(known) = data.tokens.iter().find(|other| other.name == token.name) {
                let is_new = token.last_used.is_none() && token.revoked.is_none();
                if known.hash != token.hash && !is_new {
                    return Ok(next); // it is about one that was replaced
                }
                next.revoked = known.revoked.filter(|_| known.hash == token.hash).or(token.revoked);
            }
            data.tokens.retain(|other| other.name != token.name);
            data.tokens.push(next);
            data.tokens.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(token.clone())
        };
        self.change(notes, at, put).map(drop)
    }

    fn note(&mut self, notes: &[Note], at: WallTime) -> Result<()> {
        self.change(&no_notes(), at, |data| data.note(notes.to_vec(), at))
    }

    fn prune_jobs(&mut self, before: WallTime) -> Result<()> {
        self.0.lock().jobs.retain(|job| job.at >= before);
        Ok(())
    }

    fn prune_repeats(&mut self, now: WallTime, most: usize) -> Result<bool> {
        Ok(self.0.lock().requests.prune_repeats(now, most))
    }

    fn prune_requests(&mut self, before: WallTime, most: usize) -> Result<bool> {
        Ok(self.0.lock().requests.prune_requests(before, most))
    }

    fn prune_answers(&mut self, before: WallTime) -> Result<()> {
        self.0.lock().answers.retain(|(_, at)| *at >= before);
        Ok(())
    }

    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()> {
        let mut data = self.0.lock();
        for (owner, state) in states {
            data.limits.retain(|(other, ..)| other != owner);
            if !state.is_empty() {
                data.limits.push((owner.clone(), state.clone(), at));
            }
        }
        Ok(())
    }

    fn count_usage(&mut self, parts: &[UsagePart]) -> Result<()> {
        self.0.lock().count_usage(parts);
        Ok(())
    }

    fn prune_usage(&mut self, keep: &UsageRetention, _most: usize) -> Result<bool> {
        self.0.lock().prune_usage(keep);
        Ok(false)
    }

    fn readers(&self) -> Readers {
        let store = self.clone();
        Readers::new(move || Ok(Box::new(store.clone())))
    }
}
