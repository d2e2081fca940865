//! Leases of credits, in the tables of a database.
//!
//! What is leased is `granted` in one table, what of it was spent is in another: the thread of the leases writes the first
//! and never waits for a fold, which writes the second. A fold changes a balance and what was spent in one transaction, so
//! the free credits of an account, its balance less all that is granted and not spent, are not changed by it. They become fewer only
//! by being granted, under a lock of the account.
//!
//! What spending limits leave is leased in the same way. In the column `account` is what a lease is of, as a number.

use std::collections::HashMap;
use std::sync::Arc;

use super::dial::{Hints, connect_for_leases, write_call};
use super::fence::Fence;
use super::nodes;
use super::server::{JournalAt, Server};
use crate::ledger::sql::db::{Connection, Row, Seat, Transaction, params, wrong};
use crate::ledger::sql::leases::{CHANNEL, NOW};
use crate::ledger::sql::rows::{credits, to_key_id};
use crate::ledger::sql::{FLEET, repeats};
use crate::ledger::store::{
    Beat, Change, ChangedWhat, Changes, Elsewhere, LeaseOf, LeaseWanted, Leased, Leases, OnHint, OpenAs,
    RepeatRow, Result,
};
use crate::policy::credit::lease;
use crate::types::{Credits, KeyHash, RequestId, WallTime};

/// Key of the locks under which credits of an account are granted: `TGLA`.
const GRANTS: i64 = 0x5447_4c41;
/// Key of the lock of the gateway that does what one at a time does: `TGLE`.
const LEADS: i64 = 0x5447_4c45;
/// How long a gateway that was seen counts as living, in milliseconds.
const LIVES: i64 = 5_000;
/// How long a gateway was not seen that counts as lost, in milliseconds.
const LOST: i64 = 10_000;
/// How long a call for credits lasts, in milliseconds.
const CALL: i64 = 2_000;
/// A call is made again each time that so many attempts to lease have failed. They are at least 25 ms apart.
const CALL_AGAIN: u32 = 8;
/// Most changes that are read at once.
const MAX_CHANGES: usize = 1_000;
/// Most changes that are stored. A gateway that knows none of them reads everything again.
const MAX_STORED: usize = 100_000;

/// The leases of a gateway.
pub(super) struct SqlLeases {
    connection: Connection,
    hints: Arc<Hints>,
    server: Server,
    /// What this gateway needs more of than is free, and how often it could not lease it.
    calls: HashMap<LeaseOf, u32>,
}

impl SqlLeases {
    pub(super) fn open(server: &Server, seat: Seat, fence: &Arc<Fence>) -> Result<Self> {
        let hints = Arc::new(Hints::new(seat.node));
        let connection = connect_for_leases(server, seat, fence, &hints)?;
        connection.exists("SELECT 1", params![])?; // connects, and takes its lock
        Ok(Self { connection, hints, server: server.clone(), calls: HashMap::new() })
    }
}

impl SqlLeases {
    /// Tells other gateways what was called for by the last transaction. Not within it, since a transaction that notifies holds a
    /// lock of the server while it commits.
    fn tell_calls(&self, wanted: &[LeaseWanted]) {
        let is_new = |of: &LeaseOf| self.calls.get(of).is_some_and(|failed| failed % CALL_AGAIN == 1);
        let called: Vec<LeaseOf> = wanted.iter().map(|wanted| wanted.of).filter(is_new).collect();
        if called.is_empty() {
            return;
        }
        let call = write_call(self.connection.node(), &called);
        if let Err(error) = self.connection.exists("SELECT pg_notify(?1, ?2)", params![CHANNEL, call]) {
            tracing::debug!(%error, "other gateways will read what is called for");
        }
    }
}

impl Leases for SqlLeases {
    fn own(&mut self) -> Result<Vec<(LeaseOf, Credits)>> {
        let sql = "SELECT account, CAST(sum(amount) AS BIGINT) FROM (
                       SELECT account, granted AS amount FROM leases WHERE node = ?1
                       UNION ALL SELECT account, -spent FROM spends WHERE node = ?1) AS own
                   GROUP BY account ORDER BY account";
        self.connection.all(sql, params![self.connection.node()], amount_row)
    }

    fn lease(&mut self, wanted: &[LeaseWanted]) -> Result<Vec<Leased>> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| (lock_of(wanted[*at].of), wanted[*at].of)); // all gateways lock in the same order
        let calls = &mut self.calls;
        let mut leased = self.connection.shared_transaction(|tx| {
            order.iter().map(|at| Ok((*at, lease_one(tx, &wanted[*at], calls)?))).collect::<Result<Vec<_>>>()
        })?;
        self.tell_calls(wanted);
        leased.sort_by_key(|(at, _)| *at);
        Ok(leased.into_iter().map(|(_, leased)| leased).collect())
    }

    fn give_back(&mut self, idle: &[(LeaseOf, Credits)]) -> Result<()> {
        let sql = "INSERT INTO leases (account, node, granted) VALUES (?1, ?2, ?3)
                   ON CONFLICT (account, node) DO UPDATE SET granted = leases.granted + excluded.granted";
        self.connection.shared_transaction(|tx| {
            let mut some = idle.iter().filter(|(_, amount)| !amount.is_zero());
            some.try_for_each(|(of, amount)| {
                tx.run(sql, params![of.number(), tx.node(), -amount.millionths()])
            })
        })
    }

    fn called_in(&mut self) -> Result<Vec<LeaseOf>> {
        let sql = format!(
            "SELECT DISTINCT c.account FROM calls c JOIN leases l ON l.account = c.account AND l.node = ?1
             WHERE c.node <> ?1 AND c.at > {NOW} - ?2"
        );
        self.connection.all(&sql, params![self.connection.node(), CALL], of_row)
    }

    fn beat(&mut self) -> Result<Beat> {
        let (db, node) = (&self.connection, self.connection.node());
        let beat = format!(
            "INSERT INTO beats (node, seen) VALUES (?1, {NOW}) ON CONFLICT (node) DO UPDATE SET seen = excluded.seen"
        );
        db.write_one(&beat, params![node])?;
        let leads = "SELECT pg_try_advisory_lock(CAST(?1 AS INTEGER), 0)";
        let leads = db.one(leads, params![LEADS], |row| row.get(0))?;
        if leads {
            let old = "DELETE FROM changes WHERE version <= (SELECT max(version) FROM changes) - ?1";
            db.write_one(old, params![MAX_STORED])?;
        }
        let nodes = format!("SELECT count(*) FROM beats WHERE seen > {NOW} - ?1");
        let nodes = db.one(&nodes, params![LIVES], |row| row.get(0))?;
        let elsewhere = format!(
            "SELECT l.account, {}, l.granted - coalesce(s.spent, 0), coalesce(j.jobs, 0) FROM leases l
             LEFT JOIN spends s ON s.account = l.account AND s.node = l.node
             LEFT JOIN open_jobs j ON j.account = l.account
             WHERE l.node = ?1 AND (l.granted <> coalesce(s.spent, 0) OR j.jobs IS NOT NULL)",
            total("l.account")
        );
        let elsewhere = db.all(&elsewhere, params![node], |row| {
            let (total, own) = (row.get::<Option<i64>>(1)?, credits(row, 2)?);
            let total = total.map(Credits::from_millionths).unwrap_or_default();
            let credits = total.checked_sub(own).unwrap_or_default();
            Ok((of_row(row)?, Elsewhere { credits, jobs: row.get(3)? }))
        })?;
        Ok(Beat { leads, nodes, elsewhere })
    }

    fn leave(&mut self) -> Result<()> {
        self.connection.shared_transaction(|tx| {
            let node = tx.node();
            nodes::give_jobs_to_fleet(tx, node)?;
            for table in ["calls", "leases", "spends", "beats", "claims"] {
                tx.run(&format!("DELETE FROM {table} WHERE node = ?1"), params![node])?;
            }
            let kept = "INSERT INTO leases (account, node, granted)
                SELECT account, node, CAST(sum(amount) AS BIGINT) FROM open_holds WHERE node = ?1 GROUP BY account, node";
            tx.run(kept, params![node])
        })
    }

    fn claim(&mut self, wanted: &[RepeatRow], now: WallTime) -> Result<Vec<Option<RepeatRow>>> {
        self.connection.shared_transaction(|tx| {
            tx.run("SET LOCAL lock_timeout = '500ms'", params![])?; // a fold of another gateway may hold a claim
            repeats::claim(tx, wanted, now)
        })
    }

    fn give_up_claims(&mut self, claims: &[(KeyHash, RequestId)]) -> Result<()> {
        self.connection.shared_transaction(|tx| repeats::give_up(tx, claims))
    }

    fn on_hint(&mut self, hinted: OnHint) {
        self.hints.on_hint(hinted);
    }

    fn version(&mut self) -> Result<u64> {
        self.connection.one("SELECT coalesce(max(version), 0) FROM changes", params![], |row| row.get(0))
    }

    fn changes(&mut self, after: u64) -> Result<Changes> {
        let sql =
            "SELECT version, account, key, gone FROM changes WHERE version > ?1 ORDER BY version LIMIT ?2";
        let some = self.connection.all(sql, params![after, MAX_CHANGES], change_row)?;
        match some.first() {
            Some(first) if first.version > after + 1 => self.version().map(Changes::Lost),
            _ => Ok(Changes::Some(some)),
        }
    }

    fn lost(&mut self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT n.name FROM nodes n JOIN beats b ON b.node = n.num
             WHERE n.num <> ?1 AND b.seen < {NOW} - ?2 AND n.mark IS NULL ORDER BY n.name"
        );
        self.connection.all(&sql, params![self.connection.node(), LOST], |row| row.get(0))
    }

    fn opener(&self) -> OpenAs {
        let server = self.server.clone();
        Box::new(move |node| {
            super::open(&Server { node: Some(node.to_owned()), ..server.clone() }, &JournalAt::Shared)
        })
    }
}

fn of_row(row: &Row<'_>) -> Result<LeaseOf> {
    LeaseOf::of_number(row.get(0)?).ok_or_else(|| wrong(0, "a lease of nothing"))
}

fn amount_row(row: &Row<'_>) -> Result<(LeaseOf, Credits)> {
    Ok((of_row(row)?, credits(row, 1)?))
}

/// What there is to lease of something, in SQL: the balance of an account, or what a spending limit leaves, each less what jobs
/// of the fleet hold. Null if there is no such account or limit. `of`: its number, as [`LeaseOf::number`].
fn total(of: &str) -> String {
    let held = |whose: &str| {
        format!(
            "coalesce((SELECT sum(o.amount) FROM open_holds o
                       WHERE o.external_id IS NOT NULL AND o.node = {FLEET} AND {whose}), 0)"
        )
    };
    let left = "spend_limit - spent + spent_before";
    let (of_key, of_limit) = (held("o.account = k.account AND o.key = k.num"), held("o.account = a.num"));
    let of_group =
        held("o.account = g.account AND o.key IN (SELECT num FROM keys WHERE spend_group = g.num)");
    format!(
        "CAST(CASE {of} >> 32
             WHEN 0 THEN (SELECT a.balance + coalesce((SELECT f.spent FROM spends f
                              WHERE f.account = a.num AND f.node = {FLEET}), 0) FROM accounts a WHERE a.num = {of})
             WHEN 1 THEN (SELECT {left} - {of_key} FROM keys k WHERE k.num = ({of} & 4294967295))
             WHEN 2 THEN (SELECT {left} - {of_group} FROM spend_groups g WHERE g.num = ({of} & 4294967295))
             ELSE (SELECT {left} - {of_limit} FROM accounts a WHERE a.num = ({of} & 4294967295))
         END AS BIGINT)"
    )
}

fn change_row(row: &Row<'_>) -> Result<Change> {
    let (hashes, _) = row.blob(3)?.as_chunks::<32>();
    let what = match (row.get::<Option<String>>(1)?, row.get::<Option<i64>>(2)?) {
        (Some(account), _) => ChangedWhat::Account(account.parse().map_err(|error| wrong(1, error))?),
        (None, Some(key)) => ChangedWhat::Key(to_key_id(key)),
        (None, None) => ChangedWhat::Tokens,
    };
    Ok(Change { version: row.get(0)?, what, gone: hashes.iter().map(|hash| KeyHash(*hash)).collect() })
}

/// The lock of what is leased. Two of different kinds may have the same.
fn lock_of(of: LeaseOf) -> i64 {
    let low = u32::try_from(of.number() & i64::from(u32::MAX)).unwrap_or_default();
    i64::from(low.cast_signed())
}

fn lease_one(
    tx: &Transaction<'_>,
    wanted: &LeaseWanted,
    calls: &mut HashMap<LeaseOf, u32>,
) -> Result<Leased> {
    let LeaseWanted { of, need, least, target } = *wanted;
    let number = of.number();
    let lock = "SELECT pg_advisory_xact_lock(CAST(?1 AS INTEGER), CAST(?2 AS INTEGER))";
    tx.exists(lock, params![GRANTS, lock_of(of)])?;
    // One statement, which sees one moment.
    let state = format!(
        "WITH others AS (
            SELECT sum(amount) AS own FROM (
                SELECT node, granted AS amount FROM leases WHERE account = ?1 AND node NOT IN ({FLEET}, ?2)
                UNION ALL
                SELECT node, -spent FROM spends WHERE account = ?1 AND node NOT IN ({FLEET}, ?2)) AS each
            GROUP BY node HAVING sum(amount) > 0)
        SELECT {},
            CAST((SELECT coalesce(sum(own), 0) FROM others) AS BIGINT),
            CAST((SELECT coalesce(sum(granted), 0) FROM leases WHERE account = ?1 AND node = ?2)
                - (SELECT coalesce(sum(spent), 0) FROM spends WHERE account = ?1 AND node = ?2) AS BIGINT),
            (SELECT coalesce(max(jobs), 0) FROM open_jobs WHERE account = ?1),
            (SELECT count(*) FROM others)",
        total("CAST(?1 AS BIGINT)")
    );
    // What a gateway has spent more than it leased of a limit that was set since, it leases before it spends again.
    let (total, others, own, jobs, users) = tx.one(&state, params![number, tx.node()], |row| {
        let total: Option<i64> = row.get(0)?; // what is not there has nothing
        let total = total.map(Credits::from_millionths).unwrap_or_default();
        Ok((total, credits(row, 1)?, credits(row, 2)?, row.get(3)?, row.get::<usize>(4)? + 1))
    })?;
    let free = total.checked_sub(others).and_then(|rest| rest.checked_sub(own)).unwrap_or_default();
    let granted = lease::grant(need, least, target, free, users);
    if !granted.is_zero() || !own.is_zero() {
        let grant = "INSERT INTO leases (account, node, granted) VALUES (?1, ?2, ?3)
            ON CONFLICT (account, node) DO UPDATE SET granted = leases.granted + excluded.granted";
        tx.run(grant, params![number, tx.node(), granted.millionths()])?;
    }
    if granted < need && others > Credits::ZERO {
        let failed = calls.entry(of).or_default();
        if failed.is_multiple_of(CALL_AGAIN) {
            let call = format!(
                "INSERT INTO calls (account, node, at) VALUES (?1, ?2, {NOW})
                 ON CONFLICT (account, node) DO UPDATE SET at = excluded.at"
            );
            tx.run(&call, params![number, tx.node()])?;
        }
        *failed = failed.wrapping_add(1);
    } else if calls.remove(&of).is_some() {
        tx.run("DELETE FROM calls WHERE account = ?1 AND node = ?2", params![number, tx.node()])?;
    }
    let own = own.checked_add(granted).unwrap_or(own);
    let credits = total.checked_sub(own).unwrap_or_default();
    let free = free.checked_sub(granted).unwrap_or_default().max(Credits::ZERO);
    Ok(Leased { granted, elsewhere: Elsewhere { credits, jobs }, others, free })
}
