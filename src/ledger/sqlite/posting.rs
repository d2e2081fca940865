//! Writes entries: each changes its account's balance and one of the operator's sides, and is
//! chained to the account's entry before it.

use std::collections::HashMap;

use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};

use super::rows::{account_id, failed, link};
use crate::ledger::entry::{Entry, EntryKind, Link, Side, Sides};
use crate::ledger::store::{LedgerError, Result};
use crate::types::{AccountId, AccountNum, Credits, RouteNum, WallTime};

/// An entry about to be written.
pub(super) struct NewEntry<'a> {
    pub(super) kind: EntryKind,
    pub(super) amount: Credits,
    pub(super) route: Option<RouteNum>,
    pub(super) requests: u64,
    pub(super) reference: Option<&'a str>,
    pub(super) actor: &'a str,
}

/// Entries of one transaction. What is written once for all of them, [`Posting::finish`] writes.
pub(super) struct Posting<'tx> {
    tx: &'tx Transaction<'tx>,
    select: CachedStatement<'tx>,
    update: CachedStatement<'tx>,
    insert: CachedStatement<'tx>,
    /// Names of routes that were looked up.
    routes: HashMap<RouteNum, String>,
    next: u64,
    /// What is to be added to them.
    sides: Sides,
}

impl<'tx> Posting<'tx> {
    pub(super) fn begin(tx: &'tx Transaction<'tx>) -> Result<Self> {
        let prepare = |sql| tx.prepare_cached(sql).map_err(failed);
        let last: u64 = prepare("SELECT coalesce(max(id), 0) FROM entries")?
            .query_row([], |row| row.get(0))
            .map_err(failed)?;
        Ok(Self {
            tx,
            // Plain statements: RETURNING would build a temporary table for each row.
            select: prepare("SELECT id, balance, link FROM accounts WHERE num = ?1")?,
            update: prepare("UPDATE accounts SET balance = ?2, link = ?3 WHERE num = ?1")?,
            insert: prepare("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?,
            routes: HashMap::new(),
            next: last + 1,
            sides: Sides::default(),
        })
    }

    /// Adds an entry and changes the account's balance by it.
    pub(super) fn add(&mut self, num: AccountNum, at: WallTime, new: &NewEntry<'_>) -> Result<Entry> {
        let columns = |row: &rusqlite::Row<'_>| Ok((account_id(row, 0)?, row.get(1)?, link(row, 2)?));
        let (account, balance, before): (AccountId, i64, Link) =
            self.select.query_row([num.0], columns).map_err(failed)?;
        let overflow = || LedgerError::Failed(format!("the balance of account {account} overflows"));
        let balance = balance.checked_add(new.amount.millionths()).ok_or_else(overflow)?;
        let mut entry = Entry {
            id: self.next,
            at,
            kind: new.kind,
            amount: new.amount,
            balance_after: Credits::from_millionths(balance),
            route: new.route.map(|route| self.route(route)).transpose()?,
            requests: new.requests,
            reference: new.reference.map(str::to_owned),
            actor: new.actor.to_owned(),
            link: before,
            account,
        };
        entry.link = entry.link_behind(&before);
        self.update.execute(params![num.0, balance, entry.link.0]).map_err(failed)?;
        let (kind, route) = (entry.kind.name(), new.route.map(|route| route.0));
        let amount = entry.amount.millionths();
        let Entry { id, requests, reference, actor, link, .. } = &entry;
        self.insert
            .execute(params![
                id, at.0, num.0, kind, amount, balance, route, requests, reference, actor, link.0
            ])
            .map_err(failed)?;
        self.next += 1;
        self.sides.take(new.kind, new.amount);
        Ok(entry)
    }

    fn route(&mut self, num: RouteNum) -> Result<String> {
        if let Some(name) = self.routes.get(&num) {
            return Ok(name.clone());
        }
        let mut select = self.tx.prepare_cached("SELECT name FROM routes WHERE num = ?1").map_err(failed)?;
        let name: Option<String> = select.query_row([num.0], |row| row.get(0)).optional().map_err(failed)?;
        let unknown = || LedgerError::Failed(format!("there is no route {}", num.0));
        let name = name.ok_or_else(unknown)?;
        self.routes.insert(num, name.clone());
        Ok(name)
    }

    /// The operator's side of all these entries.
    pub(super) fn finish(mut self) -> Result<()> {
        for side in Side::ALL {
            let change = *self.sides.of(side);
            if change != 0 {
                let before = balance_of(self.tx, side)?;
                let overflow = || LedgerError::Failed(format!("the side {} overflows", side.name()));
                let after = before.checked_add(change).ok_or_else(overflow)?;
                self.tx
                    .prepare_cached("UPDATE sides SET balance = ?2 WHERE name = ?1")
                    .and_then(|mut update| update.execute(params![side.name(), after.to_string()]))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// What stands on one of the operator's sides.
fn balance_of(connection: &rusqlite::Connection, side: Side) -> Result<i128> {
    let mut select =
        connection.prepare_cached("SELECT balance FROM sides WHERE name = ?1").map_err(failed)?;
    let text: Option<String> =
        select.query_row([side.name()], |row| row.get(0)).optional().map_err(failed)?;
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| LedgerError::Damaged(format!("the side {} holds no number", side.name())))
}

/// What stands on all of them.
pub(super) fn sides(connection: &rusqlite::Connection) -> Result<Sides> {
    let mut sides = Sides::default();
    for side in Side::ALL {
        *sides.of(side) = balance_of(connection, side)?;
    }
    Ok(sides)
}
