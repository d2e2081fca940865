//! Converts between SQL values and the ledger's types.

use ipnet::IpNet;

use super::db::{Row, wrong};
use crate::ledger::entry::{Entry, EntryKind, Link};
use crate::ledger::record::{ExternalId, Kept};
use crate::ledger::store::{
    AccountRow, AccountState, AuditRow, Audited, KeyRow, Position, Result, Role, Source, StoredSecret,
    TokenRow,
};
use crate::ledger::tally::OpenHold;
use crate::policy::credit::refill::Every;
use crate::policy::credit::{SpendLimit, Spending, Split};
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, GroupName, KeyHash, KeyId, KeyNum, RequestId, RouteNum, StatusClass,
    WallTime,
};

pub(super) fn id_blob(id: RequestId) -> [u8; 16] {
    id.0.to_be_bytes()
}

/// A key's id as a signed integer.
pub(super) fn key_id(id: KeyId) -> i64 {
    i64::from_be_bytes(id.0.to_be_bytes())
}

pub(in crate::ledger) fn to_key_id(id: i64) -> KeyId {
    KeyId(u64::from_be_bytes(id.to_be_bytes()))
}

pub(in crate::ledger) fn credits(row: &Row<'_>, at: usize) -> Result<Credits> {
    row.get(at).map(Credits::from_millionths)
}

/// Reads a text column whose value must be one that `parse` accepts.
pub(super) fn parsed_text<T>(row: &Row<'_>, at: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text = row.text(at)?;
    parse(text).ok_or_else(|| wrong(at, format!("{text:?} is not known")))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<Option<T>> {
    let text = row.text_or_null(at)?;
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| wrong(at, error));
    text.map(parse).transpose()
}

fn source(text: &str) -> Option<Source> {
    match text {
        "file" => Some(Source::File),
        "store" => Some(Source::Store),
        _ => None,
    }
}

pub(super) fn account_state_name(state: AccountState) -> &'static str {
    match state {
        AccountState::Active => "active",
        AccountState::Suspended => "suspended",
        AccountState::Closed => "closed", // stored as the time at which it was closed
    }
}

pub(super) fn key_state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Disabled => "disabled",
        KeyState::Revoked => "revoked",
    }
}

pub(super) fn key_state(text: &str) -> Option<KeyState> {
    [KeyState::Active, KeyState::Disabled, KeyState::Revoked]
        .into_iter()
        .find(|state| key_state_name(*state) == text)
}

pub(in crate::ledger) fn account_id(row: &Row<'_>, at: usize) -> Result<AccountId> {
    parsed_text(row, at, |text| text.parse().ok())
}

pub(in crate::ledger) fn link(row: &Row<'_>, at: usize) -> Result<Link> {
    row.get(at).map(Link)
}

/// Columns: id, num, balance, plan, state, source, opening, entries, link, name, created, closed, version, lots, and
/// those of [`spending`]. The credits by lot are read separately, if there may be some, and what
/// jobs hold.
pub(super) fn account_row(row: &Row<'_>) -> Result<AccountRow> {
    let state = |text: &str| {
        [AccountState::Active, AccountState::Suspended]
            .into_iter()
            .find(|state| account_state_name(*state) == text)
    };
    Ok(AccountRow {
        id: account_id(row, 0)?,
        num: AccountNum(row.get(1)?),
        balance: credits(row, 2)?,
        held: Credits::ZERO, // is read separately
        plan: row.get(3)?,
        state: match row.get::<Option<i64>>(11)? {
            Some(_) => AccountState::Closed,
            None => parsed_text(row, 4, state)?,
        },
        source: parsed_text(row, 5, source)?,
        opening: row.get::<Option<i64>>(6)?.map(Credits::from_millionths),
        entries: row.get(7)?,
        link: link(row, 8)?,
        name: row.get(9)?,
        created: WallTime(row.get(10)?),
        version: row.get(12)?,
        wallet: row.get::<bool>(13)?.then(Box::default),
        spending: spending(row, 14)?,
    })
}

/// Columns: id, num, account, source, state, label, environment, hint, scopes, allow_from, expires, created,
/// limits, version, last_used, those of [`spending`], the account's id, and the group's name. The secrets are read separately.
pub(super) fn key_row(row: &Row<'_>) -> Result<KeyRow> {
    Ok(KeyRow {
        id: to_key_id(row.get(0)?),
        num: KeyNum(row.get(1)?),
        account: AccountNum(row.get(2)?),
        source: parsed_text(row, 3, source)?,
        state: parsed_text(row, 4, key_state)?,
        label: row.get(5)?,
        environment: row.get(6)?,
        hint: row.get(7)?,
        scopes: json(row, 8)?,
        allow_from: json::<Vec<IpNet>>(row, 9)?,
        expires: row.get::<Option<i64>>(10)?.map(WallTime),
        created: WallTime(row.get(11)?),
        limits: row.get(12)?,
        version: row.get(13)?,
        last_used: row.get::<Option<i64>>(14)?.map(WallTime),
        spending: spending(row, 15)?,
        group: row.text_or_null(21)?.map(|_| group_name(row, 21)).transpose()?,
        secrets: Vec::new(),
    })
}

/// Columns: hash, until, the key's id, num, account, state, expires, scopes, allow_from, limits.
pub(super) fn secret_row(row: &Row<'_>) -> Result<StoredSecret> {
    Ok(StoredSecret {
        hash: KeyHash(row.get(0)?),
        until: row.get::<Option<i64>>(1)?.map(WallTime),
        id: to_key_id(row.get(2)?),
        num: KeyNum(row.get(3)?),
        account: AccountNum(row.get(4)?),
        state: parsed_text(row, 5, key_state)?,
        expires: row.get::<Option<i64>>(6)?.map(WallTime),
        scopes: json(row, 7)?,
        allow_from: json(row, 8)?,
        limits: row.get(9)?,
    })
}

pub(in crate::ledger) fn entry_kind(row: &Row<'_>, at: usize) -> Result<EntryKind> {
    parsed_text(row, at, EntryKind::named)
}

/// The name of a group in a column.
pub(super) fn group_name(row: &Row<'_>, at: usize) -> Result<GroupName> {
    parsed_text(row, at, |text| text.parse().ok())
}

/// Columns from `at`: spend_limit, spent, spend_every, spent_before, spend_period.
pub(super) fn spending(row: &Row<'_>, at: usize) -> Result<Spending> {
    let has_period = row.text_or_null(at + 2)?.is_some();
    let every = |name: &str| Every::ALL.into_iter().find(|every| every.name() == name);
    let every = has_period.then(|| parsed_text(row, at + 2, every)).transpose()?;
    let limit = row.get::<Option<i64>>(at)?.map(Credits::from_millionths);
    Ok(Spending {
        limit: limit.map(|credits| SpendLimit { credits, every }),
        spent: credits(row, at + 1)?,
        before: credits(row, at + 3)?,
        period: row.get::<Option<i64>>(at + 4)?.map(WallTime),
    })
}

fn split(row: &Row<'_>, at: usize, amount: Credits) -> Result<Split> {
    let text = row.text_or_null(at)?;
    Split::parse(text, amount).ok_or_else(|| wrong(at, format!("{text:?} is no split of {amount}")))
}

/// Columns: number, at, the account's id, kind, amount, balance_after, the route's name, requests, reference, actor,
/// link, bucket, the key's id, outcome.
pub(super) fn entry_row(row: &Row<'_>) -> Result<Entry> {
    let outcome = row.text_or_null(13)?.is_some();
    Ok(Entry {
        number: row.get(0)?,
        at: WallTime(row.get(1)?),
        account: account_id(row, 2)?,
        kind: entry_kind(row, 3)?,
        amount: credits(row, 4)?,
        balance_after: credits(row, 5)?,
        route: row.get(6)?,
        requests: row.get(7)?,
        reference: row.get(8)?,
        actor: row.get(9)?,
        link: link(row, 10)?,
        split: split(row, 11, credits(row, 4)?)?,
        key: row.get::<Option<i64>>(12)?.map(to_key_id),
        outcome: outcome.then(|| parsed_text(row, 13, StatusClass::named)).transpose()?,
    })
}

/// The columns of [`entry_row`], then position.
pub(super) fn positioned_entry_row(row: &Row<'_>) -> Result<(Position, Entry)> {
    Ok((row.get(14)?, entry_row(row)?))
}

/// Columns: id, account, key, route, amount, at, external_id, deadline, charge_at_deadline.
pub(in crate::ledger) fn hold_row(row: &Row<'_>) -> Result<OpenHold> {
    Ok(OpenHold {
        id: request_id(row, 0)?,
        account: AccountNum(row.get(1)?),
        key: KeyNum(row.get(2)?),
        route: RouteNum(row.get(3)?),
        amount: credits(row, 4)?,
        at: WallTime(row.get(5)?),
        kept: kept(row)?.map(Box::new),
    })
}

fn kept(row: &Row<'_>) -> Result<Option<Kept>> {
    if row.is_null(6)? {
        return Ok(None);
    }
    let external_id = parsed_text(row, 6, ExternalId::new)?;
    let deadline = WallTime(row.get(7)?);
    Ok(Some(Kept { external_id, deadline, charge_at_deadline: credits(row, 8)? }))
}

pub(super) fn request_id(row: &Row<'_>, at: usize) -> Result<RequestId> {
    row.get(at).map(|bytes: [u8; 16]| RequestId(u128::from_be_bytes(bytes)))
}

/// Columns: number, at, actor, origin, action, object, before, after, account.
pub(super) fn audited_row(row: &Row<'_>) -> Result<Audited> {
    Ok(Audited {
        number: row.get(0)?,
        at: WallTime(row.get(1)?),
        row: AuditRow {
            actor: row.get(2)?,
            origin: row.get(3)?,
            action: row.get(4)?,
            object: row.get(5)?,
            before: row.get(6)?,
            after: row.get(7)?,
            account: row.text_or_null(8)?.map(|_| account_id(row, 8)).transpose()?,
        },
    })
}

/// Columns: name, hash, role, created, expires, last_used, revoked.
pub(super) fn token_row(row: &Row<'_>) -> Result<TokenRow> {
    let time = |at| row.get::<Option<i64>>(at).map(|time| time.map(WallTime));
    Ok(TokenRow {
        name: row.get(0)?,
        hash: KeyHash(row.get(1)?),
        role: parsed_text(row, 2, Role::named)?,
        created: WallTime(row.get(3)?),
        expires: time(4)?,
        last_used: time(5)?,
        revoked: time(6)?,
    })
}
