//! Writes events for webhooks in the transaction of what caused them, if an endpoint wants them.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::db::{Connection, Row, Transaction, params};
use super::renewals;
use super::rows::{account_id, to_key_id};
use crate::ledger::entry::{Entry, EntryKind};
use crate::ledger::store::{EventKind, EventRow, LedgerError, Once, Result};
use crate::policy::limit::ReachedLimit;
use crate::policy::outcome::usage::RefusedRequest;
use crate::policy::reject::Reason;
use crate::types::{AccountId, AccountNum, Credits, WallTime};

/// Most messages that wait at one endpoint. An endpoint with more is disabled.
const MAX_WAITING: u32 = 10_000;

/// Shortest time between two `limit.reached` about the same limit and key, in milliseconds.
const LIMIT_REACHED_EVERY: i64 = 60_000;

/// True if there is an endpoint, so that events are worth looking for.
pub(super) fn are_wanted(tx: &Connection) -> Result<bool> {
    tx.one("SELECT EXISTS (SELECT 1 FROM endpoints)", params![], |row| row.get(0))
}

/// Writes an event and its deliveries, if an endpoint of the account or of the operator wants it.
pub(super) fn emit(tx: &Transaction<'_>, account: AccountNum, event: &EventRow, at: WallTime) -> Result<()> {
    let wanted = "SELECT num FROM endpoints WHERE (account = ?1 OR account = 0) AND disabled IS NULL
                      AND (events IS NULL OR events LIKE '%\"' || ?2 || '\"%') ORDER BY num";
    let endpoints = tx.all(wanted, params![account.0, event.kind.name()], |row| row.get::<i64>(0))?;
    if !is_first(tx, event, at)? || endpoints.is_empty() {
        return Ok(());
    }
    let message = add_message(tx, account, event, at)?;
    for endpoint in endpoints {
        if !disable_if_full(tx, endpoint)? {
            add_delivery(tx, message, endpoint, at)?;
        }
    }
    Ok(())
}

/// False if the event is not sent every time for its object, and was written before.
fn is_first(tx: &Transaction<'_>, event: &EventRow, at: WallTime) -> Result<bool> {
    let Some(Once { object, per }) = &event.once else { return Ok(true) };
    let sql = "INSERT INTO notices (kind, object, at) VALUES (?1, ?2, ?3)
               ON CONFLICT (kind, object) DO UPDATE SET at = excluded.at WHERE notices.at <= excluded.at - ?4";
    Ok(tx.execute(sql, params![event.kind.name(), object, at.0, per])? > 0)
}

/// Disables an endpoint at which too many messages wait. True if it is disabled.
fn disable_if_full(tx: &Transaction<'_>, endpoint: i64) -> Result<bool> {
    let sql = "UPDATE endpoints SET disabled = ?3 WHERE num = ?1 AND ?2 <=
                   (SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE endpoint = ?1 AND next_at IS NOT NULL LIMIT ?2) AS waiting)";
    let reason = format!("{MAX_WAITING} messages wait for it");
    Ok(tx.execute(sql, params![endpoint, MAX_WAITING, reason])? > 0)
}

pub(super) fn add_message(
    tx: &Transaction<'_>,
    account: AccountNum,
    event: &EventRow,
    at: WallTime,
) -> Result<i64> {
    let body = json!({ "type": event.kind.name(), "timestamp": at.to_string(), "data": event.data });
    let sql = "INSERT INTO messages (account, kind, body, at, id) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| LedgerError::Failed(error.to_string()))?;
    let id = format!("msg_{}", hex::encode(bytes));
    tx.add(sql, "num", params![account.0, event.kind.name(), body.to_string(), at.0, id])
}

pub(super) fn add_delivery(tx: &Transaction<'_>, message: i64, endpoint: i64, at: WallTime) -> Result<u64> {
    let sql = "INSERT INTO deliveries (message, endpoint, next_at) VALUES (?1, ?2, ?3)";
    let num = tx.add(sql, "num", params![message, endpoint, at.0])?;
    Ok(num.unsigned_abs())
}

/// The number of an account; 0 for the operator.
pub(super) fn number_of(tx: &Connection, account: Option<&AccountId>) -> Result<AccountNum> {
    let Some(id) = account else { return Ok(AccountNum(0)) };
    let num = tx.find("SELECT num FROM accounts WHERE id = ?1", params![id.as_str()], |row| row.get(0))?;
    num.map(AccountNum).ok_or_else(|| LedgerError::Unknown(format!("there is no account {id}")))
}

/// Writes an event of the control plane.
pub(super) fn emit_for(tx: &Transaction<'_>, event: &EventRow, at: WallTime) -> Result<()> {
    if !are_wanted(tx)? {
        return Ok(());
    }
    emit(tx, number_of(tx, event.account.as_ref())?, event, at)
}

/// What a transaction did to an account's balance.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    id: AccountId,
    /// The balance before and after, in millionths.
    before: i64,
    after: i64,
    /// True if an entry added credits.
    gained: bool,
    /// Requests and millionths that were charged because a crash left them in doubt.
    doubts: (u64, i64),
    grants: Vec<Value>,
}

impl Moved {
    /// Starts with an account's first entry in the transaction.
    pub(super) fn from(entry: &Entry) -> Self {
        let after = entry.balance_after.millionths();
        let before = after.saturating_sub(entry.amount.millionths());
        Self { id: entry.account.clone(), before, after, gained: false, doubts: (0, 0), grants: Vec::new() }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.after = entry.balance_after.millionths();
        self.gained |= entry.amount > Credits::ZERO;
        match entry.kind {
            EntryKind::InDoubt => {
                self.doubts.0 += entry.requests;
                self.doubts.1 = self.doubts.1.saturating_sub(entry.amount.millionths());
            }
            EntryKind::Grant => self.grants.push(json!({
                "account": entry.account,
                "credits": entry.amount,
                "balance": entry.balance_after,
                "reference": entry.reference,
            })),
            _ => {}
        }
    }
}

/// Writes the events that follow from entries of an account.
pub(super) fn moved(tx: &Transaction<'_>, account: AccountNum, moved: Moved, at: WallTime) -> Result<()> {
    let Moved { id, before, after, gained, doubts, grants } = moved;
    if gained {
        let reset = "UPDATE accounts SET exhausted = 0 WHERE num = ?1 AND exhausted = 1";
        tx.run(reset, params![account.0])?;
    }
    let send =
        |kind, data| emit(tx, account, &EventRow { account: Some(id.clone()), kind, data, once: None }, at);
    for data in grants {
        send(EventKind::CreditsGranted, data)?;
    }
    if doubts.0 > 0 {
        let credits = Credits::from_millionths(doubts.1);
        let data = json!({ "account": id, "requests": doubts.0, "credits": credits });
        send(EventKind::AccountInDoubt, data)?;
    }
    let (balance, millionths) = (Credits::from_millionths(after), |credits: &Credits| credits.millionths());
    for threshold in thresholds(tx, account)? {
        if before >= millionths(&threshold) && after < millionths(&threshold) {
            let data = json!({ "account": id, "balance": balance, "threshold": threshold });
            send(EventKind::CreditsLow, data)?;
        }
    }
    renewals::top_up(tx, account, at)?;
    if before > 0 && after <= 0 { exhausted(tx, account, at) } else { Ok(()) }
}

/// The balances at which `credits.low` is sent to an account.
pub(super) fn thresholds(tx: &Connection, account: AccountNum) -> Result<Vec<Credits>> {
    let text: Option<String> = tx
        .find("SELECT credits_low FROM accounts WHERE num = ?1", params![account.0], |row| row.get(0))?
        .flatten();
    let millionths: Vec<i64> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Ok(millionths.into_iter().map(Credits::from_millionths).collect())
}

/// Writes `credits.exhausted`, once until credits are added.
fn exhausted(tx: &Transaction<'_>, account: AccountNum, at: WallTime) -> Result<()> {
    let sql = "UPDATE accounts SET exhausted = 1 WHERE num = ?1 AND exhausted = 0 RETURNING id, balance";
    let columns = |row: &Row<'_>| Ok((account_id(row, 0)?, Credits::from_millionths(row.get(1)?)));
    let Some((id, balance)) = tx.find(sql, params![account.0], columns)? else {
        return Ok(());
    };
    let data = json!({ "account": id, "balance": balance });
    emit(
        tx,
        account,
        &EventRow { account: Some(id), kind: EventKind::CreditsExhausted, data, once: None },
        at,
    )
}

/// Writes the events that follow from refused requests.
pub(super) fn refused<'a>(
    tx: &Transaction<'_>,
    requests: impl Iterator<Item = &'a RefusedRequest>,
) -> Result<()> {
    if !are_wanted(tx)? {
        return Ok(());
    }
    let (mut poor, mut limited) = (HashSet::new(), HashSet::new());
    for request in requests {
        let is_poor = request.reason == Reason::InsufficientCredits && request.limit.is_none();
        if is_poor && poor.insert(request.account) {
            exhausted(tx, request.account, request.at)?;
        }
        if let Some(limit) = &request.limit
            && limited.insert((request.account, request.key, &limit.name))
        {
            limit_reached(tx, request, limit)?;
        }
    }
    Ok(())
}

/// Writes `limit.reached`, at most once in the limit's window and in [`LIMIT_REACHED_EVERY`].
fn limit_reached(tx: &Transaction<'_>, request: &RefusedRequest, limit: &ReachedLimit) -> Result<()> {
    let sql = "SELECT a.id, (SELECT id FROM keys WHERE num = ?2) FROM accounts a WHERE a.num = ?1";
    let columns = |row: &Row<'_>| Ok((account_id(row, 0)?, row.get::<Option<i64>>(1)?.map(to_key_id)));
    let found = tx.find(sql, params![request.account.0, request.key.0], columns)?;
    let Some((account, key)) = found else { return Ok(()) };
    let data = json!({
        "account": account,
        "key": key,
        "limit": &*limit.name,
        "window_seconds": limit.window.as_secs_f64(),
    });
    let window = i64::try_from(limit.window.as_millis()).unwrap_or(i64::MAX);
    let object = format!("{}/{}/{}", request.account.0, request.key.0, limit.name);
    let once = Some(Once { object, per: Some(window.max(LIMIT_REACHED_EVERY)) });
    let event = EventRow { account: Some(account), kind: EventKind::LimitReached, data, once };
    emit(tx, request.account, &event, request.at)
}
