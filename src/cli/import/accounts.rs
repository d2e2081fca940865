//! Lines with accounts.

use super::Kind;
use super::lines::{Cell, Columns, Record, value_of};
use crate::control::command::Command;
use crate::control::operations::AccountLine;

/// Imports accounts.
pub(in crate::cli) struct Accounts;

impl Kind for Accounts {
    type Line = AccountLine;
    const COLUMNS: Columns =
        &[("id", Cell::Text), ("name", Cell::Text), ("plan", Cell::Text), ("credits", Cell::Text)];

    fn read(line: u64, record: Record, _: bool) -> Result<AccountLine, String> {
        Ok(AccountLine { line, account: value_of(record)? })
    }

    fn command(lines: Vec<AccountLine>) -> Command {
        Command::AccountImport { lines }
    }
}
