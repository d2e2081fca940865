//! Reads usage from the books.

use super::{ALL_ACCOUNTS, durations_of, kept};
use crate::ledger::sql::db::{Connection, Row, params};
use crate::ledger::sql::rows::{account_id, credits, key_id, request_id, to_key_id};
use crate::ledger::store::{RefusalRow, Result, UsageDetail, UsageFilter, UsageRange, UsageRow, UsageStep};
use crate::types::{AccountId, WallTime};

/// Most intervals in which the rows of one key are looked up, each on its own. More are read with those of other keys.
const MAX_LOOKUPS: i64 = 1_000;

/// Which rows are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Those of each account, key and route.
    Each,
    /// The sums of an account.
    OfAccount,
    /// The sums of all accounts, by route.
    OfAll,
}

impl Rows {
    fn of(filter: &UsageFilter, step: UsageStep) -> Self {
        let UsageFilter { account, key, route, detail, .. } = filter;
        match (account, key, route, detail) {
            _ if step == UsageStep::Minute => Self::Each,
            (None, None, _, UsageDetail::Routes | UsageDetail::Sums) => Self::OfAll,
            (Some(_), None, None, UsageDetail::Sums) => Self::OfAccount,
            _ => Self::Each,
        }
    }
}

/// Calls `each` for the rows that a filter selects, in no order.
pub(in crate::ledger::sql) fn read(
    connection: &Connection,
    filter: &UsageFilter,
    each: &mut dyn FnMut(UsageRow),
) -> Result<()> {
    for range in filter.ranges(&kept(connection)?) {
        read_range(connection, filter, range, each)?;
    }
    Ok(())
}

fn read_range(
    connection: &Connection,
    filter: &UsageFilter,
    range: UsageRange,
    each: &mut dyn FnMut(UsageRow),
) -> Result<()> {
    let number = "(SELECT num FROM accounts WHERE id = ?1)";
    let of = match (Rows::of(filter, range.step), &filter.account) {
        (Rows::OfAll, _) => format!("u.account = {ALL_ACCOUNTS} AND CAST(?1 AS TEXT) IS NULL"),
        (Rows::OfAccount, _) => format!("u.account = -{number}"),
        (Rows::Each, Some(_)) => format!("u.account = {number}"),
        (Rows::Each, None) => "u.account >= 0 AND CAST(?1 AS TEXT) IS NULL".to_owned(),
    };
    let intervals = (range.to - range.from) / range.step.minutes();
    let (times, within) = if filter.key.is_some() && filter.account.is_some() && intervals <= MAX_LOOKUPS {
        ("times CROSS JOIN", "u.at = times.at AND u.key = (SELECT num FROM keys WHERE id = ?5)")
    } else {
        ("", "u.at >= ?3 AND u.at < ?4 AND (k.id = ?5 OR ?5 IS NULL)")
    };
    let sql = format!(
        "WITH RECURSIVE times(at) AS (SELECT CAST(?3 AS BIGINT) UNION ALL SELECT at + ?2 FROM times WHERE at + ?2 < ?4)
         SELECT u.at, a.id, k.id, r.name, u.outcome, u.requests, u.credits, u.bytes_in, u.bytes_out, u.durations
         FROM {times} usage u LEFT JOIN accounts a ON a.num = u.account LEFT JOIN keys k ON k.num = u.key
             LEFT JOIN routes r ON r.num = u.route
         WHERE {of} AND u.step = ?2 AND {within} AND (r.name = ?6 OR ?6 IS NULL)"
    );
    let (account, key) = (filter.account.as_ref().map(AccountId::as_str), filter.key.map(key_id));
    let values = params![account, range.step.minutes(), range.from, range.to, key, filter.route];
    connection.each(&sql, values, |row| {
        each(usage_row(row)?);
        Ok(())
    })
}

fn usage_row(row: &Row<'_>) -> Result<UsageRow> {
    let is_known = row.text_or_null(1)?.is_some();
    Ok(UsageRow {
        at: row.get(0)?,
        account: is_known.then(|| account_id(row, 1)).transpose()?,
        key: row.get::<Option<i64>>(2)?.map(to_key_id),
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
pub(in crate::ledger::sql) fn refusals(
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
    connection.all(sql, params![account.as_str(), before, most], |row| {
        Ok(RefusalRow {
            number: row.get(0)?,
            at: WallTime(row.get(1)?),
            id: request_id(row, 2)?,
            key: row.get::<Option<i64>>(3)?.map(to_key_id),
            route: row.get(4)?,
            reason: row.get(5)?,
            limit: row.get(6)?,
        })
    })
}
