//! Defines the data of the in-memory store and its changes.

use crate::ledger::entry::{Entry, EntryKind, Link};
use crate::ledger::store::{
    AccountRow, AccountState, Doubt, JournalRow, KeyChange, KeyRow, LedgerError, Result, SecretRow, Source,
};
use crate::ledger::tally::OpenHold;
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, KeyId, KeyNum, RouteName, RouteNum, StatusClass, WallTime,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    pub(super) accounts: Vec<AccountRow>,
    pub(super) keys: Vec<KeyRow>,
    pub(super) routes: Vec<RouteName>,
    pub(super) entries: Vec<Entry>,
    pub(super) folded: u64,
    pub(super) epoch: u32,
    pub(super) journal: Vec<JournalRow>,
    pub(super) open_holds: Vec<OpenHold>,
    pub(super) in_doubt: Vec<Doubt>,
    pub(super) limits: Vec<(Vec<u8>, Vec<u8>, WallTime)>,
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

pub(super) fn refused<T>(message: String) -> Result<T> {
    Err(LedgerError::Refused(message))
}

/// A new entry, without the number, time, balance and link that it gets when it is added.
pub(super) struct NewEntry {
    pub(super) kind: EntryKind,
    pub(super) amount: Credits,
    pub(super) key: Option<KeyId>,
    pub(super) route: Option<String>,
    pub(super) outcome: Option<StatusClass>,
    pub(super) requests: u64,
    pub(super) reference: Option<String>,
    pub(super) actor: &'static str,
}

impl Data {
    pub(super) fn account_at(&self, num: AccountNum) -> usize {
        num.0 as usize - 1
    }

    pub(super) fn key(&self, num: KeyNum) -> Option<KeyId> {
        self.keys.get((num.0 as usize).checked_sub(1)?).map(|row| row.id)
    }

    pub(super) fn route(&self, num: RouteNum) -> String {
        self.routes.get(num.0 as usize - 1).map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn add_entry(&mut self, account: AccountNum, at: WallTime, new: NewEntry) -> Result<Entry> {
        let index = self.account_at(account);
        let row = &mut self.accounts[index];
        let overflow = || LedgerError::Failed("a balance overflows".to_owned());
        row.balance = row.balance.checked_add(new.amount).ok_or_else(overflow)?;
        let mut entry = Entry {
            number: row.entries + 1,
            at,
            account: row.id.clone(),
            kind: new.kind,
            amount: new.amount,
            balance_after: row.balance,
            bucket: None,
            key: new.key,
            route: new.route,
            outcome: new.outcome,
            requests: new.requests,
            reference: new.reference,
            actor: new.actor.to_owned(),
            link: row.link,
        };
        entry.link = entry.link_after(&row.link);
        (row.entries, row.link) = (entry.number, entry.link);
        self.entries.push(entry.clone());
        Ok(entry)
    }

    pub(super) fn find_account(&self, id: &AccountId) -> Option<&AccountRow> {
        self.accounts.iter().find(|row| row.id == *id)
    }

    pub(super) fn with_owner(&self, row: &KeyRow) -> (KeyRow, AccountId) {
        (row.clone(), self.accounts[self.account_at(row.account)].id.clone())
    }

    pub(super) fn new_account(
        &mut self,
        id: &AccountId,
        plan: Option<&str>,
        source: Source,
        opening: Option<Credits>,
    ) -> AccountNum {
        let num = AccountNum(number(self.accounts.len()));
        self.accounts.push(AccountRow {
            id: id.clone(),
            num,
            balance: Credits::ZERO,
            plan: plan.map(str::to_owned),
            state: AccountState::Active,
            source,
            opening,
            entries: 0,
            link: Link::default(),
        });
        num
    }

    pub(super) fn register_account(
        &mut self,
        id: &AccountId,
        opening: Option<Credits>,
        at: WallTime,
    ) -> Result<AccountRow> {
        let num = match self.accounts.iter_mut().find(|row| row.id == *id) {
            Some(row) => {
                row.source = Source::File;
                row.num
            }
            None => {
                let num = self.new_account(id, None, Source::File, opening);
                if let Some(amount) = opening.filter(|amount| !amount.is_zero()) {
                    let (kind, reference) = (EntryKind::Grant, Some("opening".to_owned()));
                    let (key, route, outcome, actor) = (None, None, None, "file");
                    let new = NewEntry { kind, amount, key, route, outcome, requests: 0, reference, actor };
                    self.add_entry(num, at, new)?;
                }
                num
            }
        };
        Ok(self.accounts[self.account_at(num)].clone())
    }

    pub(super) fn register_key(
        &mut self,
        id: KeyId,
        account: &AccountId,
        label: &str,
        at: WallTime,
    ) -> Result<(KeyNum, KeyState)> {
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

    pub(super) fn create_key(&mut self, row: &KeyRow) -> Result<KeyNum> {
        let known = |secret: &SecretRow| {
            self.keys.iter().any(|row| row.secrets.iter().any(|other| other.hash == secret.hash))
        };
        if self.keys.iter().any(|other| other.id == row.id) || row.secrets.iter().any(known) {
            return refused("a key with this hash exists already".to_owned());
        }
        let num = KeyNum(number(self.keys.len()));
        self.keys.push(KeyRow { num, ..row.clone() });
        Ok(num)
    }

    pub(super) fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()> {
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
                refused(format!("{id} is defined in the configuration file"))
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
