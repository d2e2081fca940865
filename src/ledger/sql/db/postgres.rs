//! Runs statements in PostgreSQL.

use std::cell::{Cell as Flag, Ref, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::value::{Cell, Cells, Owned, Params, Row, Value, wrong};
use crate::ledger::store::{LedgerError, Result};

/// How often the server is asked again if a transaction was committed, and the pause before: a server that crashed is back
/// before, or the answer is unknown.
const MAX_ASKED: u32 = 80;
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Most statements that are sent before their results are read.
const MAX_SENT: usize = 256;
/// Key of the lock that a transaction which writes takes, so that one writes at a time: `TGLD`.
const WRITES: i64 = 0x5447_4c44;

type Error = Box<dyn std::error::Error + Sync + Send>;

/// Opens connections to a server, and has the thread that sends and receives on all of them. So a thread that waits for an answer
/// needs no runtime, and may be on a thread of another one.
pub(in crate::ledger) struct Network {
    thread: Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
    dial: Box<dyn Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync>,
}

impl Network {
    /// `dial` opens a connection.
    pub(in crate::ledger) fn new(
        dial: impl Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let unusable = |error| LedgerError::Unusable(format!("cannot start a thread: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?;
        let (thread, (end, ended)) = (runtime.handle().clone(), oneshot::channel());
        let run = move || drop(runtime.block_on(ended));
        std::thread::Builder::new().name("tollgate-pg".to_owned()).spawn(run).map_err(unusable)?;
        Ok(Arc::new(Self { thread, _end: end, dial: Box::new(dial) }))
    }

    fn connect(&self) -> Result<Client> {
        let dialled = self.thread.spawn((self.dial)());
        futures_executor::block_on(dialled).map_err(|_| LedgerError::Closed)?
    }

    /// Waits for what the server does; `None` if it takes longer.
    fn wait<T>(&self, longest: Duration, work: impl Future<Output = T>) -> Option<T> {
        let _timers = self.thread.enter();
        futures_executor::block_on(tokio::time::timeout(longest, work)).ok()
    }
}

/// Converts an error of PostgreSQL, without its detail, which has values of rows.
pub(in crate::ledger) fn failed(error: &tokio_postgres::Error) -> LedgerError {
    LedgerError::Failed(match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error.to_string(),
    })
}

/// Whether a transaction excludes all others that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// Its changes are numbered one after the other.
    Yes,
    /// It locks the rows that it changes.
    No,
}

/// A connection to a PostgreSQL server. It is opened when it is needed, and again when it was lost.
pub(super) struct Postgres {
    network: Arc<Network>,
    /// Longest time that a statement may take, with what the network adds.
    longest: Duration,
    live: RefCell<Option<Live>>,
    is_in_transaction: Flag<bool>,
    /// Nothing is known of the connection, since it did not answer in time.
    is_broken: Flag<bool>,
}

struct Live {
    client: Arc<Client>,
    /// Prepared statements by their texts, which are those of this program: some hundreds.
    statements: RefCell<HashMap<String, Statement>>,
    /// Statements that were sent, and whose results are not known; at most [`MAX_SENT`].
    sent: RefCell<Vec<Sent>>,
}

/// The result of a statement that was sent.
type Sent = BoxFuture<'static, Result<u64, tokio_postgres::Error>>;

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    pub(super) fn new(network: Arc<Network>, longest: Duration) -> Self {
        Self {
            network,
            longest,
            live: RefCell::default(),
            is_in_transaction: Flag::new(false),
            is_broken: Flag::new(false),
        }
    }

    /// The open connection. A lost one is replaced, but not within a transaction, which was lost with it.
    fn live(&self) -> Result<Ref<'_, Live>> {
        let is_closed = self.live.borrow().as_ref().is_none_or(|live| live.client.is_closed());
        if is_closed || self.is_broken.get() {
            if self.is_in_transaction.get() {
                return Err(LedgerError::Failed("the connection to PostgreSQL was lost".to_owned()));
            }
            *self.live.borrow_mut() = None; // closes it, which frees its lock
            let client = self.network.connect()?;
            *self.live.borrow_mut() = Some(Live {
                client: Arc::new(client),
                statements: RefCell::default(),
                sent: RefCell::default(),
            });
            self.is_broken.set(false);
        }
        Ref::filter_map(self.live.borrow(), Option::as_ref).map_err(|_| LedgerError::Closed)
    }

    /// Waits for what the server does.
    fn wait<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        match self.network.wait(self.longest, work) {
            Some(done) => done.map_err(|error| failed(&error)),
            None => {
                self.is_broken.set(true);
                Err(LedgerError::Failed("PostgreSQL does not answer".to_owned()))
            }
        }
    }

    fn prepare(&self, live: &Live, sql: &str) -> Result<Statement> {
        if let Some(known) = live.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let statement = self.wait(live.client.prepare(&numbered(sql)))?;
        live.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(super) fn execute(&self, sql: &str, params: Params<'_>) -> Result<usize> {
        let live = self.live()?;
        let (statement, values) = (self.prepare(&live, sql)?, bound(params));
        let changed = self.wait(live.client.execute_raw(&statement, &values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Sends a statement of a transaction, without waiting for its result: the server runs them in order. If it fails,
    /// [`Postgres::received`] returns the error, at the latest when the transaction ends.
    pub(super) fn send(&self, sql: &str, params: Params<'_>) -> Result<()> {
        let live = self.live()?;
        let (statement, client) = (self.prepare(&live, sql)?, Arc::clone(&live.client));
        let values: Vec<Owned> = params.iter().map(|param| Owned::of(param.value())).collect();
        let mut sent: Sent = Box::pin(async move {
            let values: Vec<Bound<'_>> = values.iter().map(|value| Bound(value.value())).collect();
            client.execute_raw(&statement, &values).await
        });
        match (&mut sent).now_or_never() {
            Some(done) => done.map(drop).map_err(|error| failed(&error))?,
            None => live.sent.borrow_mut().push(sent),
        }
        let is_full = live.sent.borrow().len() >= MAX_SENT;
        if is_full { self.received(&live) } else { Ok(()) }
    }

    /// Waits for the results of all statements that were sent.
    ///
    /// # Errors
    /// What went wrong first.
    fn received(&self, live: &Live) -> Result<()> {
        let sent = live.sent.take();
        self.wait(async {
            let mut first = Ok(());
            for one in sent {
                first = first.and(one.await.map(drop));
            }
            first
        })
    }

    pub(super) fn insert(&self, sql: &str, number: &str, params: Params<'_>) -> Result<Option<i64>> {
        let mut inserted = None;
        self.each(&format!("{sql} RETURNING {number}"), params, &mut |row| {
            inserted = Some(row.get(0)?);
            Ok(false)
        })?;
        Ok(inserted)
    }

    /// True if the connection was lost outside a transaction, which a statement notices, so that it can be run again on a
    /// new one.
    fn is_lost(&self) -> bool {
        let is_closed = self.live.borrow().as_ref().is_some_and(|live| live.client.is_closed());
        is_closed && !self.is_in_transaction.get()
    }

    /// Begins a transaction.
    fn begin(&self, sql: &str) -> Result<()> {
        let begun = self.batch(sql);
        let begun = if begun.is_err() && self.is_lost() { self.batch(sql) } else { begun };
        self.is_in_transaction.set(begun.is_ok());
        self.is_broken.set(self.is_broken.get() || begun.is_err()); // it may be within a transaction that failed
        begun
    }

    /// `each` must not use the connection.
    pub(super) fn each(
        &self,
        sql: &str,
        params: Params<'_>,
        each: &mut dyn FnMut(Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        let (has_rows, mut wants) = (Flag::new(false), true);
        let mut read = || {
            let live = self.live()?;
            let (statement, values) = (self.prepare(&live, sql)?, bound(params));
            let mut rows = pin!(self.wait(live.client.query_raw(&statement, &values))?);
            while let Some(row) = self.wait(rows.try_next())? {
                has_rows.set(true);
                // Read to the end, where an error may be, although no more is wanted.
                wants = wants && each(Row(&row))?;
            }
            Ok(())
        };
        match read() {
            Err(error) if !has_rows.get() && self.is_lost() => {
                tracing::debug!(%error, "reading again on a new connection");
                read()
            }
            done => done,
        }
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        self.wait(self.live()?.client.batch_execute(sql))
    }

    pub(super) fn transaction<T>(&self, alone: Alone, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match alone {
            Alone::Yes => self.begin(&format!("BEGIN; SELECT pg_advisory_xact_lock({WRITES})"))?,
            Alone::No => self.begin("BEGIN; SELECT 1")?,
        }
        let mut number = String::new();
        let numbered = self.each("SELECT pg_current_xact_id()::text", &[], &mut |row| {
            row.text(0)?.clone_into(&mut number);
            Ok(true)
        });
        let done = numbered.and_then(|()| work());
        // What went wrong first is why all later statements failed.
        let received = self.live.borrow().as_ref().map_or(Ok(()), |live| self.received(live));
        let done = received.and(done);
        // COMMIT of a transaction that failed says that it was rolled back, and is no error; the SELECT is one.
        let ended = self.batch(if done.is_ok() { "SELECT 1; COMMIT" } else { "ROLLBACK" });
        let has_lost = ended.is_err() && !self.is_open();
        self.is_in_transaction.set(false);
        let Err(error) = ended else { return done };
        self.is_broken.set(true);
        match done {
            Ok(done) if has_lost => {
                if self.learn(&number)? {
                    Ok(done)
                } else {
                    Err(error)
                }
            }
            Ok(_) => Err(error),
            failed => failed,
        }
    }

    /// Asks if a transaction was committed whose end was not answered, until the server is back.
    fn learn(&self, number: &str) -> Result<bool> {
        let mut tries = 0;
        loop {
            match self.is_committed(number) {
                Ok(is_committed) => return Ok(is_committed),
                Err(error) if tries >= MAX_ASKED => return Err(LedgerError::Uncertain(error.to_string())),
                Err(_) => std::thread::sleep(ASK_AGAIN),
            }
            tries += 1;
        }
    }

    /// True if the connection is not known to be lost.
    fn is_open(&self) -> bool {
        !self.is_broken.get() && self.live.borrow().as_ref().is_some_and(|live| !live.client.is_closed())
    }

    /// Asks, on a new connection, if a transaction was committed whose end was not answered.
    fn is_committed(&self, number: &str) -> Result<bool> {
        let mut is_committed = false;
        let sql = "SELECT pg_xact_status(CAST(CAST(?1 AS TEXT) AS xid8)) = 'committed'";
        self.each(sql, &[&number], &mut |row| {
            is_committed = row.get::<Option<bool>>(0)? == Some(true);
            Ok(true)
        })?;
        Ok(is_committed)
    }

    pub(super) fn freeze(&self) -> Result<()> {
        self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
    }

    /// Ends what `freeze` began. False if the connection cannot be used again.
    pub(super) fn thaw(&self) -> bool {
        if self.is_in_transaction.get() && self.batch("ROLLBACK").is_err() {
            self.is_broken.set(true);
        }
        self.is_in_transaction.set(false);
        !self.is_broken.get()
    }
}

/// Writes parameters as PostgreSQL does: `$1` for `?1`.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

fn bound<'a>(params: Params<'a>) -> Vec<Bound<'a>> {
    params.iter().map(|param| Bound(param.value())).collect()
}

/// A value that is stored as what the server says that the parameter is.
#[derive(Debug)]
struct Bound<'a>(Value<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Error> {
        match (self.0, of) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Number(number), &Type::BOOL) => (number != 0).to_sql(of, out),
            (Value::Number(number), &Type::INT4) => i32::try_from(number)?.to_sql(of, out),
            (Value::Number(number), &Type::INT8) => number.to_sql(of, out),
            (Value::Text(text), &Type::TEXT) => text.to_sql(of, out),
            (Value::Blob(bytes), &Type::BYTEA) => bytes.to_sql(of, out),
            (Value::TooLarge, _) => Err("a number is too large".into()),
            (value, _) => Err(format!("{} cannot be stored as {of}", value.kind()).into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Error> {
        match *of {
            Type::BOOL => Ok(Self::Number(bool::from_sql(of, raw)?.into())),
            Type::INT4 => Ok(Self::Number(i32::from_sql(of, raw)?.into())),
            Type::INT8 => i64::from_sql(of, raw).map(Self::Number),
            Type::TEXT => <&str>::from_sql(of, raw).map(Self::Text),
            Type::BYTEA => <&[u8]>::from_sql(of, raw).map(Self::Blob),
            _ => Err(format!("no column of a ledger is {of}").into()),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, Error> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Cells for tokio_postgres::Row {
    fn cell(&self, at: usize) -> Result<Cell<'_>> {
        self.try_get(at).map_err(|error| wrong(at, error))
    }
}
