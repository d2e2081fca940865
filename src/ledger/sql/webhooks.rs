//! Writes and reads webhooks in the ledger.

use serde_json::json;

use super::SqlBooks;
use super::db::{Connection, Row, Transaction, params};
use super::events::{add_delivery, add_message, number_of, thresholds};
use super::renewals;
use super::rows::{account_id, to_key_id};
use crate::ledger::sql::db::SqlReader;
use crate::ledger::store::{
    AfterAttempt, Attempt, DeliveriesOf, DeliveryRow, DueDelivery, EndpointRow, EventKind, EventRow,
    ExpiringKey, LedgerError, Notes, RenewalRow, Result, Source, WebhookReader, Webhooks,
};
use crate::types::{AccountId, Credits, KeyNum, WallTime};

const ENDPOINTS: &str =
    "SELECT e.id, a.id, e.url, e.events, e.source, e.secret, e.old_secret, e.old_until, e.disabled,
         e.created FROM endpoints e LEFT JOIN accounts a ON a.num = e.account";
const COLUMNS: usize = 10;
/// Most messages that are sent to one endpoint at the same time, so that one that hangs delays no other.
const AT_ONCE: u32 = 4;

fn put(tx: &Transaction<'_>, row: &EndpointRow) -> Result<()> {
    let account = number_of(tx, row.account.as_ref())?.0;
    let known = "SELECT 1 FROM endpoints WHERE account = ?1 AND url = ?2 AND id <> ?3";
    if tx.exists(known, params![account, row.url, row.id])? {
        return Err(LedgerError::Taken("this URL is an endpoint of the account already".to_owned()));
    }
    let events = row.events.as_ref().map(|events| {
        let names: Vec<&str> = events.iter().map(|kind| kind.name()).collect();
        json!(names).to_string()
    });
    let source = if row.source == Source::File { "file" } else { "store" };
    let (old, until) = row.old.as_ref().map(|(secret, until)| (secret, until.0)).unzip();
    let sql = "INSERT INTO endpoints (id, account, url, events, source, secret, old_secret, old_until, disabled, created)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
               ON CONFLICT (id) DO UPDATE SET events = excluded.events, source = excluded.source,
                   secret = excluded.secret, old_secret = excluded.old_secret, old_until = excluded.old_until,
                   disabled = excluded.disabled";
    let values = params![
        row.id,
        account,
        row.url,
        events,
        source,
        row.secret,
        old,
        until,
        row.disabled,
        row.created.0
    ];
    tx.run(sql, values)?;
    // Nothing was written about accounts while no endpoint wanted to know.
    let told = "UPDATE accounts SET exhausted = 0 WHERE exhausted = 1 AND (num = ?1 OR ?1 = 0)";
    tx.run(told, params![account])
}

fn find(tx: &Connection, id: &str) -> Result<(i64, EndpointRow)> {
    let sql = format!("{ENDPOINTS} WHERE e.id = ?1");
    let row = tx.find(&sql, params![id], endpoint_row)?;
    let row = row.ok_or_else(|| LedgerError::Unknown(format!("there is no endpoint {id}")))?;
    let num = tx.one("SELECT num FROM endpoints WHERE id = ?1", params![id], |row| row.get(0))?;
    Ok((num, row))
}

fn endpoint_row(row: &Row<'_>) -> Result<EndpointRow> {
    let has_account = row.text_or_null(1)?.is_some();
    let names: Option<Vec<String>> =
        row.get::<Option<String>>(3)?.and_then(|text| serde_json::from_str(&text).ok());
    let source: String = row.get(4)?;
    let (old, until): (Option<String>, Option<i64>) = (row.get(6)?, row.get(7)?);
    Ok(EndpointRow {
        id: row.get(0)?,
        account: has_account.then(|| account_id(row, 1)).transpose()?,
        url: row.get(2)?,
        events: names.map(|names| names.iter().filter_map(|name| EventKind::named(name)).collect()),
        source: if source == "file" { Source::File } else { Source::Store },
        secret: row.get(5)?,
        old: old.zip(until.map(WallTime)),
        disabled: row.get(8)?,
        created: WallTime(row.get(9)?),
    })
}

/// The id of the endpoint and the number of the account whose deliveries are meant; one of them.
fn owner<'a>(tx: &Connection, of: &'a DeliveriesOf) -> Result<(Option<&'a str>, Option<u32>)> {
    match of {
        DeliveriesOf::Endpoint(id) => Ok((Some(id), None)),
        DeliveriesOf::Account(id) => Ok((None, Some(number_of(tx, Some(id))?.0))),
    }
}

impl Webhooks for SqlBooks {
    fn put_endpoint(&mut self, row: &EndpointRow, notes: &Notes<EndpointRow>, at: WallTime) -> Result<()> {
        self.change(notes, at, |tx| put(tx, row).map(|()| row.clone())).map(drop)
    }

    fn set_thresholds(
        &mut self,
        account: &AccountId,
        thresholds: &[Credits],
        notes: &Notes<()>,
        at: WallTime,
    ) -> Result<()> {
        self.change(notes, at, |tx| {
            let account = number_of(tx, Some(account))?;
            let millionths: Vec<i64> = thresholds.iter().map(|credits| credits.millionths()).collect();
            let text = (!millionths.is_empty()).then(|| json!(millionths).to_string());
            let sql = "UPDATE accounts SET credits_low = ?2 WHERE num = ?1";
            tx.run(sql, params![account.0, text])
        })
    }

    fn set_renewal(
        &mut self,
        account: &AccountId,
        renewal: &RenewalRow,
        notes: &Notes<()>,
        at: WallTime,
    ) -> Result<()> {
        self.change(notes, at, |tx| {
            let account = number_of(tx, Some(account))?;
            renewals::set(tx, account, renewal)?;
            renewals::top_up(tx, account, at)
        })
    }

    fn renew_due(&mut self, now: WallTime, most: usize) -> Result<usize> {
        self.write(|tx| renewals::due(tx, now, most))
    }

    fn delete_endpoint(&mut self, id: &str, notes: &Notes<EndpointRow>, at: WallTime) -> Result<()> {
        let deleted = self.change(notes, at, |tx| {
            let (num, row) = find(tx, id)?;
            tx.run("DELETE FROM endpoints WHERE num = ?1", params![num])?;
            Ok(row)
        });
        deleted.map(drop)
    }

    fn change_file_endpoints(&mut self, gone: &[String], new: &[EndpointRow]) -> Result<()> {
        self.write(|tx| {
            for id in gone {
                tx.run("DELETE FROM endpoints WHERE id = ?1 AND source = 'file'", params![id])?;
            }
            for row in new {
                match put(tx, row) {
                    Err(LedgerError::Taken(_)) => {} // it was added by an operator before
                    other => other?,
                }
            }
            Ok(())
        })
    }

    fn attempted(&mut self, attempts: &[Attempt], at: WallTime) -> Result<()> {
        self.write(|tx| {
            for Attempt { num, status, error, then } in attempts {
                let (next, delivered) = match then {
                    AfterAttempt::Delivered => (None, Some(at.0)),
                    AfterAttempt::Retry(next) => (Some(next.0), None),
                    AfterAttempt::GiveUp | AfterAttempt::Disable => (None, None),
                };
                let sql =
                    "UPDATE deliveries SET attempts = attempts + 1, next_at = ?2, status = ?3, error = ?4,
                               delivered = ?5 WHERE num = ?1";
                tx.run(sql, params![num, next, status, error, delivered])?;
                if *then == AfterAttempt::Disable {
                    let sql = "UPDATE endpoints SET disabled = 'it answered 410 Gone'
                               WHERE num = (SELECT endpoint FROM deliveries WHERE num = ?1)";
                    tx.run(sql, params![num])?;
                    let sql = "UPDATE deliveries SET next_at = NULL
                               WHERE endpoint = (SELECT endpoint FROM deliveries WHERE num = ?1)";
                    tx.run(sql, params![num])?;
                }
            }
            Ok(())
        })
    }

    fn replay(&mut self, num: u64, of: &DeliveriesOf, notes: &Notes<u64>, at: WallTime) -> Result<u64> {
        self.change(notes, at, |tx| {
            let (endpoint, account) = owner(tx, of)?;
            let sql = "SELECT d.message, d.endpoint FROM deliveries d JOIN endpoints e ON e.num = d.endpoint
                       WHERE d.num = ?1 AND (e.id = ?2 OR e.account = ?3)";
            let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let found = tx.find(sql, params![num, endpoint, account], columns)?;
            let unknown = || LedgerError::Unknown(format!("there is no delivery {num}"));
            let (message, to) = found.ok_or_else(unknown)?;
            add_delivery(tx, message, to, at)
        })
    }

    fn send_to(&mut self, endpoint: &str, event: &EventRow, notes: &Notes<u64>, at: WallTime) -> Result<u64> {
        self.change(notes, at, |tx| {
            let (to, row) = find(tx, endpoint)?;
            let account = number_of(tx, row.account.as_ref())?;
            let message = add_message(tx, account, event, at)?;
            add_delivery(tx, message, to, at)
        })
    }

    fn prune_deliveries(&mut self, before: WallTime) -> Result<()> {
        let sql = "SELECT EXISTS (SELECT 1 FROM messages WHERE at < ?1)";
        let has_old: bool = self.connection.one(sql, params![before.0], |row| row.get(0))?;
        if !has_old {
            return Ok(());
        }
        self.write(|tx| {
            // One that still waits by now belongs to an endpoint that is disabled.
            let sql = "DELETE FROM deliveries WHERE message IN
                           (SELECT num FROM messages WHERE at < ?1 LIMIT 10000)";
            tx.run(sql, params![before.0])?;
            let sql = "DELETE FROM messages WHERE at < ?1
                           AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message = messages.num)";
            tx.run(sql, params![before.0])?;
            // What was sent once for a key that has expired by now.
            tx.run("DELETE FROM notices WHERE at < ?1", params![before.0])
        })
    }
}

impl WebhookReader for SqlReader {
    fn endpoints(&mut self, of: Option<Option<&AccountId>>) -> Result<Vec<EndpointRow>> {
        let connection = self.db()?;
        let account = of.map(|of| number_of(connection, of)).transpose()?.map(|account| account.0);
        let sql = format!("{ENDPOINTS} WHERE e.account = ?1 OR ?1 IS NULL ORDER BY e.num");
        connection.all(&sql, params![account], endpoint_row)
    }

    fn endpoint(&mut self, id: &str) -> Result<Option<EndpointRow>> {
        let sql = format!("{ENDPOINTS} WHERE e.id = ?1");
        self.db()?.find(&sql, params![id], endpoint_row)
    }

    fn thresholds(&mut self, account: &AccountId) -> Result<Vec<Credits>> {
        let connection = self.db()?;
        thresholds(connection, number_of(connection, Some(account))?)
    }

    fn renewal(&mut self, account: &AccountId) -> Result<RenewalRow> {
        renewals::get(self.db()?, account)
    }

    fn failing(&mut self, most: usize) -> Result<Vec<EndpointRow>> {
        let sql = format!(
            "{ENDPOINTS} WHERE e.account <> 0 AND (e.disabled IS NOT NULL OR EXISTS (SELECT 1 FROM deliveries d
                 WHERE d.endpoint = e.num AND d.next_at IS NOT NULL AND d.attempts > 0)) ORDER BY e.num LIMIT ?1"
        );
        self.db()?.all(&sql, params![most], endpoint_row)
    }

    fn due(&mut self, now: WallTime, most: usize) -> Result<Vec<DueDelivery>> {
        let connection = self.db()?;
        let columns = ENDPOINTS.split(" FROM ").next().unwrap_or_default();
        // Steps from one endpoint with waiting messages to the next in the index, so that the time does not depend on how
        // many messages wait.
        let sql = format!(
            "WITH RECURSIVE waiting (endpoint) AS (
                 SELECT min(endpoint) FROM deliveries WHERE next_at IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(d.endpoint) FROM deliveries d WHERE d.next_at IS NOT NULL AND d.endpoint > w.endpoint)
                 FROM waiting w WHERE w.endpoint IS NOT NULL)
             {columns}, d.num, m.id, m.body, d.attempts
             FROM waiting w JOIN endpoints e ON e.num = w.endpoint AND e.disabled IS NULL
             JOIN deliveries d ON d.num IN (SELECT num FROM deliveries WHERE endpoint = w.endpoint AND next_at <= ?1
                                            ORDER BY next_at LIMIT {AT_ONCE})
             JOIN messages m ON m.num = d.message LEFT JOIN accounts a ON a.num = e.account
             ORDER BY d.next_at, d.num LIMIT ?2"
        );
        connection.all(&sql, params![now.0, most], |row| {
            Ok(DueDelivery {
                num: row.get(COLUMNS)?,
                message: row.get(COLUMNS + 1)?,
                endpoint: endpoint_row(row)?,
                body: row.get(COLUMNS + 2)?,
                attempts: row.get(COLUMNS + 3)?,
            })
        })
    }

    fn deliveries(
        &mut self,
        of: &DeliveriesOf,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<DeliveryRow>> {
        let connection = self.db()?;
        let (endpoint, account) = owner(connection, of)?;
        let sql = "SELECT d.num, m.id, e.id, m.kind, m.at, d.attempts, d.next_at, d.status, d.error, d.delivered
                   FROM deliveries d JOIN messages m ON m.num = d.message JOIN endpoints e ON e.num = d.endpoint
                   WHERE (e.id = ?1 OR e.account = ?2) AND d.num < ?3 ORDER BY d.num DESC LIMIT ?4";
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let time = |row: &Row<'_>, at| row.get::<Option<i64>>(at).map(|time| time.map(WallTime));
        connection.all(sql, params![endpoint, account, before, most], |row| {
            Ok(DeliveryRow {
                num: row.get(0)?,
                message: row.get(1)?,
                endpoint: row.get(2)?,
                kind: row.get(3)?,
                at: WallTime(row.get(4)?),
                attempts: row.get(5)?,
                next_at: time(row, 6)?,
                status: row.get(7)?,
                error: row.get(8)?,
                delivered: time(row, 9)?,
            })
        })
    }

    fn expiring(
        &mut self,
        (from, to): (WallTime, WallTime),
        after: Option<(WallTime, KeyNum)>,
        most: usize,
    ) -> Result<Vec<ExpiringKey>> {
        let object = self.db()?.dialect(
            "printf('%016x/%d', k.id, k.expires)",
            "lpad(to_hex(k.id), 16, '0') || '/' || k.expires",
        );
        let sql = format!(
            "SELECT k.num, k.id, a.id, k.expires FROM keys k JOIN accounts a ON a.num = k.account
             WHERE (k.expires, k.num) > (?1, ?3) AND k.expires <= ?2 AND k.state = 'active'
                 AND NOT EXISTS (SELECT 1 FROM notices WHERE kind = ?4 AND object = {object})
             ORDER BY k.expires, k.num LIMIT ?5"
        );
        let (from, after) = after.unwrap_or((from, KeyNum(u32::MAX)));
        let values = params![from.0, to.0, after.0, EventKind::KeyExpiring.name(), most];
        self.db()?.all(&sql, values, |row| {
            let (num, id) = (KeyNum(row.get(0)?), to_key_id(row.get(1)?));
            Ok(ExpiringKey { num, id, account: account_id(row, 2)?, expires: WallTime(row.get(3)?) })
        })
    }
}
