//! Counts usage in the SQLite ledger: in intervals of each length, and in sums of accounts and of all.

mod migrate;
mod read;

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

pub(super) use migrate::count_anew;
pub(super) use read::{read, refusals};

use super::rows::{failed, id_blob};
use crate::ledger::store::{MAX_REFUSALS, MINUTE, Result, UsageRetention, UsageStep};
use crate::policy::outcome::usage::{Durations, RefusedRequest, UsageCount, UsagePart};
use crate::types::{KeyNum, WallTime};

/// Stands for the account in the sums of all accounts.
const ALL_ACCOUNTS: i64 = -(1 << 32);
/// The intervals of sums. Minutes are added up when they are read.
const SUM_STEPS: [UsageStep; 2] = [UsageStep::Hour, UsageStep::Day];

/// Adds up the entries that are not counted yet. An entry without an outcome is counted by its kind.
const ENTRIES: &str = "SELECT account, at / 60000, coalesce(key, 0), coalesce(route, 0),
            CASE WHEN kind IN ('charge', 'release') THEN coalesce(outcome, kind) ELSE kind END AS result,
            sum(CASE kind WHEN 'given_back' THEN 0 ELSE requests END), -sum(amount)
     FROM entries WHERE position > (SELECT usage_upto FROM journal)
         AND kind IN ('charge', 'release', 'in_doubt', 'given_back')
     GROUP BY account, at / 60000, key, route, result";
const COUNTED: &str = "UPDATE journal SET usage_upto = (SELECT coalesce(max(position), 0) FROM entries)";
const ADD: &str = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
     ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, credits = credits + excluded.credits,
         bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out,
         durations = excluded.durations";
const DURATIONS: &str = "SELECT durations FROM usage
     WHERE account = ?1 AND step = ?2 AND at = ?3 AND key = ?4 AND route = ?5 AND outcome = ?6";

/// What a row of the table is found by, in its order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    account: i64,
    step: UsageStep,
    at: i64,
    key: u32,
    route: u32,
    outcome: String,
}

/// The rows that are to be added, each once.
#[derive(Default)]
struct Sums(BTreeMap<Id, (UsageCount, i64)>);

impl Sums {
    fn add(&mut self, id: Id, count: &UsageCount, charged: i64) {
        let row = self.0.entry(id).or_default();
        row.0.merge(count);
        row.1 = row.1.saturating_add(charged);
    }

    /// Adds to the sums of the row's account, and of all accounts, if they have intervals of this length.
    fn add_sums(&mut self, id: &Id, count: &UsageCount, charged: i64) {
        if SUM_STEPS.contains(&id.step) {
            if id.account > 0 {
                self.add(Id { account: -id.account, key: 0, route: 0, ..id.clone() }, count, charged);
            }
            self.add(Id { account: ALL_ACCOUNTS, key: 0, ..id.clone() }, count, charged);
        }
    }

    /// Adds what was counted in a minute to the intervals of each length.
    fn add_minute(&mut self, id: &Id, count: &UsageCount, charged: i64) {
        for step in UsageStep::ALL {
            let id = Id { step, at: step.floor(id.at), ..id.clone() };
            self.add_sums(&id, count, charged);
            self.add(id, count, charged);
        }
    }

    fn write(self, tx: &Transaction<'_>) -> Result<()> {
        for (id, (count, charged)) in self.0 {
            write(tx, &id, count, charged)?;
        }
        Ok(())
    }
}

fn write(tx: &Transaction<'_>, id: &Id, count: UsageCount, charged: i64) -> Result<()> {
    let Id { account, step, at, key, route, outcome } = id;
    let step = step.minutes();
    let mut durations = count.durations;
    let mut select = tx.prepare_cached(DURATIONS).map_err(failed)?;
    let known = select.query_row(params![account, step, at, key, route, outcome], |row| durations_of(row, 0));
    if let Some(known) = known.optional().map_err(failed)? {
        durations.merge(&known);
    }
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (bytes_in, bytes_out) = (bytes(count.bytes_in), bytes(count.bytes_out));
    let durations = durations.to_bytes();
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
        durations
    ];
    tx.prepare_cached(ADD).and_then(|mut insert| insert.execute(values)).map(drop).map_err(failed)
}

/// True if there are entries that are not counted yet.
pub(super) fn has_uncounted(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM entries WHERE position > (SELECT usage_upto FROM journal))";
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    select.query_row([], |row| row.get(0)).map_err(failed)
}

/// Counts the entries since the last call, and what workers counted.
pub(super) fn count(tx: &Transaction<'_>, parts: &[UsagePart]) -> Result<()> {
    let mut sums = Sums::default();
    count_entries(tx, &mut sums)?;
    let mut used: HashMap<KeyNum, WallTime> = HashMap::new();
    for part in parts {
        let at = part.at.0.div_euclid(MINUTE);
        for (key, count) in &part.counts {
            let (account, outcome) = (i64::from(key.account.0), key.outcome.name().to_owned());
            let step = UsageStep::Minute;
            sums.add_minute(&Id { account, step, at, key: key.key.0, route: key.route.0, outcome }, count, 0);
            let last = used.entry(key.key).or_insert(part.at);
            *last = (*last).max(part.at);
        }
    }
    sums.write(tx)?;
    note_uses(tx, &used)?;
    let refusals = parts.iter().flat_map(|part| &part.refusals);
    add_refusals(tx, refusals)
}

fn count_entries(tx: &Transaction<'_>, sums: &mut Sums) -> Result<()> {
    let mut select = tx.prepare_cached(ENTRIES).map_err(failed)?;
    let mut rows = select.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let read = || {
            let (step, at) = (UsageStep::Minute, row.get(1)?);
            let id = Id {
                account: row.get(0)?,
                step,
                at,
                key: row.get(2)?,
                route: row.get(3)?,
                outcome: row.get(4)?,
            };
            Ok((id, UsageCount { requests: row.get(5)?, ..UsageCount::default() }, row.get(6)?))
        };
        let (id, count, charged) = read().map_err(failed)?;
        sums.add_minute(&id, &count, charged);
    }
    tx.prepare_cached(COUNTED).and_then(|mut update| update.execute([])).map(drop).map_err(failed)
}

/// True if there are rows that are older than their retention.
pub(super) fn has_old(connection: &Connection, keep: &UsageRetention) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM usage WHERE step = 1 AND at < ?1)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 60 AND at < ?2)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 1440 AND at < ?3)";
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    select.query_row(params![keep.minutes, keep.hours, keep.days], |row| row.get(0)).map_err(failed)
}

/// From when on there are intervals of each length.
fn kept(connection: &Connection) -> Result<UsageRetention> {
    let sql = "SELECT max(usage_minutes_from, usage_hours_from), usage_hours_from FROM journal";
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    let read = |row: &Row<'_>| Ok(UsageRetention { minutes: row.get(0)?, hours: row.get(1)?, days: 0 });
    select.query_row([], read).map_err(failed)
}

/// Deletes rows that are older than their retention, at most `most`. True if there may be more.
pub(super) fn prune(tx: &Transaction<'_>, keep: &UsageRetention, most: usize) -> Result<bool> {
    // Intervals of which some rows are deleted are not read any more.
    let sql = "UPDATE journal SET usage_minutes_from = max(usage_minutes_from, ?1),
                   usage_hours_from = max(usage_hours_from, ?2)";
    tx.execute(sql, params![keep.minutes, keep.hours]).map_err(failed)?;
    let sql = "DELETE FROM usage WHERE (account, step, at, key, route, outcome) IN (SELECT account, step, at, key, route,
                   outcome FROM usage WHERE step = ?1 AND at < ?2 LIMIT ?3)";
    let mut left = most;
    for (step, before) in UsageStep::ALL.into_iter().zip([keep.minutes, keep.hours, keep.days]) {
        let deleted = tx.execute(sql, params![step.minutes(), before, left]).map_err(failed)?;
        left = left.saturating_sub(deleted);
    }
    Ok(left == 0)
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
