//! Generates the clients' keys, and writes them into configurations and ledgers.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::{Connection, params};
use tollgate::types::{KeyHash, KeyId};

use crate::Result;

/// Keys of each account.
pub const KEYS_PER_ACCOUNT: usize = 10;
/// Opening balance of every Tollgate account, in whole credits. No bench spends all of it.
pub const GRANT: u64 = 1_000_000_000;
/// Millionths in a credit.
pub const MILLIONTHS: u64 = 1_000_000;
/// Number of the first unknown key. Unknown keys have the same form as known ones.
const UNKNOWN: usize = usize::MAX / 2;

/// A set of keys, the same in every run.
#[derive(Clone, Copy)]
pub struct Keys {
    pub count: usize,
    pub accounts: usize,
}

impl Keys {
    pub fn new(count: usize) -> Self {
        Self { count, accounts: count.div_ceil(KEYS_PER_ACCOUNT) }
    }

    /// The text of a key. Keys with numbers below [`Keys::accounts`] belong to different accounts.
    pub fn text(number: usize) -> String {
        format!("ak_live_{number:032x}")
    }

    pub fn unknown_text(number: usize) -> String {
        Self::text(UNKNOWN + number)
    }

    /// All keys, one per line; keys that no account has if `unknown` is true.
    pub fn lines(self, unknown: bool) -> String {
        let text = if unknown { Self::unknown_text } else { Self::text };
        (0..self.count).fold(String::new(), |mut lines, number| {
            lines.push_str(&text(number));
            lines.push('\n');
            lines
        })
    }

    /// Each key's SHA-256 with the number of its account.
    pub fn hashes(self) -> impl Iterator<Item = (KeyHash, usize)> {
        (0..self.count)
            .map(move |number| (KeyHash::of(Self::text(number).as_bytes()), number % self.accounts))
    }

    /// Accounts and keys as TOML of a configuration.
    pub fn in_toml(self) -> Result<String> {
        let mut text = String::new();
        for account in 0..self.accounts {
            writeln!(text, "[accounts.a{account}]\nplan = \"load\"\ncredits = {GRANT}")?;
        }
        for (number, (hash, account)) in self.hashes().enumerate() {
            let hash = hash.to_hex();
            writeln!(text, "[[accounts.a{account}.keys]]\nlabel = \"k{number}\"\nsha256 = \"{hash}\"")?;
            writeln!(text, "scopes = [\"people.*\"]")?;
        }
        Ok(text)
    }

    /// Writes accounts and keys into a ledger that no gateway has open. Commands create one key at a time, which would
    /// take hours for a million.
    pub fn into_ledger(self, ledger: &Path) -> Result<()> {
        let mut connection = Connection::open(ledger)?;
        let tx = connection.transaction()?;
        {
            let sql = "INSERT INTO accounts (num, id, balance, plan, source, created) VALUES (?1, ?2, ?3, 'load', 'store', 0)";
            let mut accounts = tx.prepare(sql)?;
            for account in 0..self.accounts {
                accounts.execute(params![account + 1, format!("a{account}"), GRANT * MILLIONTHS])?;
            }
            let sql = "INSERT INTO keys (num, id, account, source, label, environment, scopes, created)
                       VALUES (?1, ?2, ?3, 'store', ?4, 'live', '[\"people.*\"]', 0)";
            let mut keys = tx.prepare(sql)?;
            let mut secrets = tx.prepare("INSERT INTO secrets (hash, key) VALUES (?1, ?2)")?;
            for (number, (hash, account)) in self.hashes().enumerate() {
                let id = KeyId::of_hash(&hash).0.cast_signed();
                keys.execute(params![number + 1, id, account + 1, format!("k{number}")])?;
                secrets.execute(params![hash.0, number + 1])?;
            }
        }
        // The contra entry of the opening balances, in the operator's account.
        let granted = -i128::from(GRANT * MILLIONTHS) * self.accounts as i128;
        tx.execute(
            "UPDATE operator_accounts SET balance = ?1 WHERE name = 'granted'",
            [granted.to_string()],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// The sum of all balances as of the last fold, in whole credits.
    pub fn left_in_ledger(ledger: &Path) -> Result<u64> {
        let connection = Connection::open(ledger)?;
        let sum: u64 =
            connection.query_row("SELECT sum(balance / ?1) FROM accounts", [MILLIONTHS], |row| row.get(0))?;
        Ok(sum)
    }
}
