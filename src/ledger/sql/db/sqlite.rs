//! Runs statements in SQLite.

use rusqlite::{CachedStatement, ErrorCode, Transaction, TransactionBehavior, params_from_iter};

use super::value::{Cell, Cells, Params, Row};
use crate::ledger::store::{LedgerError, Result};

/// Statements that a connection keeps prepared.
const PREPARED: usize = 128;

/// Converts an error of SQLite, with SQLite's message. A file that is damaged is said to be.
pub(in crate::ledger) fn failed(error: rusqlite::Error) -> LedgerError {
    let is_damaged =
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
    if is_damaged { LedgerError::Damaged(error.to_string()) } else { LedgerError::Failed(error.to_string()) }
}

impl Cells for rusqlite::Row<'_> {
    fn cell(&self, at: usize) -> Result<Cell<'_>> {
        use rusqlite::types::ValueRef;
        Ok(match self.get_ref(at).map_err(failed)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Number(number),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Cell::Text(text),
                Err(error) => return Err(super::value::wrong(at, error)),
            },
            ValueRef::Blob(bytes) => Cell::Blob(bytes),
            ValueRef::Real(_) => return Err(super::value::wrong(at, "it is a real number")),
        })
    }
}

/// A connection to a SQLite file.
#[derive(Debug)]
pub(super) struct Sqlite(pub(super) rusqlite::Connection);

impl Sqlite {
    pub(super) fn new(connection: rusqlite::Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Self(connection)
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql).map_err(failed)
    }

    pub(super) fn execute(&self, sql: &str, params: Params<'_>) -> Result<usize> {
        execute(&mut self.prepare(sql)?, params)
    }

    pub(super) fn insert(&self, sql: &str, params: Params<'_>) -> Result<Option<i64>> {
        // Without RETURNING, which would build a temporary table for each row.
        Ok((self.execute(sql, params)? > 0).then(|| self.0.last_insert_rowid()))
    }

    pub(super) fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        each: &mut dyn FnMut(Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        self::each(&mut self.prepare(sql)?, params, each)
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        self.0.execute_batch(sql).map_err(failed)
    }

    pub(super) fn transaction<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Transaction::new_unchecked(&self.0, TransactionBehavior::Immediate).map_err(failed)?;
        let done = work()?;
        begun.commit().map_err(failed)?;
        Ok(done)
    }
}

pub(super) fn execute(statement: &mut CachedStatement<'_>, params: Params<'_>) -> Result<usize> {
    statement.execute(values(params)).map_err(failed)
}

/// Calls `each` for the rows of a query, until it returns false.
pub(super) fn each(
    statement: &mut CachedStatement<'_>,
    params: Params<'_>,
    each: &mut dyn FnMut(Row<'_>) -> Result<bool>,
) -> Result<()> {
    let mut rows = statement.query(values(params)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if !each(Row(row))? {
            break;
        }
    }
    Ok(())
}

fn values<'a>(params: Params<'a>) -> rusqlite::ParamsFromIter<impl Iterator<Item = super::value::Value<'a>>> {
    params_from_iter(params.iter().map(|param| param.value()))
}
