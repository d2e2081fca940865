//! Copies a ledger from one database to another, of any engine.

use sha2::{Digest, Sha256};

use super::SqlBooks;
use super::db::{Cell, Column, Connection, Param, Row, Transaction, Value, params};
use crate::ledger::store::{LedgerError, Result};

/// Most values of one statement. SQLite has at most 32,766 parameters, PostgreSQL twice as many.
const MAX_VALUES: usize = 4_000;
/// The table that has one row.
const JOURNAL: &str = "journal";
/// The column with the number of a gateway, which is another one at another place.
const NODE: &str = "node";
const LIMITS: &str = "limits";
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
    for name in tables {
        let table = Table::of(tx, name)?;
        if *name == JOURNAL {
            table.copy_row(from, tx)?;
        } else {
            table.copy(from, tx)?;
        }
        let (before, after) = (table.digest(from)?, table.digest(tx)?);
        if before != after {
            return Err(LedgerError::Failed(format!("the copy of table {name} differs")));
        }
        counts.push((*name, after.0));
    }
    // All gateways have counted their entries when they ended.
    let folded = "SELECT folded FROM nodes WHERE num = ?1";
    let folded: u64 = from.one(folded, params![from.node()], |row| row.get(0))?;
    let set = "UPDATE nodes SET folded = ?2,
                   usage_upto = (SELECT coalesce(max(position), 0) FROM entries) WHERE num = ?1";
    tx.run(set, params![tx.node(), folded])?;
    Ok(counts)
}

/// A table that is copied.
struct Table {
    name: &'static str,
    /// The columns that are copied.
    columns: Vec<String>,
    /// True if it has the number of a gateway, too.
    has_node: bool,
}

impl Table {
    fn of(tx: &Transaction<'_>, name: &'static str) -> Result<Self> {
        let sql = tx.dialect(
            "SELECT name FROM pragma_table_info(?1)",
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name::text = ?1 ORDER BY ordinal_position",
        );
        let mut columns: Vec<String> = tx.all(sql, params![name], |row| row.get(0))?;
        let all = columns.len();
        columns.retain(|column| column != NODE);
        let has_node = columns.len() < all;
        Ok(Self { name, columns, has_node })
    }

    /// Selects the rows of a place. Of limits, which each gateway has of its own, those of one.
    fn select(&self, connection: &Connection) -> String {
        let (columns, name) = (self.columns.join(", "), self.name);
        let own = format!("WHERE {NODE} = {}", connection.node());
        let own = if name == LIMITS { own.as_str() } else { "" };
        format!("SELECT {columns} FROM {name} {own} ORDER BY {}", self.columns[0])
    }

    fn values(&self, row: &Row<'_>) -> Result<Vec<Owned>> {
        (0..self.columns.len()).map(|at| row.get(at)).collect()
    }

    fn copy_row(&self, from: &Connection, tx: &Transaction<'_>) -> Result<()> {
        let row = from.one(&self.select(from), params![], |row| self.values(row))?;
        let set = self.columns.iter().zip(1..).map(|(column, at)| format!("{column} = ?{at}"));
        let set: Vec<String> = set.collect();
        tx.run(&format!("UPDATE {} SET {}", self.name, set.join(", ")), &references(&row))
    }

    fn copy(&self, from: &Connection, tx: &Transaction<'_>) -> Result<()> {
        if SEEDED.contains(&self.name) {
            tx.run(&format!("DELETE FROM {}", self.name), params![])?;
        }
        let mut rows: Vec<Vec<Owned>> = Vec::new();
        let most = MAX_VALUES / (self.columns.len() + 1);
        from.each(&self.select(from), params![], |row| {
            let mut values = self.values(row)?;
            values.extend(self.has_node.then(|| Owned::Number(tx.node())));
            rows.push(values);
            if rows.len() == most {
                self.insert(tx, &rows)?;
                rows.clear();
            }
            Ok(())
        })?;
        self.insert(tx, &rows)?;
        continue_numbers(tx, self.name)
    }

    fn insert(&self, tx: &Transaction<'_>, rows: &[Vec<Owned>]) -> Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        let columns: Vec<&str> =
            self.columns.iter().map(String::as_str).chain(self.has_node.then_some(NODE)).collect();
        let marks = |row: usize| {
            let marks = (1..=first.len()).map(|at| format!("?{}", row * first.len() + at));
            format!("({})", marks.collect::<Vec<_>>().join(", "))
        };
        let marks: Vec<String> = (0..rows.len()).map(marks).collect();
        let overriding = tx.dialect("", "OVERRIDING SYSTEM VALUE");
        let (columns, marks) = (columns.join(", "), marks.join(", "));
        let sql = format!("INSERT INTO {} ({columns}) {overriding} VALUES {marks}", self.name);
        tx.run(&sql, &rows.iter().flat_map(|row| references(row)).collect::<Vec<_>>())
    }

    /// The number of rows, and the sum of the hashes of all of them, whatever their order.
    fn digest(&self, connection: &Connection) -> Result<(u64, [u64; 4])> {
        let (mut count, mut sum) = (0, [0u64; 4]);
        connection.each(&self.select(connection), params![], |row| {
            let mut hasher = Sha256::new();
            for value in self.values(row)? {
                match value {
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
