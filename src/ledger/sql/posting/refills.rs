//! Ends lots, and refills accounts.

use super::{NewEntry, Posting};
use crate::ledger::entry::EntryKind;
use crate::ledger::sql::db::{Connection, Row, Transaction, params};
use crate::ledger::sql::rows::account_id;
use crate::ledger::store::{DueRefill, LotEnd, Place, RefillBooking, RefillState, Result};
use crate::types::{AccountNum, Credits, WallTime};

/// Who ends lots.
const ACTOR: &str = "expiry";

/// Ends lots, and adds an entry for what of them expires.
pub(in crate::ledger::sql) fn end_lots(
    posting: &mut Posting<'_>,
    ends: &[LotEnd],
    at: WallTime,
) -> Result<()> {
    for LotEnd { account, lot, amount } in ends {
        posting.end_lot(*account, *lot, at)?; // before the entry, which deletes a lot that has nothing left
        if !amount.is_zero() {
            let taken = Credits::ZERO.checked_sub(*amount).unwrap_or_default();
            let place = Place::Lot(*lot);
            let new = NewEntry { place, ..NewEntry::booking(EntryKind::Expiry, taken, None, ACTOR) };
            posting.add(*account, at, &new)?;
        }
    }
    Ok(())
}

/// Refills accounts.
pub(in crate::ledger::sql) fn refill(
    tx: &Transaction<'_>,
    refills: &[RefillBooking],
    at: WallTime,
) -> Result<()> {
    let mut posting = Posting::start(tx)?;
    for refill in refills {
        end_lots(&mut posting, &refill.ends, at)?;
        if let Some(grant) = &refill.grant {
            posting.add(refill.num, at, &NewEntry::of(grant))?;
        }
        let sql = "UPDATE refills SET due = ?3, refilled = ?4, absent = ?5 WHERE account = ?1 AND plan = ?2";
        let RefillState { due, refilled, is_absent } = refill.state;
        let values =
            params![refill.num.0, refill.plan, due.map(|due| due.0), refilled.map(|at| at.0), is_absent];
        tx.run(sql, values)?;
    }
    posting.finish()
}

/// Puts an account on a plan, whose refill is due if it was not on it before, or absent.
pub(in crate::ledger::sql) fn put_on(
    tx: &Transaction<'_>,
    account: AccountNum,
    plan: Option<&str>,
) -> Result<()> {
    let sql = match plan {
        None => return tx.run("DELETE FROM refills WHERE account = ?1", params![account.0]),
        Some(_) => {
            "INSERT INTO refills (account, plan, due) VALUES (?1, ?2, 0)
             ON CONFLICT (account) DO UPDATE SET plan = excluded.plan, due = 0, refilled = NULL, absent = 0
                 WHERE refills.plan <> excluded.plan OR refills.absent <> 0"
        }
    };
    let values = params![account.0, plan];
    tx.run(sql, values)
}

/// Makes the refills due of plans whose refill is new or changed, and of accounts that were refilled by a clock that was
/// ahead. Plans without a refill have none due.
pub(in crate::ledger::sql) fn register(
    tx: &Transaction<'_>,
    plans: Option<&[(String, String)]>,
    now: WallTime,
) -> Result<()> {
    let Some(plans) = plans else { return Ok(()) };
    let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let known: Vec<(String, String)> = tx.all("SELECT plan, text FROM plan_refills", params![], columns)?;
    for (plan, _) in known.iter().filter(|(plan, _)| plans.iter().all(|(other, _)| other != plan)) {
        tx.run("DELETE FROM plan_refills WHERE plan = ?1", params![plan])?;
        tx.run("UPDATE refills SET due = NULL, refilled = NULL WHERE plan = ?1", params![plan])?;
    }
    for changed in plans.iter().filter(|plan| !known.contains(plan)) {
        let (plan, text) = changed;
        tx.run("INSERT INTO plan_refills (plan, text) VALUES (?1, ?2) ON CONFLICT (plan) DO UPDATE SET text = excluded.text", params![plan, text])?;
        tx.run("UPDATE refills SET due = 0, refilled = NULL WHERE plan = ?1", params![plan])?;
    }
    for (plan, _) in plans {
        tx.run(
            "UPDATE refills SET due = 0 WHERE plan = ?1 AND (due IS NULL OR refilled > ?2)",
            params![plan, now.0],
        )?;
    }
    Ok(())
}

/// Accounts whose refill is due.
pub(in crate::ledger::sql) fn due(
    connection: &Connection,
    now: WallTime,
    most: usize,
) -> Result<Vec<DueRefill>> {
    let sql = "SELECT a.num, a.id, a.created, r.plan, r.refilled FROM refills r JOIN accounts a ON a.num = r.account
               WHERE r.due <= ?1 ORDER BY r.due, r.account LIMIT ?2";
    let columns = |row: &Row<'_>| {
        Ok(DueRefill {
            num: AccountNum(row.get(0)?),
            account: account_id(row, 1)?,
            created: WallTime(row.get(2)?),
            plan: row.get(3)?,
            refilled: row.get::<Option<i64>>(4)?.map(WallTime),
        })
    };
    connection.all(sql, params![now.0, most], columns)
}
