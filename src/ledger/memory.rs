//! The ledger in memory: the model that the SQLite store is compared with.
//!
//! Written for obviousness, not speed: vectors that are searched. What it holds outlives the
//! store, as a file would, so that tests can crash and reopen.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fold::{Fold, OpenHold};
use super::store::{
    AccountRow, AccountState, Booked, Booking, Books, Doubt, Entry, EntryKind, KeyChange, KeyRow,
    LedgerError, Reader, Registered, Registration, Result, SecretRow, Source, Store,
};
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteName, RouteNum, WallTime,
};

/// A store in memory; clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Data>>);

#[derive(Clone, Debug, Default)]
struct Data {
    accounts: Vec<AccountRow>,
    keys: Vec<KeyRow>,
    routes: Vec<RouteName>,
    entries: Vec<Entry>,
    journal: Vec<(u64, WallTime, Vec<u8>)>,
    open_holds: Vec<OpenHold>,
    in_doubt: Vec<Doubt>,
    limits: Vec<(Vec<u8>, Vec<u8>, WallTime)>,
}

fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

fn refused<T>(message: String) -> Result<T> {
    Err(LedgerError::Refused(message))
}

/// All of an entry but its id, time and balance.
struct NewEntry {
    kind: EntryKind,
    amount: Credits,
    route: Option<String>,
    requests: u64,
    reference: Option<String>,
    actor: &'static str,
}

impl Data {
    fn account_at(&self, num: AccountNum) -> usize {
        num.0 as usize - 1
    }

    fn route(&self, num: RouteNum) -> String {
        self.routes.get(num.0 as usize - 1).map(ToString::to_string).unwrap_or_default()
    }

    fn add_entry(&mut self, account: AccountNum, at: WallTime, new: NewEntry) -> Result<Entry> {
        let index = self.account_at(account);
        let row = &mut self.accounts[index];
        let overflow = || LedgerError::Failed("a balance overflows".to_owned());
        row.balance = row.balance.checked_add(new.amount).ok_or_else(overflow)?;
        let entry = Entry {
            id: self.entries.len() as u64 + 1,
            at,
            account: row.id.clone(),
            kind: new.kind,
            amount: new.amount,
            balance_after: row.balance,
            route: new.route,
            requests: new.requests,
            reference: new.reference,
            actor: new.actor.to_owned(),
        };
        self.entries.push(entry.clone());
        Ok(entry)
    }

    fn find_account(&self, id: &AccountId) -> Option<&AccountRow> {
        self.accounts.iter().find(|row| row.id == *id)
    }

    fn new_account(&mut self, id: &AccountId, plan: Option<&str>, source: Source, opening: Option<Credits>) -> AccountNum {
        let num = AccountNum(number(self.accounts.len()));
        self.accounts.push(AccountRow {
            id: id.clone(),
            num,
            balance: Credits::ZERO,
            plan: plan.map(str::to_owned),
            state: AccountState::Active,
            source,
            opening,
        });
        num
    }

    fn register_account(&mut self, id: &AccountId, opening: Option<Credits>, at: WallTime) -> Result<AccountRow> {
        let num = match self.accounts.iter_mut().find(|row| row.id == *id) {
            Some(row) => {
                row.source = Source::File;
                row.num
            }
            None => {
                let num = self.new_account(id, None, Source::File, opening);
                if let Some(amount) = opening.filter(|amount| !amount.is_zero()) {
                    let (kind, reference) = (EntryKind::Grant, Some("opening".to_owned()));
                    let new = NewEntry { kind, amount, route: None, requests: 0, reference, actor: "file" };
                    self.add_entry(num, at, new)?;
                }
                num
            }
        };
        Ok(self.accounts[self.account_at(num)].clone())
    }

    fn register_key(&mut self, id: KeyId, account: &AccountId, label: &str, at: WallTime) -> Result<(KeyNum, KeyState)> {
        let Some(account) = self.find_account(account).map(|row| row.num) else {
            return refused(format!("there is no account {account}"));
        };
        if let Some(row) = self.keys.iter_mut().find(|row| row.id == id) {
            if row.source == Source::Store {
                return refused(format!("{id} was made by command already"));
            }
            row.account = account;
            label.clone_into(&mut row.label);
            return Ok((row.num, row.state));
        }
        let num = KeyNum(number(self.keys.len()));
        self.keys.push(KeyRow {
            id,
            num,
            account,
            source: Source::File,
            state: KeyState::Active,
            label: label.to_owned(),
            environment: String::new(),
            hint: String::new(),
            scopes: None,
            allow_from: None,
            expires: None,
            created: at,
            secrets: Vec::new(),
        });
        Ok((num, KeyState::Active))
    }

    fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()> {
        let hash_known = |keys: &[KeyRow], hash| {
            keys.iter().any(|row| row.secrets.iter().any(|secret| secret.hash == hash))
        };
        let Some(at) = self.keys.iter().position(|row| row.id == id) else {
            return refused(format!("there is no key {id}"));
        };
        if self.keys[at].state == KeyState::Revoked {
            return refused(format!("{id} is revoked; make a new key"));
        }
        let from_file = self.keys[at].source == Source::File;
        match change {
            KeyChange::State(KeyState::Revoked) | KeyChange::Rotate { .. } if from_file => {
                refused(format!("{id} stands in the file"))
            }
            KeyChange::State(state) => {
                self.keys[at].state = *state;
                if *state == KeyState::Revoked {
                    self.keys[at].secrets.clear();
                }
                Ok(())
            }
            KeyChange::Rotate { hash, .. } if hash_known(&self.keys, *hash) => {
                refused("a key with this hash exists already".to_owned())
            }
            KeyChange::Rotate { hash, hint, overlap_until } => {
                let row = &mut self.keys[at];
                row.secrets.retain(|secret| overlap_until.is_some() && secret.until.is_none());
                for secret in &mut row.secrets {
                    secret.until = *overlap_until;
                }
                row.secrets.insert(0, SecretRow { hash: *hash, until: None });
                row.hint.clone_from(hint);
                Ok(())
            }
        }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Books> {
        let data = self.0.lock();
        Ok(Books {
            accounts: data.accounts.clone(),
            keys: data.keys.clone(),
            open_holds: data.open_holds.clone(),
            journal: data.journal.clone(),
            limits: data.limits.clone(),
        })
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        self.0.lock().journal.push((seq, at, records.to_vec()));
        Ok(())
    }

    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()> {
        let mut data = self.0.lock();
        for (&(account, route), sum) in &fold.charges {
            let amount = Credits::from_millionths(-sum.amount.millionths());
            let (kind, route) = (EntryKind::Charge, Some(data.route(route)));
            let new = NewEntry { kind, amount, route, requests: sum.requests, reference: None, actor: "requests" };
            data.add_entry(account, at, new)?;
        }
        data.open_holds.retain(|hold| !fold.closed.contains(&hold.id));
        data.open_holds.extend(&fold.opened);
        for hold in &fold.doubts {
            let key = data.keys.get(hold.key.0 as usize - 1).map_or(KeyId(0), |row| row.id);
            let account = data.accounts[data.account_at(hold.account)].id.clone();
            let route = data.route(hold.route);
            let (id, amount) = (hold.id, hold.amount);
            data.in_doubt.push(Doubt { id, account, key, route: route.clone(), amount, at: hold.at, given_back: None });
            let amount = Credits::from_millionths(-amount.millionths());
            let (kind, reference) = (EntryKind::InDoubt, Some(id.to_string()));
            let new = NewEntry { kind, amount, route: Some(route), requests: 1, reference, actor: "recovery" };
            data.add_entry(hold.account, at, new)?;
        }
        data.journal.retain(|(seq, ..)| *seq > fold.upto);
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

    fn create_key(&mut self, row: &KeyRow) -> Result<KeyNum> {
        let mut data = self.0.lock();
        let known = |secret: &SecretRow| {
            data.keys.iter().any(|row| row.secrets.iter().any(|other| other.hash == secret.hash))
        };
        if data.keys.iter().any(|other| other.id == row.id) || row.secrets.iter().any(known) {
            return refused("a key with this hash exists already".to_owned());
        }
        let num = KeyNum(number(data.keys.len()));
        data.keys.push(KeyRow { num, ..row.clone() });
        Ok(num)
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
    fn accounts(&mut self, id: Option<&AccountId>) -> Result<Vec<AccountRow>> {
        let mut rows = self.0.lock().accounts.clone();
        rows.retain(|row| id.is_none_or(|id| row.id == *id));
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(rows)
    }

    fn keys(&mut self, account: Option<&AccountId>) -> Result<Vec<KeyRow>> {
        let data = self.0.lock();
        let wanted = account.map(|id| data.find_account(id).map(|row| row.num));
        Ok(data.keys.iter().filter(|row| wanted.is_none_or(|num| num == Some(row.account))).cloned().collect())
    }

    fn entries(&mut self, account: Option<&AccountId>, each: &mut dyn FnMut(Entry)) -> Result<()> {
        let entries = self.0.lock().entries.clone();
        entries.into_iter().filter(|entry| account.is_none_or(|id| entry.account == *id)).for_each(each);
        Ok(())
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        Ok(self.0.lock().in_doubt.clone())
    }

    fn backup(&mut self, to: &Path) -> Result<()> {
        refused(format!("a ledger in memory is not copied to {}", to.display()))
    }
}
