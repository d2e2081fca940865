//! Asks the operator's billing for credits of accounts whose balance is low, or whose time has come.

use serde_json::json;

use super::db::{Connection, Row, Transaction, params};
use super::events::emit;
use super::rows::account_id;
use crate::ledger::store::{EventKind, EventRow, RenewalRow, Result};
use crate::types::{AccountId, AccountNum, Credits, WallTime};

/// Replaces how an account is renewed.
pub(super) fn set(tx: &Transaction<'_>, account: AccountNum, renewal: &RenewalRow) -> Result<()> {
    let (below, top_up) = renewal.top_up.unzip();
    let renew = renewal.renew.map(|(credits, every, at)| (credits.millionths(), every, at.0));
    let sql = "INSERT INTO renewals (account, below, top_up, renew, every, renew_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (account) DO UPDATE SET below = excluded.below, top_up = excluded.top_up,
                   renew = excluded.renew, every = excluded.every, renew_at = excluded.renew_at";
    let values = params![
        account.0,
        below.map(Credits::millionths),
        top_up.map(Credits::millionths),
        renew.map(|it| it.0),
        renew.map(|it| it.1),
        renew.map(|it| it.2),
    ];
    tx.run(sql, values)
}

/// How an account is renewed.
pub(super) fn get(connection: &Connection, id: &AccountId) -> Result<RenewalRow> {
    let sql = "SELECT r.below, r.top_up, r.renew, r.every, r.renew_at FROM renewals r
               JOIN accounts a ON a.num = r.account WHERE a.id = ?1";
    let row = connection.find(sql, params![id.as_str()], |row| {
        let credits =
            |at| row.get::<Option<i64>>(at).map(|millionths| millionths.map(Credits::from_millionths));
        let times = (row.get::<Option<i64>>(3)?, row.get::<Option<i64>>(4)?.map(WallTime));
        let renew = credits(2)?.zip(times.0.zip(times.1)).map(|(credits, (every, at))| (credits, every, at));
        Ok(RenewalRow { top_up: credits(0)?.zip(credits(1)?), renew })
    });
    Ok(row?.unwrap_or_default())
}

/// True if an endpoint of the operator takes such messages. Without one, nothing is asked for, so that nothing is lost.
fn is_heard(tx: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM endpoints WHERE account = 0 AND disabled IS NULL
                   AND (events IS NULL OR events LIKE '%\"' || ?1 || '\"%'))";
    tx.one(sql, params![EventKind::TopUpRequested.name()], |row| row.get(0))
}

/// Asks for the credits of a top-up if the balance is low, once until the balance is no longer low.
pub(super) fn top_up(tx: &Transaction<'_>, account: AccountNum, at: WallTime) -> Result<()> {
    let sql = "UPDATE renewals SET asked = 0 FROM accounts a
               WHERE account = ?1 AND a.num = account AND asked = 1 AND a.balance >= below";
    tx.run(sql, params![account.0])?;
    if !is_heard(tx)? {
        return Ok(());
    }
    let sql = "UPDATE renewals SET asked = 1, number = number + 1 FROM accounts a
               WHERE account = ?1 AND a.num = account AND asked = 0 AND a.balance < below AND a.state = 'active' AND a.closed IS NULL
               RETURNING top_up, number, below";
    let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<Option<i64>>(2)?));
    match tx.find(sql, params![account.0], columns)? {
        Some((credits, number, below)) => ask(tx, account, (credits, number), below, at),
        None => Ok(()),
    }
}

/// Asks for the credits of renewals that are due.
pub(super) fn due(tx: &Transaction<'_>, now: WallTime, most: usize) -> Result<usize> {
    if !is_heard(tx)? {
        return Ok(0);
    }
    let sql =
        "UPDATE renewals SET number = number + 1, renew_at = renew_at + every * ((?1 - renew_at) / every + 1)
               WHERE account IN (SELECT r.account FROM renewals r JOIN accounts a ON a.num = r.account
                                 WHERE r.renew_at <= ?1 AND a.state = 'active' AND a.closed IS NULL ORDER BY r.renew_at LIMIT ?2)
               RETURNING account, renew, number";
    let columns = |row: &Row<'_>| Ok((AccountNum(row.get(0)?), row.get(1)?, row.get(2)?));
    let rows: Vec<(AccountNum, i64, i64)> = tx.all(sql, params![now.0, most], columns)?;
    for (account, credits, number) in &rows {
        ask(tx, *account, (*credits, *number), None, now)?;
    }
    Ok(rows.len())
}

fn ask(
    tx: &Transaction<'_>,
    account: AccountNum,
    (credits, number): (i64, i64),
    below: Option<i64>,
    at: WallTime,
) -> Result<()> {
    let sql = "SELECT id, balance FROM accounts WHERE num = ?1";
    let columns = |row: &Row<'_>| Ok((account_id(row, 0)?, row.get::<i64>(1)?));
    let (id, balance) = tx.one(sql, params![account.0], columns)?;
    let data = json!({
        "account": id,
        "cause": if below.is_some() { "low_balance" } else { "renewal" },
        "credits": Credits::from_millionths(credits),
        "balance": Credits::from_millionths(balance),
        "below": below.map(Credits::from_millionths),
        "reference": format!("top-up-{number}"),
    });
    let event = EventRow { account: Some(id), kind: EventKind::TopUpRequested, data, once: None };
    emit(tx, account, &event, at)
}
