//! Values of parameters and of columns, which every engine can store.

use rusqlite::types::ToSqlOutput;

use crate::ledger::store::{LedgerError, Result};

/// A value of a parameter.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) enum Value<'a> {
    /// `NULL`.
    Null,
    /// A number, or a truth value as 0 or 1.
    Number(i64),
    /// A number that no column can store.
    TooLarge,
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Value<'_> {
    /// What it is, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Number(_) | Self::TooLarge => "a number",
            Self::Text(_) => "text",
            Self::Blob(_) => "a blob",
        }
    }
}

/// A value that outlives the statement's parameters.
#[derive(Debug)]
pub(in crate::ledger) enum Owned {
    /// `NULL`, or a number.
    Plain(Value<'static>),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Owned {
    /// Copies a value.
    pub(super) fn of(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Plain(Value::Null),
            Value::Number(number) => Self::Plain(Value::Number(number)),
            Value::TooLarge => Self::Plain(Value::TooLarge),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }

    /// The value.
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::Text(text) => Value::Text(text),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

/// What can be a parameter of a statement.
pub(in crate::ledger) trait Param {
    /// The value that is stored.
    fn value(&self) -> Value<'_>;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(
            impl Param for $number {
                fn value(&self) -> Value<'_> {
                    i64::try_from(*self).map_or(Value::TooLarge, Value::Number)
                }
            }

            impl Column for $number {
                fn read(cell: Cell<'_>) -> Option<Self> {
                    match cell {
                        Cell::Number(number) => Self::try_from(number).ok(),
                        _ => None,
                    }
                }
            }
        )*
    };
}

numbers!(i64, u64, u32, u16, u8, usize);

impl Param for bool {
    fn value(&self) -> Value<'_> {
        Value::Number((*self).into())
    }
}

impl Param for str {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Param for String {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Param for [u8] {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl Param for Vec<u8> {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<const N: usize> Param for [u8; N] {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<P: Param> Param for Option<P> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Param::value)
    }
}

impl<P: Param + ?Sized> Param for &P {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

/// The parameters of a statement, `?1` first.
pub(in crate::ledger) type Params<'a> = &'a [&'a dyn Param];

/// The parameters of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::ledger::sql::db::Param),*] as $crate::ledger::sql::db::Params<'_>
    };
}
pub(in crate::ledger) use params;

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        use rusqlite::types::ValueRef;
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::TooLarge => {
                return Err(rusqlite::Error::ToSqlConversionFailure("a number is too large".into()));
            }
        }))
    }
}

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Cell<'a> {
    /// `NULL`.
    Null,
    /// A number, or a truth value as 0 or 1.
    Number(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

/// What a column can be read as.
pub(in crate::ledger) trait Column: Sized {
    /// Reads a value; `None` if it has another type, or is out of range.
    fn read(cell: Cell<'_>) -> Option<Self>;
}

impl Column for bool {
    fn read(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Number(number) => Some(number != 0),
            _ => None,
        }
    }
}

impl Column for String {
    fn read(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl Column for Vec<u8> {
    fn read(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Blob(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

impl<const N: usize> Column for [u8; N] {
    fn read(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Blob(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

impl<C: Column> Column for Option<C> {
    fn read(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            other => C::read(other).map(Some),
        }
    }
}

/// A row of a query's result.
#[derive(Clone, Copy)]
pub(in crate::ledger) struct Row<'a>(pub(super) &'a dyn Cells);

/// A row as an engine returns it.
pub(super) trait Cells {
    /// The value of a column.
    fn cell(&self, at: usize) -> Result<Cell<'_>>;
}

impl<'a> Row<'a> {
    /// The value of a column.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] if it is none that this type can have.
    pub(in crate::ledger) fn get<C: Column>(&self, at: usize) -> Result<C> {
        C::read(self.0.cell(at)?).ok_or_else(|| wrong(at, "its type or its range is another"))
    }

    /// The text in a column.
    pub(in crate::ledger) fn text(&self, at: usize) -> Result<&'a str> {
        self.text_or_null(at)?.ok_or_else(|| wrong(at, "it is NULL"))
    }

    /// The text in a column; `None` if it is `NULL`.
    pub(in crate::ledger) fn text_or_null(&self, at: usize) -> Result<Option<&'a str>> {
        match self.0.cell(at)? {
            Cell::Text(text) => Ok(Some(text)),
            Cell::Null => Ok(None),
            _ => Err(wrong(at, "it is no text")),
        }
    }

    /// The bytes in a column.
    pub(in crate::ledger) fn blob(&self, at: usize) -> Result<&'a [u8]> {
        match self.0.cell(at)? {
            Cell::Blob(bytes) => Ok(bytes),
            _ => Err(wrong(at, "it is no blob")),
        }
    }

    /// True if a column is `NULL`.
    pub(in crate::ledger) fn is_null(&self, at: usize) -> Result<bool> {
        Ok(self.0.cell(at)? == Cell::Null)
    }
}

/// A value that no ledger writes.
pub(in crate::ledger) fn wrong(at: usize, why: impl std::fmt::Display) -> LedgerError {
    LedgerError::Damaged(format!("a value of column {at} was not written by a ledger: {why}"))
}
