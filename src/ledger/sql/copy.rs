//! Copies a ledger from one database to another, of any engine.

use sha2::{Digest, Sha256};

use super::SqlBooks;
use super::db::{Cell, Column, Connection, Param, Row, Transaction, Value, params};
use crate::ledger::store::{LedgerError, Result};

/// Most values of one statement. SQLite has at most 32,766 parameters, PostgreSQL twice as many.
const MAX_VALUES: usize = 4_000;
/// The table that exists once in each ledger, with what belongs to its place.
const JOURNAL: &str = "journal";
/// Tables that a new ledger has rows in. All others of a new ledger are empty.
const SEEDED: [&str; 3] = [JOURNAL, "operator_accounts", "seller"];

/// Copies all tables, which are listed such that each refers to earlier ones only, in one transaction. Then compares their
/// content. Returns the number of rows of each.
pub(in crate::ledger) fn copy(
    from: &SqlBooks,
    to: &mut SqlBooks,
    tables: &[&'static str],
) -> Result<Vec<(&'static str, u64)>> {
    let from = &from.connection;
    from.freeze()?;
    let copied = to.connection.transaction(|tx| copy_tables(from, tx, tables));
    from.thaw();
    copied
}

fn copy_tables(
    from: &Connection,
    tx: &Transaction<'_>,
    tables: &[&'static str],
) -> Result<Vec<(&'static str, u64)>> {
    for table in tables.iter().filter(|table| !SEEDED.contains(table)) {
        if tx.exists(&format!("SELECT 1 FROM {table} LIMIT 1"), params![])? {
            let message =
                "there is a ledger already where this one is to be copied to; copy it to a new place";
            return Err(LedgerError::Refused(message.to_owned()));
        }
    }
    let mut counts = Vec::new();
    for table in tables {
        let columns = columns(tx, table)?;
        match *table {
            JOURNAL => copy_journal(from, tx, &columns)?,
            table => copy_table(from, tx, table, &columns)?,
        }
        let (before, after) = (digest(from, table, &columns)?, digest(tx, table, &columns)?);
        if before != after {
            return Err(LedgerError::Failed(format!("the copy of table {table} differs")));
        }
        counts.push((*table, after.0));
    }
    Ok(counts)
}

/// The columns of a table that are copied.
fn columns(tx: &Transaction<'_>, table: &str) -> Result<Vec<String>> {
    let sql = tx.dialect(
        "SELECT name FROM pragma_table_info(?1)",
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name::text = ?1 ORDER BY ordinal_position",
    );
    let mut columns: Vec<String> = tx.all(sql, params![table], |row| row.get(0))?;
    columns.retain(|column| table != JOURNAL || column != "mark"); // it names the files at this place
    Ok(columns)
}

fn copy_journal(from: &Connection, tx: &Transaction<'_>, columns: &[String]) -> Result<()> {
    let values = |row: &Row<'_>| (0..columns.len()).map(|at| row.get(at)).collect::<Result<Vec<Owned>>>();
    let row = from.one(&select(JOURNAL, columns), params![], values)?;
    let set: Vec<String> = columns.iter().zip(1..).map(|(column, at)| format!("{column} = ?{at}")).collect();
    tx.run(&format!("UPDATE {JOURNAL} SET {}", set.join(", ")), &references(&row))
}

fn copy_table(from: &Connection, tx: &Transaction<'_>, table: &str, columns: &[String]) -> Result<()> {
    if SEEDED.contains(&table) {
        tx.run(&format!("DELETE FROM {table}"), params![])?;
    }
    let mut values: Vec<Owned> = Vec::new();
    let most = MAX_VALUES / columns.len() * columns.len();
    from.each(&select(table, columns), params![], |row| {
        for at in 0..columns.len() {
            values.push(row.get(at)?);
        }
        if values.len() >= most {
            insert(tx, table, columns, &values)?;
            values.clear();
        }
        Ok(())
    })?;
    insert(tx, table, columns, &values)?;
    continue_numbers(tx, table)
}

/// Lets the numbers that PostgreSQL chooses continue after those that were copied. SQLite does so itself.
fn continue_numbers(tx: &Transaction<'_>, table: &str) -> Result<()> {
    let numbered = tx.dialect(
        "SELECT name FROM pragma_table_info(?1) WHERE 0",
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name::text = ?1 AND is_identity = 'YES'",
    );
    let column: Option<String> = tx.find(numbered, params![table], |row| row.get(0))?;
    let Some(column) = column else { return Ok(()) };
    let sql =
        format!("SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}");
    tx.one(&sql, params![], |row| row.get::<Option<i64>>(0)).map(drop)
}

fn select(table: &str, columns: &[String]) -> String {
    format!("SELECT {} FROM {table} ORDER BY {}", columns.join(", "), columns[0])
}

/// Inserts rows, whose values follow each other.
fn insert(tx: &Transaction<'_>, table: &str, columns: &[String], values: &[Owned]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let row = |first: usize| {
        let marks: Vec<String> = (first..first + columns.len()).map(|at| format!("?{at}")).collect();
        format!("({})", marks.join(", "))
    };
    let rows: Vec<String> = (0..values.len() / columns.len()).map(|at| row(at * columns.len() + 1)).collect();
    let overriding = tx.dialect("", "OVERRIDING SYSTEM VALUE");
    let sql = format!("INSERT INTO {table} ({}) {overriding} VALUES {}", columns.join(", "), rows.join(", "));
    tx.run(&sql, &references(values))
}

/// The number of rows, and the sum of the hashes of all of them, whatever their order.
fn digest(connection: &Connection, table: &str, columns: &[String]) -> Result<(u64, [u64; 4])> {
    let (mut count, mut sum) = (0, [0u64; 4]);
    let sql = format!("SELECT {} FROM {table}", columns.join(", "));
    connection.each(&sql, params![], |row| {
        let mut hasher = Sha256::new();
        for at in 0..columns.len() {
            match row.get(at)? {
                Owned::Null => hasher.update([0]),
                Owned::Number(number) => hash(&mut hasher, 1, &number.to_le_bytes()),
                Owned::Text(text) => hash(&mut hasher, 2, text.as_bytes()),
                Owned::Blob(bytes) => hash(&mut hasher, 3, &bytes),
            }
        }
        let hashed = hasher.finalize();
        let (parts, _) = hashed.as_slice().as_chunks::<8>();
        for (sum, part) in sum.iter_mut().zip(parts) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
        count += 1;
        Ok(())
    })?;
    Ok((count, sum))
}

fn hash(hasher: &mut Sha256, kind: u8, bytes: &[u8]) {
    hasher.update([kind]);
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// A value that was read.
enum Owned {
    Null,
    Number(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Param for Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

impl Column for Owned {
    fn read(cell: Cell<'_>) -> Option<Self> {
        Some(match cell {
            Cell::Null => Self::Null,
            Cell::Number(number) => Self::Number(number),
            Cell::Text(text) => Self::Text(text.to_owned()),
            Cell::Blob(bytes) => Self::Blob(bytes.to_vec()),
        })
    }
}

fn references(values: &[Owned]) -> Vec<&dyn Param> {
    values.iter().map(|value| value as &dyn Param).collect()
}
