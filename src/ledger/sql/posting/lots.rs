//! Reads and changes the lots of accounts.

use std::collections::HashMap;

use super::NewEntry;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::{account_id, credits, parsed_text};
use crate::ledger::store::{Place, Result};
use crate::policy::credit::{DEFAULT_PRIORITY, Lot, LotId, LotTerms, Split, Wallet};
use crate::types::{AccountId, AccountNum, BucketName, Credits, WallTime};

/// The lots of the accounts that one transaction changes, as they are in the store.
#[derive(Default)]
pub(super) struct Wallets(HashMap<AccountNum, Wallet>);

impl Wallets {
    /// A lot ends, if it has not ended before.
    pub(super) fn end(&mut self, account: AccountNum, id: LotId, at: WallTime) {
        let lots = self.0.get_mut(&account).into_iter().flat_map(|wallet| &mut wallet.lots);
        lots.filter(|lot| lot.id == id).for_each(|lot| {
            lot.ended.get_or_insert(at);
        });
    }

    /// Changes the lots of an account as an entry says. Returns the buckets that the entry's amount was added to or taken
    /// from.
    pub(super) fn change(
        &mut self,
        tx: &Transaction<'_>,
        (account, balance): (AccountNum, Credits),
        new: &NewEntry<'_>,
    ) -> Result<Split> {
        let wallet = match self.0.entry(account) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => empty.insert(load(tx, account, balance)?),
        };
        let before: Vec<(LotId, Credits)> = wallet.lots.iter().map(|lot| (lot.id, lot.left)).collect();
        let split = match new.place {
            Place::Any(held) if new.amount.is_negative() => {
                wallet.draw(Credits::ZERO.checked_sub(new.amount).unwrap_or(Credits::MAX), held)
            }
            Place::Lot(id) => wallet.add_to(id, new.amount),
            Place::NewLot(terms) if !terms.is_rest() => add(tx, account, wallet, terms, new.amount)?,
            Place::Back(parts) => {
                let mut split = wallet.add_to_rest(parts.part(&BucketName::default()));
                for (bucket, part) in parts.parts().filter(|(bucket, _)| !bucket.is_default()) {
                    let terms = LotTerms { bucket: bucket.clone(), ..LotTerms::default() };
                    let added = add(tx, account, wallet, &terms, part)?;
                    added.parts().for_each(|(bucket, part)| split.add(bucket, part));
                }
                split
            }
            Place::Any(_) | Place::NewLot(_) => wallet.add_to_rest(new.amount),
        };
        for (id, left) in before {
            match wallet.lots.iter().find(|lot| lot.id == id) {
                Some(lot) if lot.left != left => store(tx, lot)?,
                _ => {}
            }
        }
        wallet.lots.retain(|lot| !lot.left.is_zero());
        Ok(split)
    }
}

/// Adds credits to the lot with these terms, or to a new one, after a debt is paid. Returns the split.
fn add(
    tx: &Transaction<'_>,
    account: AccountNum,
    wallet: &mut Wallet,
    terms: &LotTerms,
    amount: Credits,
) -> Result<Split> {
    let left = wallet.pay_debt(amount);
    let paid = amount.checked_sub(left).unwrap_or_default();
    match wallet.lot_of(terms) {
        _ if left.is_zero() => {}
        Some(lot) => drop(wallet.add_to(lot, left)),
        None => wallet.lots.push(insert(tx, account, terms, left)?),
    }
    let mut split = Split::whole(BucketName::default(), paid);
    split.add(&terms.bucket, left);
    Ok(split)
}

/// Writes what a lot has left.
fn store(tx: &Transaction<'_>, lot: &Lot) -> Result<()> {
    let sql = match lot.left.is_zero() {
        true => "DELETE FROM lots WHERE id = ?1 AND rest >= ?2",
        false => "UPDATE lots SET rest = ?2 WHERE id = ?1",
    };
    let values = params![lot.id.0, lot.left.millionths()];
    tx.run(sql, values)
}

fn insert(tx: &Transaction<'_>, account: AccountNum, terms: &LotTerms, left: Credits) -> Result<Lot> {
    let LotTerms { bucket, expires, of_refill } = terms.clone();
    let sql = "INSERT INTO lots (account, bucket, rest, expires, refill) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values =
        params![account.0, bucket.as_str(), left.millionths(), expires.map(|expires| expires.0), of_refill];
    let id = tx.add(sql, "id", values)?;
    tx.run("UPDATE accounts SET lots = 1 WHERE num = ?1 AND lots = 0", params![account.0])?;
    let priority = priority(tx, &bucket)?;
    Ok(Lot { id: LotId(id), bucket, priority, left, expires, ended: None, of_refill })
}

fn priority(connection: &Connection, bucket: &BucketName) -> Result<u32> {
    let found =
        connection.find("SELECT priority FROM buckets WHERE name = ?1", params![bucket.as_str()], |row| {
            row.get(0)
        })?;
    Ok(found.unwrap_or(DEFAULT_PRIORITY))
}

/// Reads the credits of an account by lot.
pub(in crate::ledger::sql) fn load(
    connection: &Connection,
    account: AccountNum,
    balance: Credits,
) -> Result<Wallet> {
    let sql = "SELECT id, bucket, rest, expires, ended, refill, priority
               FROM lots LEFT JOIN buckets ON name = bucket WHERE account = ?1 ORDER BY id";
    let lots = connection.all(sql, params![account.0], lot_row)?;
    let rest_priority = priority(connection, &BucketName::default())?;
    let in_lots = lots.iter().map(|lot| lot.left);
    let rest = in_lots.fold(balance, |rest, left| rest.checked_sub(left).unwrap_or(rest));
    Ok(Wallet { lots, rest, rest_priority })
}

/// Columns: id, bucket, left, expires, ended, refill, priority.
fn lot_row(row: &Row<'_>) -> Result<Lot> {
    let time = |at| row.get::<Option<i64>>(at).map(|time| time.map(WallTime));
    Ok(Lot {
        id: LotId(row.get(0)?),
        bucket: parsed_text(row, 1, |text| text.parse().ok())?,
        left: credits(row, 2)?,
        expires: time(3)?,
        ended: time(4)?,
        of_refill: row.get(5)?,
        priority: row.get::<Option<u32>>(6)?.unwrap_or(DEFAULT_PRIORITY),
    })
}

/// Lots that are due to expire, except those whose account is due to be refilled by its plan.
pub(in crate::ledger::sql) fn due(
    connection: &Connection,
    now: WallTime,
    most: usize,
) -> Result<Vec<(AccountNum, LotId)>> {
    let sql = "SELECT account, id FROM lots
               WHERE expires <= ?1 AND ended IS NULL AND NOT (refill = 1 AND EXISTS (
                   SELECT 1 FROM refills r JOIN plan_refills USING (plan) WHERE r.account = lots.account AND r.due <= ?1))
               ORDER BY expires, id LIMIT ?2";
    let columns = |row: &Row<'_>| Ok((AccountNum(row.get(0)?), LotId(row.get(1)?)));
    connection.all(sql, params![now.0, most], columns)
}

/// The accounts with ended lots, and when the last one ended.
pub(in crate::ledger::sql) fn ended(connection: &Connection) -> Result<Vec<(AccountNum, WallTime)>> {
    let index = connection.dialect("INDEXED BY ended_lots", "");
    let sql = format!(
        "SELECT account, max(ended) FROM lots {index} WHERE ended IS NOT NULL GROUP BY account ORDER BY account"
    );
    let columns = |row: &Row<'_>| Ok((AccountNum(row.get(0)?), WallTime(row.get(1)?)));
    connection.all(&sql, params![], columns)
}

/// What all accounts have in lots, by bucket.
pub(in crate::ledger::sql) fn of_all(
    connection: &Connection,
) -> Result<Vec<(AccountId, BucketName, Credits)>> {
    let sql = "SELECT a.id, l.bucket, CAST(sum(l.rest) AS BIGINT) FROM lots l JOIN accounts a ON a.num = l.account GROUP BY 1, 2 ORDER BY 1, 2";
    let columns = |row: &Row<'_>| {
        Ok((account_id(row, 0)?, parsed_text(row, 1, |text| text.parse().ok())?, credits(row, 2)?))
    };
    connection.all(sql, params![], columns)
}

/// Stores the priorities of the configuration's buckets.
pub(in crate::ledger::sql) fn register(tx: &Transaction<'_>, buckets: &[(BucketName, u32)]) -> Result<()> {
    let sql = "INSERT INTO buckets (name, priority) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET priority = excluded.priority";
    for (name, priority) in buckets {
        tx.run(sql, params![name.as_str(), priority])?;
    }
    Ok(())
}
