//! Defines the data of the in-memory store and its changes.

use std::collections::BTreeMap;

use super::credits::CreditData;
use super::usage::UsageData;
use crate::ledger::entry::{Entry, EntryKind, Link};
use crate::ledger::store::{
    AccountChange, AccountRow, AccountState, AnswerRow, Audited, Booked, Changed, Doubt, GroupId, JournalRow,
    KeyRow, LedgerError, NewAccount, NewFileAccount, Note, Place, Result, Source, TokenRow,
};
use crate::ledger::tally::{OpenHold, SettledJob};
use crate::policy::credit::Spending;
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId, RouteName, RouteNum, StatusClass, WallTime,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    pub(super) accounts: Vec<AccountRow>,
    pub(super) keys: Vec<KeyRow>,
    pub(super) groups: BTreeMap<GroupId, Spending>,
    /// Their numbers.
    pub(super) group_numbers: BTreeMap<GroupId, u32>,
    pub(super) routes: Vec<RouteName>,
    pub(super) entries: Vec<Entry>,
    pub(super) folded: u64,
    pub(super) epoch: u32,
    pub(super) journal: Vec<JournalRow>,
    pub(super) open_holds: Vec<OpenHold>,
    pub(super) in_doubt: Vec<Doubt>,
    pub(super) jobs: Vec<SettledJob>,
    pub(super) limits: Vec<(Vec<u8>, Vec<u8>, WallTime)>,
    pub(super) audit: Vec<Audited>,
    pub(super) answers: Vec<(AnswerRow, WallTime)>,
    pub(super) tokens: Vec<TokenRow>,
    pub(super) usage: UsageData,
    pub(super) credits: CreditData,
    pub(super) requests: super::requests::RequestData,
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

pub(super) fn refused<T>(message: String) -> Result<T> {
    Err(LedgerError::Refused(message))
}

pub(super) fn taken<T>(message: &str) -> Result<T> {
    Err(LedgerError::Taken(message.to_owned()))
}

/// A new entry, without the number, time, balance and link that it gets when it is added.
pub(super) struct NewEntry<'a> {
    pub(super) kind: EntryKind,
    pub(super) amount: Credits,
    pub(super) key: Option<KeyId>,
    pub(super) route: Option<String>,
    pub(super) outcome: Option<StatusClass>,
    pub(super) requests: u64,
    pub(super) reference: Option<String>,
    pub(super) actor: &'a str,
    pub(super) place: Place<'a>,
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

    pub(super) fn add_entry(
        &mut self,
        account: AccountNum,
        at: WallTime,
        new: NewEntry<'_>,
    ) -> Result<Entry> {
        let index = self.account_at(account);
        let split = self.place(account, new.amount, new.place);
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
            split,
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
        if let Some(key) = self.keys.iter_mut().find(|row| Some(row.id) == entry.key) {
            key.spending.spent = key.spending.spent.checked_sub(entry.amount).unwrap_or_default();
            let group = key.group.clone().and_then(|name| self.groups.get_mut(&(key.account, name)));
            for spending in std::iter::once(&mut self.accounts[index].spending).chain(group) {
                spending.spent = spending.spent.checked_sub(entry.amount).unwrap_or_default();
            }
        }
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
        at: WallTime,
    ) -> AccountNum {
        let num = AccountNum(number(self.accounts.len()));
        self.accounts.push(AccountRow {
            id: id.clone(),
            num,
            balance: Credits::ZERO,
            held: Credits::ZERO,
            plan: plan.map(str::to_owned),
            state: AccountState::Active,
            source,
            opening,
            entries: 0,
            link: Link::default(),
            name: String::new(),
            created: at,
            version: 1,
            wallet: None,
            spending: Spending::default(),
        });
        num
    }

    /// An account, with its credits by lot.
    pub(super) fn account_row(&self, num: AccountNum) -> AccountRow {
        let row = self.accounts[self.account_at(num)].clone();
        AccountRow { wallet: self.has_lots(num).then(|| Box::new(self.wallet(num))), ..row }
    }

    pub(super) fn create_account(&mut self, new: &NewAccount, at: WallTime) -> Result<AccountRow> {
        if self.find_account(&new.id).is_some() {
            return taken("this account exists already");
        }
        let amount = new.opening.as_ref().map(|(amount, _)| *amount);
        let num = self.new_account(&new.id, new.plan.as_deref(), Source::Store, amount, at);
        let index = self.account_at(num);
        self.put_on(num, new.plan.as_deref());
        self.accounts[index].name.clone_from(&new.name);
        if let Some((amount, actor)) = &new.opening {
            self.open(num, *amount, actor, at)?;
        }
        Ok(self.account_row(num))
    }

    /// Books an opening grant.
    fn open(&mut self, account: AccountNum, amount: Credits, actor: &str, at: WallTime) -> Result<()> {
        if amount.is_zero() {
            return Ok(());
        }
        let (kind, reference) = (EntryKind::Grant, Some("opening".to_owned()));
        let (key, route, outcome) = (None, None, None);
        let place = Place::Any(None);
        let new = NewEntry { kind, amount, key, route, outcome, requests: 0, reference, actor, place };
        self.add_entry(account, at, new).map(drop)
    }

    pub(super) fn change_account(
        &mut self,
        id: &AccountId,
        change: &AccountChange,
    ) -> Result<Changed<AccountRow>> {
        let Some(num) = self.find_account(id).map(|row| row.num) else {
            return Err(LedgerError::Unknown(format!("there is no account {id}")));
        };
        let (index, before) = (self.account_at(num), self.account_row(num));
        let row = &mut self.accounts[index];
        let AccountChange { version, name, plan, state } = change.clone();
        let is_closed = state == Some(AccountState::Closed);
        if version.is_some_and(|version| version != row.version) && row.state != AccountState::Closed {
            return Err(LedgerError::Stale("the account was changed".to_owned()));
        }
        let for_file = !is_closed && plan.is_none() && name.is_none();
        if row.state == AccountState::Closed || (row.source == Source::File && !for_file) {
            return refused("this account cannot be changed so".to_owned());
        }
        row.name = name.unwrap_or_else(|| before.name.clone());
        row.plan = plan.unwrap_or_else(|| before.plan.clone());
        row.state = state.unwrap_or(before.state);
        row.version += 1;
        let after = self.account_row(num);
        if is_closed || change.plan.is_some() {
            self.put_on(before.num, after.plan.as_deref().filter(|_| !is_closed));
        }
        if is_closed {
            for key in self.keys.iter_mut().filter(|key| key.account == before.num) {
                key.state = KeyState::Revoked;
                key.secrets.clear();
                key.version += 1;
            }
        }
        Ok(Changed { before, after })
    }

    pub(super) fn register_account(
        &mut self,
        NewFileAccount { id, opening, plan }: &NewFileAccount,
        at: WallTime,
    ) -> Result<AccountRow> {
        let opening = *opening;
        let num = match self.accounts.iter_mut().find(|row| row.id == *id) {
            Some(row) if row.state == AccountState::Closed => {
                return refused(format!("account {id} was deleted"));
            }
            Some(row) => {
                row.source = Source::File;
                row.num
            }
            None => {
                let num = self.new_account(id, None, Source::File, opening, at);
                self.open(num, opening.unwrap_or_default(), "file", at)?;
                num
            }
        };
        self.put_on(num, plan.as_deref());
        Ok(self.account_row(num))
    }

    pub(super) fn give_back(&mut self, id: RequestId, actor: &str, at: WallTime) -> Result<Booked> {
        let Some(index) = self.in_doubt.iter().position(|doubt| doubt.id == id) else {
            return Err(LedgerError::Unknown(format!("no hold in doubt has the id {id}")));
        };
        let reference = Some(id.to_string());
        let doubt = self.in_doubt[index].clone();
        if doubt.given_back.is_some() {
            let given = |entry: &&Entry| entry.kind == EntryKind::GivenBack && entry.reference == reference;
            return match self.entries.iter().find(given) {
                Some(entry) => Ok(Booked { entry: entry.clone(), repeated: true }),
                None => refused(format!("{id} was given back without an entry")),
            };
        }
        self.in_doubt[index].given_back = Some(at);
        let account = self.find_account(&doubt.account).map(|row| row.num).unwrap_or_default();
        let (kind, amount) = (EntryKind::GivenBack, doubt.amount);
        let key = self.keys.iter().map(|row| row.id).find(|id| *id == doubt.key);
        let (route, outcome) = (Some(doubt.route), None);
        let charge = self.entries.iter().find(|entry| {
            entry.kind == EntryKind::InDoubt && entry.reference == reference && entry.account == doubt.account
        });
        let back = charge.map(|entry| entry.split.negated()).unwrap_or_default();
        let place = Place::Back(&back);
        let new = NewEntry { kind, amount, key, route, outcome, requests: 1, reference, actor, place };
        let entry = self.add_entry(account, at, new)?;
        Ok(Booked { entry, repeated: false })
    }

    pub(super) fn note(&mut self, notes: Vec<Note>, at: WallTime) -> Result<()> {
        for note in notes {
            match note {
                Note::Audit(row) => {
                    let number = u64::from(number(self.audit.len()));
                    self.audit.push(Audited { number, at, row });
                }
                Note::Event(_) | Note::User(_) | Note::Payment(_) | Note::Payer(..) => {}
                Note::Answer(row) if self.answers.iter().any(|(other, _)| other.id == row.id) => {
                    return taken("this request was made at the same time");
                }
                Note::Answer(row) => self.answers.push((row, at)),
            }
        }
        Ok(())
    }
}
