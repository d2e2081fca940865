//! Lines with keys. A raw key is hashed at once, and only read from standard input: a file with keys would stay.

use serde_json::Value;

use super::Kind;
use super::lines::{Cell, Columns, Record, value_of};
use crate::control::command::Command;
use crate::control::operations::KeyLine;
use crate::policy::key::MAX_KEY;
use crate::types::{AccountId, KeyHash};

/// Imports keys.
pub(in crate::cli) struct Keys;

impl Kind for Keys {
    type Line = KeyLine;
    const COLUMNS: Columns = &[
        ("account", Cell::Text),
        ("label", Cell::Text),
        ("environment", Cell::Text),
        ("scopes", Cell::List),
        ("expires", Cell::Text),
        ("allow_from", Cell::List),
        ("limits", Cell::Json),
        ("spend_limit", Cell::Json),
        ("group", Cell::Text),
        ("sha256", Cell::Text),
        ("key", Cell::Text),
    ];

    fn read(line: u64, mut record: Record, is_private: bool) -> Result<KeyLine, String> {
        if let Some(key) = record.remove("key").filter(|key| !key.is_null()) {
            let hash = hash(&key, is_private)?;
            if record
                .insert("sha256".to_owned(), Value::String(hash.to_hex()))
                .is_some_and(|old| !old.is_null())
            {
                return Err("a key is given by `key` or by `sha256`, not by both".to_owned());
            }
        }
        let account = match record.remove("account") {
            Some(Value::String(account)) => {
                account.parse::<AccountId>().map_err(|error| error.to_string())?
            }
            _ => return Err("`account` is missing".to_owned()),
        };
        Ok(KeyLine { line, account, key: value_of(record)? })
    }

    fn command(lines: Vec<KeyLine>) -> Command {
        Command::KeyImport { lines }
    }
}

fn hash(key: &Value, is_private: bool) -> Result<KeyHash, String> {
    if !is_private {
        return Err("raw keys are only read from standard input; or give `sha256`".to_owned());
    }
    match key.as_str() {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(KeyHash::of(key.as_bytes())),
        _ => Err(format!("a key is 1 to {MAX_KEY} bytes of text")),
    }
}
