//! Counts usage in the ledger: in intervals of each length, and in sums of accounts and of all.

mod read;

use std::collections::{BTreeMap, HashMap};

use super::db::{Connection, Row, Transaction, params, wrong};

pub(super) use read::{read, refusals};

use super::rows::id_blob;
use crate::ledger::store::{MAX_REFUSALS, MINUTE, Result, UsageRetention, UsageStep};
use crate::policy::outcome::usage::{Durations, RefusedRequest, UsageCount, UsagePart};
use crate::types::{KeyNum, WallTime};

/// Stands for the account in the sums of all accounts.
const ALL_ACCOUNTS: i64 = -(1 << 32);
/// The intervals of sums. Minutes are added up when they are read.
pub(in crate::ledger) const SUM_STEPS: [UsageStep; 2] = [UsageStep::Hour, UsageStep::Day];

/// Adds up the entries that are not counted yet. An entry without an outcome is counted by its kind.
const ENTRIES: &str = "SELECT account, at / 60000, coalesce(key, 0), coalesce(route, 0),
            CASE WHEN kind IN ('charge', 'release') THEN coalesce(outcome, kind) ELSE kind END AS result,
            CAST(sum(CASE kind WHEN 'given_back' THEN 0 ELSE requests END) AS BIGINT), CAST(-sum(amount) AS BIGINT)
     FROM entries WHERE node = ?1 AND position > (SELECT usage_upto FROM nodes WHERE num = ?1)
         AND kind IN ('charge', 'release', 'in_doubt', 'given_back')
     GROUP BY account, at / 60000, key, route, result";
/// Entries that this node writes later have higher positions.
const COUNTED: &str =
    "UPDATE nodes SET usage_upto = (SELECT coalesce(max(position), 0) FROM entries) WHERE num = ?1";
const ADD: &str = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
     ON CONFLICT (account, step, at, key, route, outcome) DO UPDATE SET
         requests = usage.requests + excluded.requests, credits = usage.credits + excluded.credits,
         bytes_in = usage.bytes_in + excluded.bytes_in, bytes_out = usage.bytes_out + excluded.bytes_out,
         durations = excluded.durations";
const DURATIONS: &str = "SELECT durations FROM usage
     WHERE account = ?1 AND step = ?2 AND at = ?3 AND key = ?4 AND route = ?5 AND outcome = ?6";

/// What a row of the table is found by, in its order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ledger) struct Id {
    pub(in crate::ledger) account: i64,
    pub(in crate::ledger) step: UsageStep,
    pub(in crate::ledger) at: i64,
    pub(in crate::ledger) key: u32,
    pub(in crate::ledger) route: u32,
    pub(in crate::ledger) outcome: String,
}

/// The rows that are to be added, each once.
#[derive(Default)]
pub(in crate::ledger) struct Sums(BTreeMap<Id, (UsageCount, i64)>);

impl Sums {
    pub(in crate::ledger) fn add(&mut self, id: Id, count: &UsageCount, charged: i64) {
        let row = self.0.entry(id).or_default();
        row.0.merge(count);
        row.1 = row.1.saturating_add(charged);
    }

    /// Adds to the sums of the row's account, and of all accounts, if they have intervals of this length.
    pub(in crate::ledger) fn add_sums(&mut self, id: &Id, count: &UsageCount, charged: i64) {
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

    pub(in crate::ledger) fn write(self, tx: &Transaction<'_>) -> Result<()> {
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
    let known =
        tx.find(DURATIONS, params![account, step, at, key, route, outcome], |row| durations_of(row, 0))?;
    if let Some(known) = known {
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
    tx.run(ADD, values)
}

/// True if there are entries that are not counted yet.
pub(super) fn has_uncounted(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM entries
                   WHERE node = ?1 AND position > (SELECT usage_upto FROM nodes WHERE num = ?1))";
    connection.one(sql, params![connection.node()], |row| row.get(0))
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
    tx.each(ENTRIES, params![tx.node()], |row| {
        let (step, at) = (UsageStep::Minute, row.get(1)?);
        let (account, key, route, outcome) = (row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let id = Id { account, step, at, key, route, outcome };
        let count = UsageCount { requests: row.get(5)?, ..UsageCount::default() };
        sums.add_minute(&id, &count, row.get(6)?);
        Ok(())
    })?;
    tx.run(COUNTED, params![tx.node()])
}

/// True if there are rows that are older than their retention.
pub(super) fn has_old(connection: &Connection, keep: &UsageRetention) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM usage WHERE step = 1 AND at < ?1)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 60 AND at < ?2)
                   OR EXISTS (SELECT 1 FROM usage WHERE step = 1440 AND at < ?3)";
    connection.one(sql, params![keep.minutes, keep.hours, keep.days], |row| row.get(0))
}

/// From when on there are intervals of each length.
fn kept(connection: &Connection) -> Result<UsageRetention> {
    let sql = "SELECT usage_minutes_from, usage_hours_from FROM journal";
    let read = |row: &Row<'_>| {
        let (minutes, hours): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(UsageRetention { minutes: minutes.max(hours), hours, days: 0 })
    };
    connection.one(sql, params![], read)
}

/// Deletes rows that are older than their retention, at most `most`. True if there may be more.
pub(super) fn prune(tx: &Transaction<'_>, keep: &UsageRetention, most: usize) -> Result<bool> {
    // Intervals of which some rows are deleted are not read any more.
    let sql = "UPDATE journal SET
                   usage_minutes_from = CASE WHEN usage_minutes_from > ?1 THEN usage_minutes_from ELSE ?1 END,
                   usage_hours_from = CASE WHEN usage_hours_from > ?2 THEN usage_hours_from ELSE ?2 END";
    tx.run(sql, params![keep.minutes, keep.hours])?;
    let sql = "DELETE FROM usage WHERE (account, step, at, key, route, outcome) IN (SELECT account, step, at, key, route,
                   outcome FROM usage WHERE step = ?1 AND at < ?2 LIMIT ?3)";
    let mut left = most;
    for (step, before) in UsageStep::ALL.into_iter().zip([keep.minutes, keep.hours, keep.days]) {
        let deleted = tx.execute(sql, params![step.minutes(), before, left])?;
        left = left.saturating_sub(deleted);
    }
    Ok(left == 0)
}

fn note_uses(tx: &Transaction<'_>, used: &HashMap<KeyNum, WallTime>) -> Result<()> {
    let sql = "UPDATE keys SET last_used = ?2 WHERE num = ?1 AND coalesce(last_used, 0) <= ?3";
    for (key, at) in used.iter().filter(|(key, _)| key.0 != 0) {
        tx.run(sql, params![key.0, at.0, at.0 - MINUTE])?;
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
        tx.run(insert, values)?;
        accounts.insert(account.0);
    }
    let delete = "DELETE FROM refusals WHERE account = ?1 AND number <=
                      (SELECT number FROM refusals WHERE account = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    for account in accounts {
        let values = params![account, MAX_REFUSALS];
        tx.run(delete, values)?;
    }
    Ok(())
}

pub(in crate::ledger) fn durations_of(row: &Row<'_>, at: usize) -> Result<Durations> {
    let bytes = row.blob(at)?;
    Durations::from_bytes(bytes).ok_or_else(|| wrong(at, "these are no durations"))
}
