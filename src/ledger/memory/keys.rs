//! Changes keys, and groups of keys, in the in-memory store.

use super::data::{Data, number, refused, taken};
use crate::ledger::store::{
    Changed, GroupId, GroupRow, KeyChange, KeyEdit, KeyRow, KeyTerms, LedgerError, MAX_GROUPS, OwnedKey,
    Result, SecretRow, Source,
};
use crate::policy::credit::{SpendLimit, Spending};
use crate::policy::key::KeyState;
use crate::types::{AccountId, AccountNum, GroupName, KeyId, KeyNum, WallTime};

/// An active key without rules and secrets.
pub(in crate::ledger) fn plain_key(id: KeyId, account: AccountNum, created: WallTime) -> KeyRow {
    KeyRow {
        id,
        num: KeyNum(0),
        account,
        source: Source::Store,
        state: KeyState::Active,
        label: String::new(),
        environment: String::new(),
        hint: String::new(),
        scopes: None,
        allow_from: None,
        expires: None,
        limits: None,
        created,
        version: 1,
        last_used: None,
        spending: Spending::default(),
        group: None,
        secrets: Vec::new(),
    }
}

impl Data {
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
        let row = KeyRow { num, source: Source::File, label: label.to_owned(), ..plain_key(id, account, at) };
        self.keys.push(row);
        Ok((num, KeyState::Active))
    }

    pub(super) fn create_key(&mut self, row: &KeyRow) -> Result<KeyNum> {
        let known = |secret: &SecretRow| {
            self.keys.iter().any(|row| row.secrets.iter().any(|other| other.hash == secret.hash))
        };
        if self.keys.iter().any(|other| other.id == row.id) || row.secrets.iter().any(known) {
            return taken("a key with this hash exists already");
        }
        self.check_group(row.account, row.group.as_ref())?;
        let num = KeyNum(number(self.keys.len()));
        self.keys.push(KeyRow { num, version: 1, last_used: None, ..row.clone() });
        Ok(num)
    }

    pub(super) fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        time: WallTime,
    ) -> Result<Changed<OwnedKey>> {
        let Some(at) = self.keys.iter().position(|row| row.id == id) else {
            return Err(LedgerError::Unknown(format!("there is no key {id}")));
        };
        let before = self.with_owner(&self.keys[at]);
        if before.0.state == KeyState::Revoked {
            return refused(format!("{id} is revoked; make a new key"));
        }
        if edit.version.is_some_and(|version| version != before.0.version) {
            return Err(LedgerError::Stale("the key was changed".to_owned()));
        }
        let for_file = matches!(edit.change, KeyChange::State(KeyState::Active | KeyState::Disabled));
        if before.0.source == Source::File && !for_file {
            return refused(format!("{id} is defined in the configuration file"));
        }
        let is_known =
            |hash| self.keys.iter().any(|row| row.secrets.iter().any(|secret| secret.hash == hash));
        match &edit.change {
            KeyChange::Rotate { hash, .. } if is_known(*hash) => {
                return taken("a key with this hash exists already");
            }
            KeyChange::Terms(terms) => self.check_group(before.0.account, terms.group.as_ref())?,
            _ => {}
        }
        let row = &mut self.keys[at];
        match edit.change.clone() {
            KeyChange::State(state) => {
                row.state = state;
                if state == KeyState::Revoked {
                    row.secrets.clear();
                }
            }
            KeyChange::Terms(KeyTerms { label, scopes, allow_from, expires, limits, spend_limit, group }) => {
                (row.label, row.scopes, row.allow_from) = (label, scopes, allow_from);
                (row.expires, row.limits, row.group) = (expires, limits, group);
                row.spending.set_limit(spend_limit, time);
            }
            KeyChange::Rotate { hash, hint, overlap_until } => {
                row.secrets.retain(|secret| overlap_until.is_some() && secret.until.is_none());
                for secret in &mut row.secrets {
                    secret.until = overlap_until;
                }
                row.secrets.insert(0, SecretRow { hash, until: None });
                row.hint = hint;
            }
            KeyChange::EndOverlap => row.secrets.retain(|secret| secret.until.is_none()),
        }
        row.version += 1;
        let after = self.with_owner(&self.keys[at]);
        Ok(Changed { before, after })
    }

    fn check_group(&self, account: AccountNum, group: Option<&GroupName>) -> Result<()> {
        match group {
            Some(name) if !self.groups.contains_key(&(account, name.clone())) => {
                refused(format!("the account has no group {name}"))
            }
            _ => Ok(()),
        }
    }

    /// The group that a key is in.
    pub(super) fn group_of(&self, row: &KeyRow) -> Option<GroupId> {
        row.group.clone().map(|name| (row.account, name))
    }

    pub(super) fn group_row(&self, id: &GroupId) -> Option<GroupRow> {
        let spending = *self.groups.get(id)?;
        let is_in = |row: &&KeyRow| row.state != KeyState::Revoked && self.group_of(row).as_ref() == Some(id);
        let keys = self.keys.iter().filter(is_in).count();
        Some(GroupRow { id: id.clone(), num: *self.group_numbers.get(id)?, spending, keys })
    }

    pub(super) fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        at: WallTime,
    ) -> Result<Changed<Option<GroupRow>>> {
        let Some(account) = self.find_account(account).map(|row| row.num) else {
            return Err(LedgerError::Unknown(format!("there is no account {account}")));
        };
        let id = (account, name.clone());
        let before = self.group_row(&id);
        match (limit, &before) {
            (None, None) => return Err(LedgerError::Unknown(format!("the account has no group {name}"))),
            (None, Some(row)) => {
                row.check_unused()?;
                self.groups.remove(&id);
                self.group_numbers.remove(&id);
                for row in self.keys.iter_mut().filter(|row| row.account == account) {
                    row.group.take_if(|group| group == name);
                }
            }
            (Some(limit), _) => {
                let count = self.groups.keys().filter(|(owner, _)| *owner == account).count();
                if before.is_none() && count >= MAX_GROUPS {
                    return refused(format!("an account has at most {MAX_GROUPS} groups"));
                }
                let next = self.group_numbers.values().max().copied().unwrap_or_default() + 1;
                self.group_numbers.entry(id.clone()).or_insert(next);
                self.groups.entry(id.clone()).or_default().set_limit(Some(limit), at);
            }
        }
        Ok(Changed { before, after: self.group_row(&id) })
    }
}
