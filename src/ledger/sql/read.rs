//! Reads the books: their state at start, and long reads on separate connections.

use std::path::Path;

use super::db::{Connection, Params, SqlReader, params};
use super::folding::{jobs, shared_jobs};
use super::posting::groups;
use super::rows::{
    account_id, account_row, audited_row, entry_row, hold_row, key_id, key_row, positioned_entry_row,
    request_id, secret_row, to_key_id, token_row,
};
use super::{folding, leases, posting, usage};
use crate::ledger::entry::{Entry, OperatorBalances};
use crate::ledger::record::ExternalId;
use crate::ledger::sqlite::create_private;
use crate::ledger::store::{
    AccountRow, AnswerRow, AuditFilter, Audited, BooksReader, Doubt, DueRefill, EachLimit, FleetJob, GroupId,
    GroupRow, JobFilter, JobRow, KeyRow, LedgerError, LoadedBooks, NodeRow, OwnedKey, PaymentReader,
    Position, RefusalRow, RepeatRow, RequestRow, Result, SecretRow, StoredSecret, TokenRow, UsageFilter,
    UsageRow, UserReader, WebhookReader,
};
use crate::ledger::tally::OpenHold;
use crate::policy::credit::Spending;
use crate::types::{AccountId, AccountNum, BucketName, Credits, KeyHash, KeyId, KeyNum, RequestId, WallTime};

const ACCOUNTS: &str =
    "SELECT id, num, balance, plan, state, source, opening, entries, link, name, created, closed, version,
         lots, spend_limit, spent, spend_every, spent_before, spend_period
     FROM accounts";
pub(super) const ENTRIES: &str =
    "SELECT e.number, e.at, a.id, e.kind, e.amount, e.balance_after, r.name, e.requests, e.reference, e.actor,
            e.link, e.bucket, k.id, e.outcome, e.position
     FROM entries e LEFT JOIN accounts a ON a.num = e.account LEFT JOIN routes r ON r.num = e.route
     LEFT JOIN keys k ON k.num = e.key";
const KEYS: &str = "SELECT k.id, k.num, k.account, k.source, k.state, k.label, k.environment, k.hint, k.scopes, k.allow_from, k.expires, k.created, k.limits, k.version, k.last_used, k.spend_limit, k.spent, k.spend_every, k.spent_before, k.spend_period, a.id,
         (SELECT name FROM spend_groups WHERE num = k.spend_group)
     FROM keys k JOIN accounts a ON a.num = k.account";
/// Scans the index of secrets by key, which has the same order as the table of keys, so that no page is read twice.
const SECRETS: &str =
    "SELECT s.hash, s.until, k.id, k.num, k.account, k.state, k.expires, k.scopes, k.allow_from, k.limits
     FROM secrets s CROSS JOIN keys k WHERE k.num = s.key ORDER BY s.key";

/// Reads the holds of this node that were open at the last fold.
pub(in crate::ledger) fn open_holds(connection: &Connection) -> Result<Vec<OpenHold>> {
    let holds = "SELECT id, account, key, route, amount, at, external_id, deadline, charge_at_deadline
                 FROM open_holds WHERE node = ?1";
    connection.all(holds, params![connection.node()], hold_row)
}

pub(super) fn loaded(connection: &Connection, epoch: u32) -> Result<LoadedBooks> {
    let lists_requests =
        connection.one("SELECT listed_since IS NOT NULL FROM journal", params![], |row| row.get(0))?;
    let folded = "SELECT folded FROM nodes WHERE num = ?1";
    let folded = connection.one(folded, params![connection.node()], |row| row.get(0))?;
    let settled_jobs = jobs::settled(connection)?;
    let (open_holds, ended) = (open_holds(connection)?, posting::ended(connection)?);
    Ok(LoadedBooks { open_holds, folded, epoch, settled_jobs, ended, lists_requests })
}

/// The accounts that a filter selects, with their credits by lot, and what jobs of the fleet hold of them.
pub(super) fn accounts(connection: &Connection, filter: &str, params: Params<'_>) -> Result<Vec<AccountRow>> {
    let mut rows = connection.all(&format!("{ACCOUNTS} {filter}"), params, account_row)?;
    for row in &mut rows {
        if let Some(wallet) = &mut row.wallet {
            **wallet = posting::load(connection, row.num, row.balance)?;
        }
    }
    shared_jobs::add_held(connection, &mut rows)?;
    Ok(rows)
}

/// Reads a key's secrets, the current one first.
fn secrets(connection: &Connection, key: KeyNum) -> Result<Vec<SecretRow>> {
    let sql = "SELECT hash, until FROM secrets WHERE key = ?1 ORDER BY until IS NOT NULL";
    connection.all(sql, params![key.0], |row| {
        let until: Option<i64> = row.get(1)?;
        Ok(SecretRow { hash: KeyHash(row.get(0)?), until: until.map(WallTime) })
    })
}

pub(super) fn keys(connection: &Connection, filter: &str, params: Params<'_>) -> Result<Vec<OwnedKey>> {
    let found =
        connection.all(&format!("{KEYS} {filter}"), params, |row| Ok((key_row(row)?, account_id(row, 20)?)));
    let found = found?;
    found
        .into_iter()
        .map(|(key, owner)| Ok((KeyRow { secrets: secrets(connection, key.num)?, ..key }, owner)))
        .collect()
}

/// Selects the keys of an account, or of all.
fn of_account(account: Option<&AccountId>) -> &'static str {
    match account {
        Some(_) => "WHERE k.account = (SELECT num FROM accounts WHERE id = ?1)",
        None => "WHERE CAST(?1 AS TEXT) IS NULL",
    }
}

impl BooksReader for SqlReader {
    fn webhooks(&mut self) -> Option<&mut dyn WebhookReader> {
        Some(self)
    }

    fn users(&mut self) -> Option<&mut dyn UserReader> {
        Some(self)
    }

    fn payments(&mut self) -> Option<&mut dyn PaymentReader> {
        Some(self)
    }

    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>> {
        Ok(accounts(self.db()?, "WHERE id = ?1", params![id.as_str()])?.pop())
    }

    fn accounts(&mut self, after: Option<&AccountId>, most: usize) -> Result<Vec<AccountRow>> {
        let after = after.map_or("", AccountId::as_str); // no id is empty
        accounts(self.db()?, "WHERE id > ?1 ORDER BY id LIMIT ?2", params![after, most])
    }

    fn key(&mut self, id: KeyId) -> Result<Option<OwnedKey>> {
        Ok(keys(self.db()?, "WHERE k.id = ?1", params![key_id(id)])?.pop())
    }

    fn keys(&mut self, account: Option<&AccountId>, after: KeyNum, most: usize) -> Result<Vec<OwnedKey>> {
        let filter = format!("{} AND k.num > ?2 ORDER BY k.num LIMIT ?3", of_account(account));
        keys(self.db()?, &filter, params![account.map(AccountId::as_str), after.0, most])
    }

    fn count_keys(&mut self, account: &AccountId) -> Result<u64> {
        let sql = "SELECT count(*) FROM keys
                   WHERE account = (SELECT num FROM accounts WHERE id = ?1) AND state <> 'revoked'";
        self.db()?.one(sql, params![account.as_str()], |row| row.get(0))
    }

    fn newest_keys(
        &mut self,
        account: &AccountId,
        before: Option<KeyNum>,
        most: usize,
    ) -> Result<Vec<OwnedKey>> {
        let filter = format!("{} AND k.num < ?2 ORDER BY k.num DESC LIMIT ?3", of_account(Some(account)));
        let before = before.map_or(i64::MAX, |num| i64::from(num.0));
        keys(self.db()?, &filter, params![account.as_str(), before, most])
    }

    fn idle_keys(
        &mut self,
        account: Option<&AccountId>,
        since: WallTime,
        after: KeyNum,
        most: usize,
    ) -> Result<Vec<OwnedKey>> {
        let filter = format!(
            "{} AND k.num > ?2 AND k.state <> 'revoked' AND coalesce(k.last_used, k.created) < ?4
             ORDER BY k.num LIMIT ?3",
            of_account(account)
        );
        keys(self.db()?, &filter, params![account.map(AccountId::as_str), after.0, most, since.0])
    }

    fn each_cap(&mut self, each: &mut dyn FnMut(KeyNum, Spending, Option<GroupId>)) -> Result<()> {
        groups::each_cap(self.db()?, each)
    }

    fn each_group(&mut self, account: Option<AccountNum>, each: &mut dyn FnMut(GroupRow)) -> Result<()> {
        groups::each(self.db()?, account, each)
    }

    fn nodes(&mut self) -> Result<Vec<NodeRow>> {
        leases::nodes(self.db()?)
    }

    fn counts(&mut self) -> Result<(usize, usize)> {
        let sql = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM secrets)";
        self.db()?.one(sql, params![], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn each_secret(&mut self, each: &mut dyn FnMut(StoredSecret)) -> Result<()> {
        self.db()?.each(SECRETS, params![], |row| {
            each(secret_row(row)?);
            Ok(())
        })
    }

    fn each_limit(&mut self, each: &mut EachLimit<'_>) -> Result<()> {
        let (db, sql) = (self.db()?, "SELECT owner, state, saved FROM limits WHERE node = ?1");
        db.each(sql, params![db.node()], |row| {
            each(row.blob(0)?, row.blob(1)?, WallTime(row.get(2)?));
            Ok(())
        })
    }

    fn freeze(&mut self) -> Result<()> {
        self.db()?.freeze()
    }

    fn entries(
        &mut self,
        account: Option<&AccountId>,
        after: Position,
        most: usize,
    ) -> Result<Vec<(Position, Entry)>> {
        let filter = match account {
            Some(_) => "e.account = (SELECT num FROM accounts WHERE id = ?1)",
            None => "CAST(?1 AS TEXT) IS NULL",
        };
        let sql = format!("{ENTRIES} WHERE {filter} AND e.position > ?2 ORDER BY e.position LIMIT ?3");
        let wanted = params![account.map(AccountId::as_str), after, most];
        self.db()?.all(&sql, wanted, positioned_entry_row)
    }

    fn latest_entries(
        &mut self,
        account: &AccountId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<Entry>> {
        let filter = "WHERE e.account = (SELECT num FROM accounts WHERE id = ?1) AND e.number < ?2";
        let sql = format!("{ENTRIES} {filter} ORDER BY e.number DESC LIMIT ?3");
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        self.db()?.all(&sql, params![account.as_str(), before, most], entry_row)
    }

    fn audit(&mut self, filter: &AuditFilter, most: usize) -> Result<Vec<Audited>> {
        let of = match filter.account {
            Some(_) => "u.account = (SELECT num FROM accounts WHERE id = ?5)",
            None => "CAST(?5 AS TEXT) IS NULL",
        };
        let sql = format!(
            "SELECT u.number, u.at, u.actor, u.origin, u.action, u.object, u.before, u.after, a.id
             FROM audit u LEFT JOIN accounts a ON a.num = u.account
             WHERE {of} AND u.number < ?1 AND (u.object = ?2 OR ?2 IS NULL) AND (u.actor = ?3 OR ?3 IS NULL)
             ORDER BY u.number DESC LIMIT ?4"
        );
        let before = filter.before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let account = filter.account.as_ref().map(AccountId::as_str);
        self.db()?.all(&sql, params![before, filter.object, filter.actor, most, account], audited_row)
    }

    fn usage(&mut self, filter: &UsageFilter, each: &mut dyn FnMut(UsageRow)) -> Result<()> {
        usage::read(self.db()?, filter, each)
    }

    fn refusals(&mut self, account: &AccountId, before: Option<u64>, most: usize) -> Result<Vec<RefusalRow>> {
        usage::refusals(self.db()?, account, before, most)
    }

    fn jobs(&mut self, filter: &JobFilter, most: usize) -> Result<Vec<JobRow>> {
        jobs::read(self.db()?, filter, most)
    }

    fn buckets(&mut self) -> Result<Vec<(AccountId, BucketName, Credits)>> {
        posting::of_all(self.db()?)
    }

    fn due_refills(&mut self, now: WallTime, most: usize) -> Result<Vec<DueRefill>> {
        posting::refills::due(self.db()?, now, most)
    }

    fn find_job(&mut self, account: Option<AccountNum>, id: &ExternalId) -> Result<FleetJob> {
        shared_jobs::find(self.db()?, account, id)
    }

    fn repeat(&mut self, id: &KeyHash) -> Result<Option<RepeatRow>> {
        folding::repeats::find(self.db()?, id)
    }

    fn unanswered(&mut self, most: usize) -> Result<Vec<RepeatRow>> {
        folding::repeats::unanswered(self.db()?, most)
    }

    fn listed_since(&mut self) -> Result<Option<WallTime>> {
        let since = self.db()?.one("SELECT listed_since FROM journal", params![], |row| row.get(0));
        since.map(|since: Option<i64>| since.map(WallTime))
    }

    fn requests(
        &mut self,
        after: (WallTime, RequestId),
        until: WallTime,
        most: usize,
    ) -> Result<Vec<RequestRow>> {
        folding::requests::read(self.db()?, (after, until), most)
    }

    fn answer(&mut self, id: &KeyHash) -> Result<Option<AnswerRow>> {
        let sql = "SELECT request, answer FROM answers WHERE id = ?1";
        self.db()?.find(sql, params![id.0], |row| {
            Ok(AnswerRow { id: *id, request: KeyHash(row.get(0)?), answer: row.get(1)? })
        })
    }

    fn tokens(&mut self) -> Result<Vec<TokenRow>> {
        let sql = "SELECT name, hash, role, created, expires, last_used, revoked FROM tokens ORDER BY name";
        self.db()?.all(sql, params![], token_row)
    }

    fn operator_accounts(&mut self) -> Result<OperatorBalances> {
        posting::operator_accounts(self.db()?)
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        let sql = "SELECT d.id, a.id, k.id, r.name, d.amount, d.at, d.given_back FROM in_doubt d
                   JOIN accounts a ON a.num = d.account
                   LEFT JOIN keys k ON k.num = d.key LEFT JOIN routes r ON r.num = d.route
                   ORDER BY d.at, d.id";
        self.db()?.all(sql, params![], |row| {
            Ok(Doubt {
                id: request_id(row, 0)?,
                account: account_id(row, 1)?,
                key: row.get::<Option<i64>>(2)?.map_or(KeyId(0), to_key_id),
                route: row.get::<Option<String>>(3)?.unwrap_or_default(),
                amount: Credits::from_millionths(row.get(4)?),
                at: WallTime(row.get(5)?),
                given_back: row.get::<Option<i64>>(6)?.map(WallTime),
            })
        })
    }

    fn open_doubts(&mut self) -> Result<(u64, Credits)> {
        let sql = "SELECT count(*), CAST(coalesce(sum(amount), 0) AS BIGINT) FROM in_doubt WHERE given_back IS NULL";
        self.db()?.one(sql, params![], |row| Ok((row.get(0)?, Credits::from_millionths(row.get(1)?))))
    }

    fn backup(&mut self, to: &Path) -> Result<()> {
        if to.exists() {
            return Err(LedgerError::Taken(format!("{} exists already", to.display())));
        }
        create_private(to)?; // VACUUM INTO fills an empty file and keeps its mode
        let made = self.db()?.copy_to(&to.to_string_lossy());
        made.inspect_err(|_| drop(std::fs::remove_file(to))) // so that the next attempt does not find a file
    }
}
