//! Writes entries. Each entry changes the balance of its account and of one of the operator's accounts, and is chained
//! to the account's previous entry.

pub(super) mod groups;
pub(super) mod limits;
mod lots;
pub(super) mod refills;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::db::{Connection, Prepared, Row, Transaction, params};

use super::events::{self, Moved};
use super::rows::{account_id, credits, link, to_key_id};
use crate::ledger::entry::{Entry, EntryKind, Link, OperatorAccount, OperatorBalances};
use crate::ledger::store::{Booking, LedgerError, Place, Result};
use crate::policy::credit::{LotId, Split};
use crate::types::{
    AccountId, AccountNum, BucketName, Credits, KeyId, KeyNum, RouteNum, StatusClass, WallTime,
};

pub(super) use lots::{due, ended, load, of_all, register};

use lots::Wallets;

/// An entry that is to be written.
#[derive(Clone, Copy)]
pub(in crate::ledger) struct NewEntry<'a> {
    pub(in crate::ledger) kind: EntryKind,
    pub(in crate::ledger) amount: Credits,
    pub(in crate::ledger) key: Option<KeyNum>,
    pub(in crate::ledger) route: Option<RouteNum>,
    pub(in crate::ledger) outcome: Option<StatusClass>,
    pub(in crate::ledger) requests: u64,
    pub(in crate::ledger) reference: Option<&'a str>,
    pub(in crate::ledger) actor: &'a str,
    pub(in crate::ledger) place: Place<'a>,
}

impl<'a> NewEntry<'a> {
    /// The entry of a booking.
    pub(super) fn of(booking: &'a Booking) -> Self {
        let Booking { kind, amount, reference, actor, key, .. } = booking;
        let place = booking.place();
        Self { key: *key, place, ..Self::booking(*kind, *amount, Some(reference), actor) }
    }

    /// Creates an entry that belongs to no request.
    pub(in crate::ledger) fn booking(
        kind: EntryKind,
        amount: Credits,
        reference: Option<&'a str>,
        actor: &'a str,
    ) -> Self {
        let place = Place::Any(None);
        Self { kind, amount, key: None, route: None, outcome: None, requests: 0, reference, actor, place }
    }
}

/// The statements use no RETURNING, which would build a temporary table for each row in SQLite.
const INSERT: &str =
    "INSERT INTO entries (account, number, at, kind, amount, balance_after, key, route, outcome, requests, reference, actor, link, bucket, node)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
const SELECT: &str = "SELECT num, id, balance, entries, link, lots FROM accounts WHERE num = ?1";
/// The gateways of a fleet fold at the same time.
const LOCK: &str = "SELECT num, id, balance, entries, link, lots FROM accounts WHERE num = ?1 FOR UPDATE";
/// Locks several accounts, in the order in which all gateways do.
const LOCK_SOME: &str = "SELECT num, id, balance, entries, link, lots FROM accounts
    WHERE num = ANY (CAST(string_to_array(?1, ',') AS BIGINT[])) ORDER BY num FOR UPDATE";
const KEYS: &str =
    "SELECT num, id FROM keys WHERE num = ANY (CAST(string_to_array(?1, ',') AS BIGINT[])) ORDER BY num";
/// Most accounts, or keys, that are read by one statement.
const MAX_READ: usize = 10_000;
/// Pays from this gateway's lease.
const PAY: &str = "INSERT INTO spends (account, node, spent) VALUES (?1, ?2, ?3)
                   ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent";
/// The same for what spending limits leave, where there are some: of a key, of its group, and of its account.
const PAY_LIMITS: [&str; 3] = [
    "INSERT INTO spends (account, node, spent) SELECT (CAST(1 AS BIGINT) << 32) + num, ?2, ?3 FROM keys
         WHERE num = ?1 AND spend_limit IS NOT NULL
         ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent",
    "INSERT INTO spends (account, node, spent) SELECT (CAST(2 AS BIGINT) << 32) + spend_group, ?2, ?3 FROM keys
         WHERE num = ?1 AND spend_group IS NOT NULL
         ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent",
    "INSERT INTO spends (account, node, spent) SELECT (CAST(3 AS BIGINT) << 32) + num, ?2, ?3
         FROM accounts WHERE num = ?1 AND spend_limit IS NOT NULL
         ON CONFLICT (account, node) DO UPDATE SET spent = spends.spent + excluded.spent",
];
/// Also counts what the account's keys spend.
const UPDATE: &str =
    "UPDATE accounts SET balance = ?2, entries = ?3, link = ?4, spent = spent - ?5 WHERE num = ?1";
const SPEND: &str = "UPDATE keys SET spent = spent - ?2 WHERE num = ?1";
const GROUP_SPEND: &str = "UPDATE spend_groups SET spent = spent - ?2
                           WHERE num = (SELECT spend_group FROM keys WHERE num = ?1)";
/// For tables of older ledgers.
const OLD_SELECT: &str = "SELECT num, id, balance, entries, link, 0 FROM accounts WHERE num = ?1";
const OLD_INSERT: &str =
    "INSERT INTO entries (account, number, at, kind, amount, balance_after, key, route, outcome, requests, reference, actor, link, bucket)
     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 WHERE ?15 IS NOT NULL";
const OLD_UPDATE: &str =
    "UPDATE accounts SET balance = ?2, entries = ?3, link = ?4 WHERE num = ?1 AND ?5 IS NOT NULL";

/// An account, as its next entry finds it.
#[derive(Clone, Debug)]
struct Known {
    id: AccountId,
    balance: Credits,
    /// Number of its entries.
    entries: u64,
    link: Link,
    has_lots: bool,
}

fn known_row(row: &Row<'_>) -> Result<(AccountNum, Known)> {
    let (id, balance, link) = (account_id(row, 1)?, credits(row, 2)?, link(row, 4)?);
    Ok((AccountNum(row.get(0)?), Known { id, balance, entries: row.get(3)?, link, has_lots: row.get(5)? }))
}

/// Takes what a key spends from what a gateway has leased of the spending limits that it counts against.
pub(super) fn pay_limits(
    tx: &Transaction<'_>,
    (account, key): (AccountNum, KeyNum),
    node: i64,
    spent: i64,
) -> Result<()> {
    let of = [key.0, key.0, account.0];
    PAY_LIMITS.iter().zip(of).try_for_each(|(pay, of)| tx.run(pay, params![of, node, spent]))
}

/// The entries of one transaction. [`Posting::finish`] books them against the operator's accounts.
pub(in crate::ledger) struct Posting<'tx> {
    tx: &'tx Transaction<'tx>,
    select: Prepared<'tx>,
    update: Prepared<'tx>,
    insert: Prepared<'tx>,
    /// True if gateways of a fleet share spending limits.
    has_limits: bool,
    /// Count what keys, and groups of keys, spend.
    spend: Vec<Prepared<'tx>>,
    /// Names of routes and ids of keys that were looked up in this transaction.
    routes: HashMap<RouteNum, String>,
    keys: HashMap<KeyNum, Option<KeyId>>,
    /// Accounts that were read before, because they are in a database elsewhere.
    accounts: HashMap<AccountNum, Known>,
    /// The lots of accounts that have some; `None` while an older ledger is migrated.
    wallets: Option<Wallets>,
    /// Changes of the operator's accounts that [`Posting::finish`] writes.
    contra: OperatorBalances,
    /// What the entries did to accounts, if there are webhooks that want to know.
    moved: Option<BTreeMap<AccountNum, (Moved, WallTime)>>,
}

impl<'tx> Posting<'tx> {
    /// Starts with entries that webhooks are told about.
    pub(super) fn start(tx: &'tx Transaction<'tx>) -> Result<Self> {
        let moved = events::are_wanted(tx)?.then(BTreeMap::new);
        let mut spend = vec![tx.prepare(SPEND)?];
        if groups::exist(tx)? {
            spend.push(tx.prepare(GROUP_SPEND)?);
        }
        let has_limits = tx.is_shared() && limits::exist(tx)?;
        let wallets = Some(Wallets::default());
        Ok(Self {
            moved,
            has_limits,
            spend,
            wallets,
            ..Self::with(tx, [tx.dialect(SELECT, LOCK), UPDATE, INSERT])?
        })
    }

    /// Starts with entries of an older ledger, which are told to nobody.
    pub(in crate::ledger) fn untold(tx: &'tx Transaction<'tx>) -> Result<Self> {
        Self::with(tx, [OLD_SELECT, OLD_UPDATE, OLD_INSERT])
    }

    fn with(tx: &'tx Transaction<'tx>, [select, update, insert]: [&'static str; 3]) -> Result<Self> {
        Ok(Self {
            has_limits: false,
            tx,
            select: tx.prepare(select)?,
            update: tx.prepare(update)?,
            insert: tx.prepare(insert)?,
            spend: Vec::new(),
            wallets: None,
            routes: HashMap::new(),
            keys: HashMap::new(),
            accounts: HashMap::new(),
            contra: OperatorBalances::default(),
            moved: None,
        })
    }

    /// Reads the accounts and keys of charges, with a few statements, if waiting for one for each would cost time.
    pub(super) fn read_ahead(&mut self, charges: impl Iterator<Item = (AccountNum, KeyNum)>) -> Result<()> {
        if !self.tx.is_remote() {
            return Ok(());
        }
        let (mut accounts, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for (account, key) in charges {
            accounts.insert(u64::from(account.0));
            keys.insert(u64::from(key.0));
        }
        for some in lists(&accounts) {
            self.tx.each(LOCK_SOME, params![some], |row| {
                let (num, known) = known_row(row)?;
                self.accounts.insert(num, known);
                Ok(())
            })?;
        }
        for some in lists(&keys) {
            self.tx.each(KEYS, params![some], |row| {
                self.keys.insert(KeyNum(row.get(0)?), Some(to_key_id(row.get(1)?)));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Adds an entry and changes the account's balance by it.
    pub(in crate::ledger) fn add(
        &mut self,
        num: AccountNum,
        at: WallTime,
        new: &NewEntry<'_>,
    ) -> Result<Entry> {
        let Known { id: account, balance, entries: last, link: before, has_lots } = self.account(num)?;
        let split = match &mut self.wallets {
            Some(wallets) if has_lots || matches!(new.place, Place::NewLot(_)) => {
                wallets.change(self.tx, (num, balance), new)?
            }
            _ => Split::whole(BucketName::default(), new.amount),
        };
        let balance = balance.millionths();
        let overflow = || LedgerError::Failed(format!("the balance of account {account} overflows"));
        let balance = balance.checked_add(new.amount.millionths()).ok_or_else(overflow)?;
        let mut entry = Entry {
            number: last + 1,
            at,
            kind: new.kind,
            amount: new.amount,
            balance_after: Credits::from_millionths(balance),
            split,
            key: new.key.map(|key| self.key(key)).transpose()?.flatten(),
            route: new.route.map(|route| self.route(route)).transpose()?,
            outcome: new.outcome,
            requests: new.requests,
            reference: new.reference.map(str::to_owned),
            actor: new.actor.to_owned(),
            link: before,
            account,
        };
        entry.link = entry.link_after(&before);
        if let Some(known) = self.accounts.get_mut(&num) {
            (known.balance, known.entries, known.link) = (entry.balance_after, entry.number, entry.link);
        }
        let spent = if new.key.is_some() { entry.amount.millionths() } else { 0 };
        self.update.run(params![num.0, balance, entry.number, entry.link.0, spent])?;
        let (kind, key, route) =
            (entry.kind.name(), new.key.map(|key| key.0), new.route.map(|route| route.0));
        let outcome = entry.outcome.map(StatusClass::name);
        let (amount, bucket) = (entry.amount.millionths(), entry.split.text());
        let Entry { number, requests, reference, actor, link, .. } = &entry;
        let values = params![
            num.0,
            number,
            at.0,
            kind,
            amount,
            balance,
            key,
            route,
            outcome,
            requests,
            reference,
            actor,
            link.0,
            bucket,
            self.tx.node()
        ];
        self.insert.run(values)?;
        if let Some(key) = key.filter(|_| !new.amount.is_zero()) {
            for statement in &mut self.spend {
                statement.run(params![key, amount])?;
            }
        }
        if self.tx.is_shared() && new.amount.is_negative() {
            self.pay(num, new.key, -amount)?;
        }
        self.contra.book(new.kind, new.amount);
        if let Some(moved) = &mut self.moved {
            moved.entry(num).or_insert_with(|| (Moved::from(&entry), at)).0.add(&entry);
        }
        Ok(entry)
    }

    /// Pays from what this gateway has leased.
    fn pay(&self, account: AccountNum, key: Option<KeyNum>, spent: i64) -> Result<()> {
        self.tx.run(PAY, params![account.0, self.tx.node(), spent])?;
        match key.filter(|_| self.has_limits) {
            Some(key) => pay_limits(self.tx, (account, key), self.tx.node(), spent),
            None => Ok(()),
        }
    }

    /// Ends a lot, if it has not ended before.
    fn end_lot(&mut self, account: AccountNum, lot: LotId, at: WallTime) -> Result<()> {
        if let Some(wallets) = &mut self.wallets {
            wallets.end(account, lot, at);
        }
        let sql = "UPDATE lots SET ended = ?2 WHERE id = ?1 AND ended IS NULL";
        self.tx.run(sql, params![lot.0, at.0])
    }

    fn account(&mut self, num: AccountNum) -> Result<Known> {
        match self.accounts.get(&num) {
            Some(known) => Ok(known.clone()),
            None => self.select.one(params![num.0], known_row).map(|(_, known)| known),
        }
    }

    fn key(&mut self, num: KeyNum) -> Result<Option<KeyId>> {
        if let Some(id) = self.keys.get(&num) {
            return Ok(*id);
        }
        let id = self
            .tx
            .find("SELECT id FROM keys WHERE num = ?1", params![num.0], |row| row.get(0).map(to_key_id))?;
        self.keys.insert(num, id);
        Ok(id)
    }

    fn route(&mut self, num: RouteNum) -> Result<String> {
        if let Some(name) = self.routes.get(&num) {
            return Ok(name.clone());
        }
        let name: Option<String> =
            self.tx.find("SELECT name FROM routes WHERE num = ?1", params![num.0], |row| row.get(0))?;
        let unknown = || LedgerError::Failed(format!("there is no route {}", num.0));
        let name = name.ok_or_else(unknown)?;
        self.routes.insert(num, name.clone());
        Ok(name)
    }

    /// Books all entries that were added against the operator's accounts, and writes the events that follow from them.
    pub(in crate::ledger) fn finish(mut self) -> Result<()> {
        for account in OperatorAccount::ALL {
            let change = *self.contra.of(account);
            if change != 0 {
                let before = balance_of(self.tx, account, self.tx.dialect("", "FOR UPDATE"))?;
                let overflow = || LedgerError::Failed(format!("the account {} overflows", account.name()));
                let after = before.checked_add(change).ok_or_else(overflow)?;
                self.tx.run(
                    "UPDATE operator_accounts SET balance = ?2 WHERE name = ?1",
                    params![account.name(), after.to_string()],
                )?;
            }
        }
        for (account, (moved, at)) in self.moved.into_iter().flatten() {
            events::moved(self.tx, account, moved, at)?;
        }
        Ok(())
    }
}

/// Lists of at most [`MAX_READ`] numbers, as text.
fn lists(numbers: &BTreeSet<u64>) -> Vec<String> {
    let all: Vec<String> = numbers.iter().map(u64::to_string).collect();
    all.chunks(MAX_READ).map(|some| some.join(",")).collect()
}

/// The balance of one of the operator's accounts.
fn balance_of(connection: &Connection, account: OperatorAccount, lock: &str) -> Result<i128> {
    let sql = format!("SELECT balance FROM operator_accounts WHERE name = ?1 {lock}");
    let text: Option<String> = connection.find(&sql, params![account.name()], |row| row.get(0))?;
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| LedgerError::Damaged(format!("the account {} has no number", account.name())))
}

/// The balances of all of the operator's accounts.
pub(in crate::ledger) fn operator_accounts(connection: &Connection) -> Result<OperatorBalances> {
    let mut balances = OperatorBalances::default();
    for account in OperatorAccount::ALL {
        *balances.of(account) = balance_of(connection, account, "")?;
    }
    Ok(balances)
}
