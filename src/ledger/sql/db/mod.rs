//! A connection to the database that stores the books, whichever engine it is. All statements are the same for every
//! engine: parameters are `?1`, `?2` and so on, and a truth value is a number, 0 or 1.

mod pool;
mod postgres;
mod sqlite;
mod value;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::ledger) use pool::Connections;
pub(super) use pool::SqlReader;
pub(in crate::ledger) use postgres::{Network, failed as postgres_failed};
pub(in crate::ledger) use sqlite::failed;
pub(in crate::ledger) use value::{Cell, Column, Param, Params, Row, Value, params, wrong};

use crate::ledger::store::{LedgerError, Result};
use postgres::{Alone, Postgres};
use sqlite::Sqlite;

/// A connection to the database of the books.
#[derive(Debug)]
pub(in crate::ledger) struct Connection {
    engine: Engine,
    seat: Seat,
}

/// Which gateway a connection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Seat {
    /// The number of the gateway.
    pub(in crate::ledger) node: i64,
    /// True if it is one of a fleet, whose gateways share the database.
    pub(in crate::ledger) is_of_fleet: bool,
}

/// The number of the one node of a ledger in a file.
pub(in crate::ledger) const ONLY_NODE: i64 = 1;

#[derive(Debug)]
enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Connection {
    /// A connection to a SQLite file.
    pub(in crate::ledger) fn sqlite(connection: rusqlite::Connection) -> Self {
        let seat = Seat { node: ONLY_NODE, is_of_fleet: false };
        Self { engine: Engine::Sqlite(Sqlite::new(connection)), seat }
    }

    /// A connection to a PostgreSQL server, which is opened when it is needed.
    /// `longest`: the time that a statement may take.
    pub(in crate::ledger) fn postgres(network: Arc<Network>, seat: Seat, longest: Duration) -> Self {
        Self { engine: Engine::Postgres(Postgres::new(network, longest)), seat }
    }

    /// Which gateway it is of.
    pub(in crate::ledger) fn seat(&self) -> Seat {
        self.seat
    }

    /// The number of the gateway whose connection it is.
    pub(in crate::ledger) fn node(&self) -> i64 {
        self.seat.node
    }

    /// SQLite's connection, for what only SQLite has.
    pub(in crate::ledger) fn raw(&self) -> Result<&rusqlite::Connection> {
        match &self.engine {
            Engine::Sqlite(sqlite) => Ok(&sqlite.0),
            Engine::Postgres(_) => Err(LedgerError::Unusable("this ledger is in PostgreSQL".to_owned())),
        }
    }

    /// The one of two texts that this connection's engine understands.
    pub(super) fn dialect<'a>(&self, sqlite: &'a str, postgres: &'a str) -> &'a str {
        match &self.engine {
            Engine::Sqlite(_) => sqlite,
            Engine::Postgres(_) => postgres,
        }
    }

    /// Calls `each` for the rows of a query, until it returns false.
    fn rows(
        &self,
        sql: &str,
        params: Params<'_>,
        each: &mut dyn FnMut(Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.each(sql, params, each),
            Engine::Postgres(postgres) => postgres.each(sql, params, each),
        }
    }

    /// Calls `each` for the rows of a query.
    pub(in crate::ledger) fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        mut each: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        self.rows(sql, params, &mut |row| each(&row).map(|()| true))
    }

    /// Reads the rows of a query.
    pub(in crate::ledger) fn all<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        mut map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(sql, params, |row| {
            all.push(map(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads the first row of a query, if there is one.
    pub(in crate::ledger) fn find<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        mut map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut found = None;
        self.rows(sql, params, &mut |row| {
            found = Some(map(&row)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// Reads the row of a query that always has one.
    pub(in crate::ledger) fn one<T>(
        &self,
        sql: &str,
        params: Params<'_>,
        map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.find(sql, params, map)?.ok_or_else(no_row)
    }

    /// True if a query has a row.
    pub(in crate::ledger) fn exists(&self, sql: &str, params: Params<'_>) -> Result<bool> {
        Ok(self.find(sql, params, |_| Ok(()))?.is_some())
    }

    /// Writes a copy of the database to a file, which must be empty or absent.
    pub(super) fn copy_to(&self, file: &str) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.execute("VACUUM INTO ?1", params![file]).map(drop),
            Engine::Postgres(_) => Err(LedgerError::Refused(
                "this ledger is in PostgreSQL: back it up with pg_dump or a base backup".to_owned(),
            )),
        }
    }

    /// Makes all later reads see the database as it is now, until [`Connection::thaw`].
    pub(super) fn freeze(&self) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.batch("BEGIN; SELECT count(*) FROM sqlite_schema"),
            Engine::Postgres(postgres) => postgres.freeze(),
        }
    }

    /// Ends what [`Connection::freeze`] began, if it did. False if that failed.
    pub(super) fn thaw(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.0.is_autocommit() || sqlite.batch("ROLLBACK").is_ok(),
            Engine::Postgres(postgres) => postgres.thaw(),
        }
    }

    /// Runs one statement as a transaction of its own, which waits for no other. If its answer was lost, it may be in force.
    pub(in crate::ledger) fn write_one(&self, sql: &str, params: Params<'_>) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.execute(sql, params).map(drop),
            Engine::Postgres(postgres) => postgres.execute(sql, params).map(drop),
        }
    }

    /// The transaction that was begun with [`Connection::raw`], and is ended with it.
    pub(in crate::ledger) fn open_transaction(&self) -> Transaction<'_> {
        Transaction(self)
    }

    /// Runs a function in a transaction, which is rolled back if the function fails.
    pub(in crate::ledger) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.transact(Alone::Yes, work)
    }

    /// As [`Connection::transaction`], beside those of other gateways: it must lock the rows that it reads to change them.
    pub(in crate::ledger) fn shared_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.transact(Alone::No, work)
    }

    fn transact<T>(&self, alone: Alone, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let tx = Transaction(self);
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.transaction(|| work(&tx)), // a file has one writer
            Engine::Postgres(postgres) => postgres.transaction(alone, || work(&tx)),
        }
    }

    /// True if the database is elsewhere, so that waiting for the answer to each statement costs time.
    pub(in crate::ledger) fn is_remote(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// True if the gateways of a fleet share the database.
    pub(in crate::ledger) fn is_shared(&self) -> bool {
        self.seat.is_of_fleet
    }
}

/// A statement that a transaction runs many times.
pub(in crate::ledger) struct Prepared<'a>(PreparedIn<'a>);

enum PreparedIn<'a> {
    Sqlite(rusqlite::CachedStatement<'a>),
    /// Its connection keeps all statements prepared.
    Postgres(&'a Postgres, &'static str),
}

impl Prepared<'_> {
    /// Runs the statement, as [`Transaction::run`].
    pub(in crate::ledger) fn run(&mut self, params: Params<'_>) -> Result<()> {
        match &mut self.0 {
            PreparedIn::Sqlite(statement) => sqlite::execute(statement, params).map(drop),
            PreparedIn::Postgres(postgres, sql) => postgres.send(sql, params),
        }
    }

    /// Reads the row of a query that always has one.
    pub(in crate::ledger) fn one<T>(
        &mut self,
        params: Params<'_>,
        mut map: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut found = None;
        let mut each = |row: Row<'_>| {
            found = Some(map(&row)?);
            Ok(false)
        };
        match &mut self.0 {
            PreparedIn::Sqlite(statement) => sqlite::each(statement, params, &mut each)?,
            PreparedIn::Postgres(postgres, sql) => postgres.each(sql, params, &mut each)?,
        }
        found.ok_or_else(no_row)
    }
}

fn no_row() -> LedgerError {
    LedgerError::Failed("a row is not there".to_owned())
}

/// A connection with an open transaction, which alone may write.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Transaction<'a>(&'a Connection);

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl<'a> Transaction<'a> {
    /// Prepares a statement that is run many times.
    pub(in crate::ledger) fn prepare(&self, sql: &'static str) -> Result<Prepared<'a>> {
        let connection: &'a Connection = self.0;
        Ok(Prepared(match &connection.engine {
            Engine::Sqlite(sqlite) => PreparedIn::Sqlite(sqlite.prepare(sql)?),
            Engine::Postgres(postgres) => PreparedIn::Postgres(postgres, sql),
        }))
    }

    /// Runs a statement. Returns the number of rows that it changed.
    pub(in crate::ledger) fn execute(&self, sql: &str, params: Params<'_>) -> Result<usize> {
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.execute(sql, params),
            Engine::Postgres(postgres) => postgres.execute(sql, params),
        }
    }

    /// Runs a statement. A later statement may return its error, or the end of the transaction.
    pub(in crate::ledger) fn run(&self, sql: &str, params: Params<'_>) -> Result<()> {
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.execute(sql, params).map(drop),
            Engine::Postgres(postgres) => postgres.send(sql, params),
        }
    }

    /// Inserts a row. Returns its number, which the database chooses; `None` if a row was in conflict with it. `number`: the
    /// column of the number.
    pub(in crate::ledger) fn insert(
        &self,
        sql: &str,
        number: &str,
        params: Params<'_>,
    ) -> Result<Option<i64>> {
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.insert(sql, params),
            Engine::Postgres(postgres) => postgres.insert(sql, number, params),
        }
    }

    /// Inserts a row that is in conflict with no other. Returns its number, which the database chooses.
    pub(in crate::ledger) fn add(&self, sql: &str, number: &str, params: Params<'_>) -> Result<i64> {
        self.insert(sql, number, params)?
            .ok_or_else(|| LedgerError::Failed("a row was not inserted".to_owned()))
    }

    /// Runs several statements.
    pub(in crate::ledger) fn batch(&self, sql: &str) -> Result<()> {
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.batch(sql),
            Engine::Postgres(postgres) => postgres.batch(sql),
        }
    }
}
