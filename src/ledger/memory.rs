//! Implements a ledger store in memory: the model that the SQLite store is compared with in tests.
//!
//! Written for simplicity, not speed: vectors with linear search. Its data survives the handle, as a file would, so
//! that tests can simulate a crash and reopen it.

mod data;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, EntryKind, OperatorBalances};
use super::store::{
    AccountRow, AccountState, Booked, Booking, Books, BooksReader, Doubt, EachLimit, Journal, JournalRow,
    KeyChange, KeyRow, LedgerError, LoadedBooks, Position, Registered, Registration, Result, SecretRow,
    Source, Storage, StoredSecret,
};
use super::tally::{ChargeKey, Fold, OpenHold};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, WallTime};
use data::{Data, NewEntry, number, refused};

/// A store in memory. Clones share the same data.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Data>>);

impl MemoryStore {
    /// Books and journal, which share the data with this store.
    #[must_use]
    pub fn storage(&self) -> Storage {
        Storage { books: Box::new(self.clone()), journal: Box::new(self.clone()) }
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
        Ok(LoadedBooks { open_holds: data.open_holds.clone(), folded: data.folded, epoch: data.epoch })
    }

    fn confirm(&mut self) -> Result<()> {
        Ok(())
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let mut data = self.0.lock();
        if !fold.charges.is_empty() && fold.upto <= data.folded {
            return Err(LedgerError::Failed("these batches stand in the entries already".to_owned()));
        }
        for &(ChargeKey { account, key, route, outcome }, sum) in &fold.charges {
            let amount = Credits::from_millionths(-sum.amount.millionths());
            let both = [
                (EntryKind::Charge, amount, sum.requests),
                (EntryKind::Release, Credits::ZERO, sum.released),
            ];
            for (kind, amount, requests) in both.into_iter().filter(|(.., requests)| *requests > 0) {
                let (key, route) = (data.key(key), Some(data.route(route)));
                let (outcome, actor) = (Some(outcome), "requests");
                let new = NewEntry { kind, amount, key, route, outcome, requests, reference: None, actor };
                data.add_entry(account, at, new)?;
            }
        }
        let stored_anew = |hold: &OpenHold| fold.opened.iter().any(|opened| opened.id == hold.id);
        data.open_holds.retain(|hold| !fold.closed.contains(&hold.id) && !stored_anew(hold));
        data.open_holds.extend(fold.opened.iter().cloned());
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
            let new = NewEntry { kind, amount, key, route, outcome, requests: 1, reference, actor };
            data.add_entry(hold.account, at, new)?;
        }
        data.folded = fold.upto;
        Ok(())
    }

    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered> {
        let mut data = self.0.lock();
        let mut next = data.clone();
        let mut registered = Registered::default();
        for (id, opening) in &wanted.accounts {
            registered.accounts.push(next.register_account(id, *opening, at)?);
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

    fn create_account(&mut self, id: &AccountId, plan: Option<&str>, _at: WallTime) -> Result<AccountRow> {
        let mut data = self.0.lock();
        if data.find_account(id).is_some() {
            return refused(format!("account {id} exists already"));
        }
        let num = data.new_account(id, plan, Source::Store, None);
        Ok(data.accounts[data.account_at(num)].clone())
    }

    fn set_account_state(&mut self, id: &AccountId, state: AccountState) -> Result<()> {
        let mut data = self.0.lock();
        match data.accounts.iter_mut().find(|row| row.id == *id) {
            Some(row) => {
                row.state = state;
                Ok(())
            }
            None => refused(format!("there is no account {id}")),
        }
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        Ok(self.0.lock().find_account(id).cloned())
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

    fn book(&mut self, account: &AccountRow, booking: &Booking, at: WallTime) -> Result<Entry> {
        let new = NewEntry {
            kind: booking.kind,
            amount: booking.amount,
            key: None,
            route: None,
            outcome: None,
            requests: 0,
            reference: Some(booking.reference.clone()),
            actor: booking.actor,
        };
        self.0.lock().add_entry(account.num, at, new)
    }

    fn create_keys(&mut self, rows: &[KeyRow]) -> Result<Vec<KeyNum>> {
        let mut data = self.0.lock();
        let mut next = data.clone();
        let numbers = rows.iter().map(|row| next.create_key(row)).collect::<Result<_>>()?;
        *data = next;
        Ok(numbers)
    }

    fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()> {
        self.0.lock().change_key(id, change)
    }

    fn give_back(&mut self, id: RequestId, at: WallTime) -> Result<Booked> {
        let mut data = self.0.lock();
        let Some(index) = data.in_doubt.iter().position(|doubt| doubt.id == id) else {
            return refused(format!("no hold in doubt has the id {id}"));
        };
        let reference = Some(id.to_string());
        let doubt = data.in_doubt[index].clone();
        if doubt.given_back.is_some() {
            let given = |entry: &&Entry| entry.kind == EntryKind::GivenBack && entry.reference == reference;
            return match data.entries.iter().find(given) {
                Some(entry) => Ok(Booked { entry: entry.clone(), repeated: true }),
                None => refused(format!("{id} was given back without an entry")),
            };
        }
        data.in_doubt[index].given_back = Some(at);
        let account = data.find_account(&doubt.account).map(|row| row.num).unwrap_or_default();
        let (kind, amount) = (EntryKind::GivenBack, doubt.amount);
        let key = data.keys.iter().map(|row| row.id).find(|id| *id == doubt.key);
        let route = Some(doubt.route);
        let (outcome, actor) = (None, "command");
        let new = NewEntry { kind, amount, key, route, outcome, requests: 1, reference, actor };
        let entry = data.add_entry(account, at, new)?;
        Ok(Booked { entry, repeated: false })
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

    fn reader(&self) -> Result<Box<dyn BooksReader>> {
        Ok(Box::new(self.clone()))
    }
}

impl BooksReader for MemoryStore {
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        Ok(self.0.lock().find_account(id).cloned())
    }

    fn accounts(&mut self, after: Option<&AccountId>, most: usize) -> Result<Vec<AccountRow>> {
        let mut rows = self.0.lock().accounts.clone();
        rows.retain(|row| after.is_none_or(|after| row.id > *after));
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        rows.truncate(most);
        Ok(rows)
    }

    fn key(&mut self, id: KeyId) -> Result<Option<(KeyRow, AccountId)>> {
        let data = self.0.lock();
        Ok(data.keys.iter().find(|row| row.id == id).map(|row| data.with_owner(row)))
    }

    fn keys(
        &mut self,
        account: Option<&AccountId>,
        after: KeyNum,
        most: usize,
    ) -> Result<Vec<(KeyRow, AccountId)>> {
        let data = self.0.lock();
        let keys = data.keys.iter().map(|row| data.with_owner(row));
        let wanted =
            |(row, owner): &(KeyRow, AccountId)| row.num > after && account.is_none_or(|id| id == owner);
        Ok(keys.filter(wanted).take(most).collect())
    }

    fn counts(&mut self) -> Result<(usize, usize)> {
        let data = self.0.lock();
        Ok((data.accounts.len(), data.keys.iter().map(|row| row.secrets.len()).sum()))
    }

    fn each_secret(&mut self, each: &mut dyn FnMut(StoredSecret)) -> Result<()> {
        for row in self.0.lock().keys.clone() {
            let KeyRow { id, num, account, state, expires, scopes, allow_from, .. } = row;
            for SecretRow { hash, until } in row.secrets {
                let (scopes, allow_from) = (scopes.clone(), allow_from.clone());
                each(StoredSecret { hash, until, id, num, account, state, expires, scopes, allow_from });
            }
        }
        Ok(())
    }

    fn each_limit(&mut self, each: &mut EachLimit<'_>) -> Result<()> {
        for (owner, state, saved) in self.0.lock().limits.clone() {
            each(&owner, &state, saved);
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        let now = self.0.lock().clone();
        self.0 = Arc::new(Mutex::new(now));
        Ok(())
    }

    fn entries(
        &mut self,
        account: Option<&AccountId>,
        after: Position,
        most: usize,
    ) -> Result<Vec<(Position, Entry)>> {
        let data = self.0.lock();
        let numbered = (1..).zip(&data.entries).filter(|(position, _)| *position > after);
        let wanted = numbered.filter(|(_, entry)| account.is_none_or(|id| entry.account == *id));
        Ok(wanted.take(most).map(|(position, entry)| (position, entry.clone())).collect())
    }

    fn operator_accounts(&mut self) -> Result<OperatorBalances> {
        let mut balances = OperatorBalances::default();
        self.0.lock().entries.iter().for_each(|entry| balances.book(entry.kind, entry.amount));
        Ok(balances)
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        Ok(self.0.lock().in_doubt.clone())
    }

    fn backup(&mut self, to: &Path) -> Result<()> {
        refused(format!("a ledger in memory is not copied to {}", to.display()))
    }
}
