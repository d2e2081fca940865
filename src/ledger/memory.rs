//! The ledger in memory: the model that the SQLite store is compared with.
//!
//! Written for obviousness, not speed: vectors that are searched. What it holds outlives the
//! store, as a file would, so that tests can crash and reopen.

mod data;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, EntryKind, Sides};
use super::fold::{Fold, Folded, Part};
use super::store::{
    AccountRow, AccountState, Booked, Booking, Books, Doubt, EachLimit, KeyChange, KeyRow, LedgerError,
    Reader, Registered, Registration, Result, SecretRow, Source, Store, StoredSecret,
};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteNum, WallTime};
use data::{Data, NewEntry, number, refused};

/// A store in memory; clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Data>>);

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Books> {
        let data = self.0.lock();
        Ok(Books { open_holds: data.open_holds.clone(), folded: data.folded, journal: data.journal.clone() })
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        self.0.lock().journal.push((seq, at, records.to_vec()));
        Ok(())
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let mut data = self.0.lock();
        if fold.through.is_some() && data.folded.part.is_some_and(|part| part.upto != fold.upto) {
            return Err(LedgerError::Failed("another fold is not finished".to_owned()));
        }
        if !fold.charges.is_empty() && fold.upto <= data.folded.upto {
            return Err(LedgerError::Failed("these batches stand in the entries already".to_owned()));
        }
        for &((account, route), sum) in &fold.charges {
            let amount = Credits::from_millionths(-sum.amount.millionths());
            let both = [
                (EntryKind::Charge, amount, sum.requests),
                (EntryKind::Release, Credits::ZERO, sum.released),
            ];
            for (kind, amount, requests) in both.into_iter().filter(|(.., requests)| *requests > 0) {
                let route = Some(data.route(route));
                let new = NewEntry { kind, amount, route, requests, reference: None, actor: "requests" };
                data.add_entry(account, at, new)?;
            }
        }
        data.open_holds.retain(|hold| !fold.closed.contains(&hold.id));
        data.open_holds.extend(&fold.opened);
        for hold in &fold.doubts {
            let key = data.keys.get(hold.key.0 as usize - 1).map_or(KeyId(0), |row| row.id);
            let account = data.accounts[data.account_at(hold.account)].id.clone();
            let route = data.route(hold.route);
            let (id, amount) = (hold.id, hold.amount);
            data.in_doubt.push(Doubt {
                id,
                account,
                key,
                route: route.clone(),
                amount,
                at: hold.at,
                given_back: None,
            });
            let amount = Credits::from_millionths(-amount.millionths());
            let (kind, reference) = (EntryKind::InDoubt, Some(id.to_string()));
            let new =
                NewEntry { kind, amount, route: Some(route), requests: 1, reference, actor: "recovery" };
            data.add_entry(hold.account, at, new)?;
        }
        let upto = fold.upto;
        match fold.through {
            Some(through) => data.folded.part = Some(Part { upto, through }),
            None => {
                data.folded = Folded { upto, part: None };
                data.journal.retain(|(seq, ..)| *seq > upto);
            }
        }
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
            route: None,
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
        let (kind, route) = (EntryKind::GivenBack, Some(doubt.route));
        let new = NewEntry { kind, amount: doubt.amount, route, requests: 1, reference, actor: "command" };
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

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(self.clone()))
    }
}

impl Reader for MemoryStore {
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

    fn entries(&mut self, account: Option<&AccountId>, after: u64, most: usize) -> Result<Vec<Entry>> {
        let data = self.0.lock();
        let wanted = |entry: &&Entry| entry.id > after && account.is_none_or(|id| entry.account == *id);
        Ok(data.entries.iter().filter(wanted).take(most).cloned().collect())
    }

    fn sides(&mut self) -> Result<Sides> {
        let mut sides = Sides::default();
        self.0.lock().entries.iter().for_each(|entry| sides.take(entry.kind, entry.amount));
        Ok(sides)
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        Ok(self.0.lock().in_doubt.clone())
    }

    fn backup(&mut self, to: &Path) -> Result<bool> {
        refused(format!("a ledger in memory is not copied to {}", to.display()))
    }
}
