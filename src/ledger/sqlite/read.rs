//! The reading side: everything at start, and long reads on connections of their own.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Params, Row, params};

use super::file;
use super::rows::{account_row, entry_row, failed, hold_row, key_row, request_id, to_key_id};
use crate::ledger::store::{AccountRow, Books, Doubt, Entry, KeyRow, LedgerError, Reader, Result, SecretRow};
use crate::types::{AccountId, Credits, KeyHash, KeyId, WallTime};

pub(super) const ACCOUNTS: &str = "SELECT id, num, balance, plan, state, source, opening FROM accounts";
pub(super) const ENTRIES: &str =
    "SELECT e.id, e.at, a.id, e.kind, e.amount, e.balance_after, r.name, e.requests, e.reference, e.actor
     FROM entries e JOIN accounts a ON a.num = e.account LEFT JOIN routes r ON r.num = e.route";
const KEYS: &str = "SELECT id, num, account, source, state, label, environment, hint, scopes, allow_from, expires, created FROM keys";

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map(params, map).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

pub(super) fn books(connection: &Connection) -> Result<Books> {
    let journal = "SELECT seq, at, records FROM journal ORDER BY seq";
    let limits = "SELECT owner, state, saved FROM limits";
    Ok(Books {
        accounts: rows(connection, ACCOUNTS, [], account_row)?,
        keys: keys(connection, None)?,
        open_holds: rows(
            connection,
            "SELECT id, account, key, route, amount, at FROM open_holds",
            [],
            hold_row,
        )?,
        journal: rows(connection, journal, [], |row| Ok((row.get(0)?, WallTime(row.get(1)?), row.get(2)?)))?,
        limits: rows(connection, limits, [], |row| Ok((row.get(0)?, row.get(1)?, WallTime(row.get(2)?))))?,
    })
}

fn keys(connection: &Connection, account: Option<&AccountId>) -> Result<Vec<KeyRow>> {
    let id = account.map(AccountId::as_str);
    let wanted = "(?1 IS NULL OR account = (SELECT num FROM accounts WHERE id = ?1))";
    let mut keys = rows(connection, &format!("{KEYS} WHERE {wanted} ORDER BY num"), [id], key_row)?;
    let index: HashMap<u32, usize> = keys.iter().enumerate().map(|(at, key)| (key.num.0, at)).collect();
    let secrets =
        rows(connection, "SELECT key, hash, until FROM secrets ORDER BY until IS NOT NULL", [], |row| {
            let until: Option<i64> = row.get(2)?;
            Ok((row.get::<_, u32>(0)?, SecretRow { hash: KeyHash(row.get(1)?), until: until.map(WallTime) }))
        })?;
    for (key, secret) in secrets {
        if let Some(&at) = index.get(&key) {
            keys[at].secrets.push(secret);
        }
    }
    Ok(keys)
}

/// A view of the ledger that cannot write.
pub(super) struct SqliteReader(Connection);

impl SqliteReader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags).map(Self).map_err(failed)
    }
}

impl Reader for SqliteReader {
    fn accounts(&mut self, id: Option<&AccountId>) -> Result<Vec<AccountRow>> {
        let sql = format!("{ACCOUNTS} WHERE ?1 IS NULL OR id = ?1 ORDER BY id");
        rows(&self.0, &sql, [id.map(AccountId::as_str)], account_row)
    }

    fn keys(&mut self, account: Option<&AccountId>) -> Result<Vec<KeyRow>> {
        keys(&self.0, account)
    }

    fn freeze(&mut self) -> Result<()> {
        self.0.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)
    }

    fn entries(&mut self, account: Option<&AccountId>, after: u64, most: usize) -> Result<Vec<Entry>> {
        let filter = match account {
            Some(_) => "e.account = (SELECT num FROM accounts WHERE id = ?1)",
            None => "?1 IS NULL",
        };
        let sql = format!("{ENTRIES} WHERE {filter} AND e.id > ?2 ORDER BY e.id LIMIT ?3");
        let mut statement = self.0.prepare_cached(&sql).map_err(failed)?;
        let wanted = params![account.map(AccountId::as_str), after, most];
        let rows = statement.query_map(wanted, entry_row).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    fn in_doubt(&mut self) -> Result<Vec<Doubt>> {
        let sql = "SELECT d.id, a.id, k.id, r.name, d.amount, d.at, d.given_back FROM in_doubt d
                   JOIN accounts a ON a.num = d.account
                   LEFT JOIN keys k ON k.num = d.key LEFT JOIN routes r ON r.num = d.route
                   ORDER BY d.at, d.id";
        rows(&self.0, sql, [], |row| {
            let account: String = row.get(1)?;
            let account: AccountId = account.parse().map_err(|_| rusqlite::Error::InvalidQuery)?;
            Ok(Doubt {
                id: request_id(row, 0)?,
                account,
                key: row.get::<_, Option<i64>>(2)?.map_or(KeyId(0), to_key_id),
                route: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                amount: Credits::from_millionths(row.get(4)?),
                at: WallTime(row.get(5)?),
                given_back: row.get::<_, Option<i64>>(6)?.map(WallTime),
            })
        })
    }

    fn backup(&mut self, to: &Path) -> Result<()> {
        if to.exists() {
            return Err(LedgerError::Refused(format!("{} exists already", to.display())));
        }
        file::create_private(to)?; // VACUUM INTO fills an empty file and keeps its mode
        self.0.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed)?;
        Ok(())
    }
}
