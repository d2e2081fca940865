//! Counts usage in the SQLite ledger.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::{account_id, credits, failed, id_blob, request_id, to_key_id};
use crate::ledger::store::{
    MAX_REFUSALS, MINUTE, RefusalRow, Result, UsageFilter, UsageRetention, UsageRow, UsageStep,
};
use crate::policy::outcome::usage::{Durations, RefusedRequest, UsageCount, UsageKey, UsagePart};
use crate::types::{AccountId, KeyNum, WallTime};

/// Adds up the entries that are not counted yet. An entry without an outcome is counted by its kind.
const COUNT_ENTRIES: &str = "INSERT INTO usage
     SELECT account, 1, at / 60000, coalesce(key, 0), coalesce(route, 0),
            CASE WHEN kind IN ('charge', 'release') THEN coalesce(outcome, kind) ELSE kind END AS result,
            sum(CASE kind WHEN 'given_back' THEN 0 ELSE requests END), -sum(amount), 0, 0, x''
     FROM entries WHERE position > (SELECT usage_upto FROM journal)
         AND kind IN ('charge', 'release', 'in_doubt', 'given_back')
     GROUP BY account, at / 60000, key, route, result
     ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, credits = credits + excluded.credits";
const COUNTED: &str = "UPDATE journal SET usage_upto = (SELECT coalesce(max(position), 0) FROM entries)";
const ADD: &str = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
     ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, credits = credits + excluded.credits,
         bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out,
         durations = excluded.durations";
const DURATIONS: &str = "SELECT durations FROM usage
     WHERE account = ?1 AND step = ?2 AND at = ?3 AND key = ?4 AND route = ?5 AND outcome = ?6";

/// True if there are entries that are not counted yet.
pub(super) fn has_uncounted(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM entries WHERE position > (SELECT usage_upto FROM journal))";
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    select.query_row([], |row| row.get(0)).map_err(failed)
}

/// True if there are rows that are older than their retention.
pub(super) fn has_old(connection: &Connection, keep: &UsageRetention) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM usage WHERE step = 1 AND at < ?1)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 60 AND at < ?2)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 1440 AND at < ?3)";
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    select.query_row(params![keep.minutes, keep.hours, keep.days], |row| row.get(0)).map_err(failed)
}

/// Counts the entries since the last call, and what workers counted.
pub(super) fn count(tx: &Transaction<'_>, parts: &[UsagePart]) -> Result<()> {
    tx.prepare_cached(COUNT_ENTRIES).and_then(|mut insert| insert.execute([])).map_err(failed)?;
    tx.prepare_cached(COUNTED).and_then(|mut update| update.execute([])).map_err(failed)?;
    let mut sums: HashMap<(i64, UsageKey), UsageCount> = HashMap::new();
    let mut used: HashMap<KeyNum, WallTime> = HashMap::new();
    for part in parts {
        for (key, count) in &part.counts {
            let sum = sums.entry((part.at.0.div_euclid(MINUTE), *key)).or_default();
            sum.merge(count);
            let last = used.entry(key.key).or_insert(part.at);
            *last = (*last).max(part.at);
        }
    }
    for ((at, key), count) in sums {
        let id = Id {
            account: key.account.0,
            step: UsageStep::Minute.minutes(),
            at,
            key: key.key.0,
            route: key.route.0,
            outcome: key.outcome.name(),
        };
        add(tx, &id, &count, 0)?;
    }
    note_uses(tx, &used)?;
    let refusals = parts.iter().flat_map(|part| &part.refusals);
    add_refusals(tx, refusals)
}

/// What a row of the table is found by.
struct Id<'a> {
    account: u32,
    step: i64,
    at: i64,
    key: u32,
    route: u32,
    outcome: &'a str,
}

fn add(tx: &Transaction<'_>, id: &Id<'_>, count: &UsageCount, charged: i64) -> Result<()> {
    let Id { account, step, at, key, route, outcome } = id;
    let mut durations = count.durations.clone();
    let mut select = tx.prepare_cached(DURATIONS).map_err(failed)?;
    let known = select.query_row(params![account, step, at, key, route, outcome], |row| durations_of(row, 0));
    if let Some(known) = known.optional().map_err(failed)? {
        durations.merge(&known);
    }
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (bytes_in, bytes_out) = (bytes(count.bytes_in), bytes(count.bytes_out));
    let values = params![
        account,
        step,
        at,
        key,
        route,
        outcome,
        count.requests,
        charged,
        bytes_in,
        bytes_out,
        durations.to_bytes()
    ];
    tx.prepare_cached(ADD).and_then(|mut insert| insert.execute(values)).map(drop).map_err(failed)
}

fn note_uses(tx: &Transaction<'_>, used: &HashMap<KeyNum, WallTime>) -> Result<()> {
    let sql = "UPDATE keys SET last_used = ?2 WHERE num = ?1 AND coalesce(last_used, 0) <= ?2 - ?3";
    let mut update = tx.prepare_cached(sql).map_err(failed)?;
    for (key, at) in used.iter().filter(|(key, _)| key.0 != 0) {
        update.execute(params![key.0, at.0, MINUTE]).map_err(failed)?;
    }
    Ok(())
}

/// Adds refusals, and deletes the oldest ones of accounts with too many.
fn add_refusals<'a>(tx: &Transaction<'_>, refusals: impl Iterator<Item = &'a RefusedRequest>) -> Result<()> {
    let insert = "INSERT INTO refusals (account, at, id, key, route, reason, limit_name)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut accounts = std::collections::BTreeSet::new();
    for refused in refusals {
        let RefusedRequest { at, id, account, key, route, reason, limit } = refused;
        let limit = limit.as_ref().map(|limit| &*limit.name);
        let values = params![account.0, at.0, id_blob(*id), key.0, route.0, reason.code(), limit];
        tx.prepare_cached(insert).and_then(|mut insert| insert.execute(values)).map_err(failed)?;
        accounts.insert(account.0);
    }
    let delete = "DELETE FROM refusals WHERE account = ?1 AND number <=
                      (SELECT number FROM refusals WHERE account = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    for account in accounts {
        let values = params![account, MAX_REFUSALS];
        tx.prepare_cached(delete).and_then(|mut delete| delete.execute(values)).map_err(failed)?;
    }
    Ok(())
}

fn durations_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Durations> {
    let bytes = row.get_ref(at)?.as_blob()?;
    Durations::from_bytes(bytes).ok_or_else(|| {
        let message = "these are no durations".into();
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Blob, message)
    })
}

/// Adds up rows that are older than their retention in longer intervals, at most `most`. True if there may be more.
pub(super) fn compact(tx: &Transaction<'_>, keep: &UsageRetention, most: usize) -> Result<bool> {
    let mut left = most;
    for (from, to, before) in
        [(UsageStep::Minute, UsageStep::Hour, keep.minutes), (UsageStep::Hour, UsageStep::Day, keep.hours)]
    {
        left -= move_rows(tx, from, to, before, left)?;
    }
    let sql = "DELETE FROM usage WHERE (account, step, at, key, route, outcome) IN (SELECT account, step, at, key, route,
                   outcome FROM usage WHERE step = ?1 AND at < ?2 LIMIT ?3)";
    let deleted = tx.execute(sql, params![UsageStep::Day.minutes(), keep.days, left]).map_err(failed)?;
    Ok(left.saturating_sub(deleted) == 0)
}

/// Moves rows before a time to longer intervals, at most `most`. Returns their number.
fn move_rows(
    tx: &Transaction<'_>,
    from: UsageStep,
    to: UsageStep,
    before: i64,
    most: usize,
) -> Result<usize> {
    let sql = "SELECT account, at, key, route, outcome, requests, credits, bytes_in, bytes_out, durations
               FROM usage WHERE step = ?1 AND at < ?2 ORDER BY at LIMIT ?3";
    let mut select = tx.prepare_cached(sql).map_err(failed)?;
    let rows = select.query_map(params![from.minutes(), before, most], |row| {
        let count = UsageCount {
            requests: row.get(5)?,
            bytes_in: row.get(7)?,
            bytes_out: row.get(8)?,
            durations: durations_of(row, 9)?,
        };
        let id = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, String>(4)?);
        Ok((id, count, row.get(6)?))
    });
    let rows = rows.map_err(failed)?.collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
    for ((account, at, key, route, outcome), count, charged) in &rows {
        let (at, step): (i64, _) = (*at, to.minutes());
        let start = at.div_euclid(step) * step;
        let id = Id { account: *account, step, at: start, key: *key, route: *route, outcome };
        add(tx, &id, count, *charged)?;
        let sql = "DELETE FROM usage WHERE account = ?1 AND step = ?2 AND at = ?3 AND key = ?4 AND route = ?5
                       AND outcome = ?6";
        let gone = params![account, from.minutes(), at, key, route, outcome];
        tx.prepare_cached(sql).and_then(|mut delete| delete.execute(gone)).map_err(failed)?;
    }
    Ok(rows.len())
}

/// Calls `each` for the rows that a filter selects, in no order.
pub(super) fn read(
    connection: &Connection,
    filter: &UsageFilter,
    each: &mut dyn FnMut(UsageRow),
) -> Result<()> {
    // A row that begins before the range and ends within it belongs to it with its whole interval.
    let of_account = match &filter.account {
        Some(_) => "u.account = (SELECT num FROM accounts WHERE id = ?1) AND u.step IN (1, 60, 1440)",
        None => "?1 IS NULL AND u.step IN (1, 60, 1440)",
    };
    let sql = format!(
        "SELECT u.at, a.id, k.id, r.name, u.outcome, u.requests, u.credits, u.bytes_in, u.bytes_out, u.durations
         FROM usage u LEFT JOIN accounts a ON a.num = u.account LEFT JOIN keys k ON k.num = u.key
             LEFT JOIN routes r ON r.num = u.route
         WHERE {of_account} AND u.at + u.step > ?2 AND u.at > ?2 - 1440 AND u.at < ?3 AND (?4 IS NULL OR k.id = ?4)
             AND (?5 IS NULL OR r.name = ?5)"
    );
    let key = filter.key.map(super::rows::key_id);
    let account = filter.account.as_ref().map(AccountId::as_str);
    let mut select = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows =
        select.query(params![account, filter.from, filter.to, key, filter.route]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        each(usage_row(row).map_err(failed)?);
    }
    Ok(())
}

fn usage_row(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    let is_known = row.get_ref(1)?.as_str_or_null()?.is_some();
    Ok(UsageRow {
        at: row.get(0)?,
        account: is_known.then(|| account_id(row, 1)).transpose()?,
        key: row.get::<_, Option<i64>>(2)?.map(to_key_id),
        route: row.get(3)?,
        outcome: row.get(4)?,
        requests: row.get(5)?,
        credits: credits(row, 6)?,
        bytes_in: row.get(7)?,
        bytes_out: row.get(8)?,
        durations: durations_of(row, 9)?,
    })
}

/// Reads the refusals of an account before a number, newest first, at most `most`.
pub(super) fn refusals(
    connection: &Connection,
    account: &AccountId,
    before: Option<u64>,
    most: usize,
) -> Result<Vec<RefusalRow>> {
    let sql = "SELECT f.number, f.at, f.id, k.id, r.name, f.reason, f.limit_name FROM refusals f
               LEFT JOIN keys k ON k.num = f.key LEFT JOIN routes r ON r.num = f.route
               WHERE f.account = (SELECT num FROM accounts WHERE id = ?1) AND f.number < ?2
               ORDER BY f.number DESC LIMIT ?3";
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    let rows = select.query_map(params![account.as_str(), before, most], |row| {
        Ok(RefusalRow {
            number: row.get(0)?,
            at: WallTime(row.get(1)?),
            id: request_id(row, 2)?,
            key: row.get::<_, Option<i64>>(3)?.map(to_key_id),
            route: row.get(4)?,
            reason: row.get(5)?,
            limit: row.get(6)?,
        })
    });
    rows.map_err(failed)?.collect::<rusqlite::Result<_>>().map_err(failed)
}
