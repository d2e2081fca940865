//! Entries of versions that chained none: each is written anew, in order, in the migration that makes
//! room for them. All or nothing: books that contradict themselves stay as they were.

use rusqlite::{Row, Transaction};

use super::posting::{NewEntry, Posting};
use super::rows::{credits, entry_kind, failed};
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{LedgerError, Result};
use crate::types::{AccountNum, Credits, RouteNum, WallTime};

const OLD: &str = "SELECT id, at, account, kind, amount, balance_after, route, requests, reference, actor
                   FROM old_entries ORDER BY id";
const DIFFER: &str =
    "SELECT count(*) FROM accounts JOIN old_balances o USING (num) WHERE o.balance != accounts.balance";

struct Old {
    id: u64,
    at: WallTime,
    account: AccountNum,
    kind: EntryKind,
    amount: Credits,
    balance_after: Credits,
    route: Option<RouteNum>,
    requests: u64,
    reference: Option<String>,
    actor: String,
}

fn old(row: &Row<'_>) -> rusqlite::Result<Old> {
    Ok(Old {
        id: row.get(0)?,
        at: WallTime(row.get(1)?),
        account: AccountNum(row.get(2)?),
        kind: entry_kind(row, 3)?,
        amount: credits(row, 4)?,
        balance_after: credits(row, 5)?,
        route: row.get::<_, Option<u32>>(6)?.map(RouteNum),
        requests: row.get(7)?,
        reference: row.get(8)?,
        actor: row.get(9)?,
    })
}

/// Moves `old_entries` into `entries`; balances must come out as they were.
pub(super) fn carry_over(tx: &Transaction<'_>) -> Result<()> {
    let count = |sql| tx.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(failed);
    let entries = count("SELECT count(*) FROM old_entries")?;
    if entries > 0 {
        tracing::info!(entries, "bringing the ledger up to date; with millions of entries it takes a while");
    }
    let balances = "CREATE TEMP TABLE old_balances AS SELECT num, balance FROM accounts;
                    UPDATE accounts SET balance = 0;";
    tx.execute_batch(balances).map_err(failed)?;
    let mut posting = Posting::begin(tx)?;
    let mut statement = tx.prepare(OLD).map_err(failed)?;
    for old in statement.query_map([], old).map_err(failed)? {
        let Old { id, at, account, kind, amount, balance_after, route, requests, reference, actor } =
            old.map_err(failed)?;
        let (reference, actor) = (reference.as_deref(), actor.as_str());
        let entry =
            posting.add(account, at, &NewEntry { kind, amount, route, requests, reference, actor })?;
        if (entry.id, entry.balance_after) != (id, balance_after) {
            return Err(refused(&format!("entry {id} contradicts those before it")));
        }
    }
    posting.finish()?;
    let differ = count(DIFFER)?;
    tx.execute_batch("DROP TABLE old_balances; DROP TABLE old_entries").map_err(failed)?;
    if differ > 0 {
        return Err(refused(&format!(
            "the balances of {differ} accounts are not what their entries add up to"
        )));
    }
    Ok(())
}

fn refused(why: &str) -> LedgerError {
    LedgerError::Failed(format!(
        "{why}, so this version cannot take it over; restore a backup, or stay with the older one"
    ))
}
