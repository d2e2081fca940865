//! Implements `key`: creates, lists and changes keys.

use std::io::Read;

use clap::Subcommand;
use serde_json::json;

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::import;
use super::output::{self, Output};
use crate::control::command::Command;
use crate::control::operations::{KeyInput, SpendTerms};
use crate::policy::key::{KeyState, MAX_KEY, Scopes};
use crate::types::{AccountId, GroupName, KeyHash, KeyId};

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Create a key. The key is shown only once.
    Create {
        /// The account that the key belongs to.
        #[arg(long)]
        account: AccountId,
        /// A label for operators.
        #[arg(long)]
        label: String,
        /// The environment in the key's prefix, such as live or test.
        #[arg(long, default_value = "live")]
        env: String,
        /// A route that the key may use; * matches any characters. May be repeated. Default: every route.
        #[arg(long, value_name = "ROUTE")]
        scope: Vec<String>,
        /// Count requests to other routes than --scope names, instead of refusing them.
        #[arg(long, requires = "scope")]
        shadow_scope: bool,
        /// When the key expires: a duration such as 90d, or a time such as 2027-01-01T00:00:00Z.
        #[arg(long)]
        expires: Option<String>,
        /// The most credits that the key may spend: 100, or 100/day (hour, day, week, month, year).
        #[arg(long)]
        spend_limit: Option<SpendTerms>,
        /// The group of the account's keys that the key is in; see `tollgate account set-group`.
        #[arg(long)]
        group: Option<GroupName>,
    },
    /// Import keys by their hashes: lines with account, label, sha256, environment, scopes, expires, allow_from, limits,
    /// spend_limit, group.
    /// From standard input also raw keys, as `key`; they are hashed at once.
    Import(import::Arguments),
    /// List keys.
    List {
        /// Only keys of this account.
        #[arg(long)]
        account: Option<AccountId>,
        /// Only keys that are not revoked and were not used for this time, such as 30d.
        #[arg(long, value_name = "DURATION")]
        idle: Option<String>,
    },
    /// Show a key.
    Show {
        /// The key's id.
        id: KeyId,
    },
    /// Give a key a new secret, which is shown only once. The old secret is refused immediately, or after --overlap.
    Rotate {
        /// The key's id.
        id: KeyId,
        /// How long the old secret is still accepted, such as 24h.
        #[arg(long)]
        overlap: Option<String>,
    },
    /// Disable a key.
    Disable {
        /// The key's id.
        id: KeyId,
    },
    /// Enable a disabled key.
    Enable {
        /// The key's id.
        id: KeyId,
    },
    /// Revoke a key permanently.
    Revoke {
        /// The key's id.
        id: KeyId,
    },
    /// Print the regular expression and the checksum test by which secret scanners recognise keys.
    Pattern,
    /// Read a key from standard input and print its SHA-256 for a configuration.
    Hash,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let set = |id, state| asker.output.record(&asker.one(&Command::KeyState { id, state })?);
    match arguments {
        Arguments::Create { account, label, env, scope, shadow_scope, expires, spend_limit, group } => {
            let scopes = Scopes { routes: scope.into(), shadow: shadow_scope };
            let key = KeyInput {
                environment: env,
                scopes,
                expires,
                spend_limit,
                group,
                ..KeyInput::labelled(&label)
            };
            secret(asker, &Command::KeyCreate { account, key })
        }
        Arguments::Rotate { id, overlap } => secret(asker, &Command::KeyRotate { id, overlap }),
        Arguments::Import(arguments) => import::run::<import::Keys>(asker, &arguments),
        Arguments::List { account, idle } => {
            let columns = match idle {
                None => &["id", "account", "label", "key", "state", "scopes", "expires"],
                Some(_) => &["id", "account", "label", "key", "state", "created", "last_used"],
            };
            asker.table(&Command::KeyList { account, idle }, columns)
        }
        Arguments::Show { id } => asker.output.record(&asker.one(&Command::KeyShow { id })?),
        Arguments::Disable { id } => set(id, KeyState::Disabled),
        Arguments::Enable { id } => set(id, KeyState::Active),
        Arguments::Revoke { id } => set(id, KeyState::Revoked),
        Arguments::Pattern => asker.output.record(&asker.one(&Command::KeyPattern)?),
        Arguments::Hash => hash(),
    }
}

/// Executes a command that creates a secret, and prints the key. The key cannot be shown again.
fn secret(asker: &Asker, command: &Command) -> Result {
    let made = asker.one(command)?;
    asker.output.record(&json!({ "id": made["id"], "key": made["key"] }))?;
    if asker.output == Output::Text {
        eprintln!("This key is shown only now; Tollgate keeps its SHA-256.");
    }
    Ok(())
}

fn hash() -> Result {
    let mut key = Vec::new();
    std::io::stdin().lock().take(MAX_KEY as u64 + 3).read_to_end(&mut key)?;
    let key = key.strip_suffix(b"\n").unwrap_or(&key);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Failed(format!("error: a key is 1 to {MAX_KEY} bytes on standard input")));
    }
    if key.iter().any(|byte| byte.is_ascii_control()) || key.trim_ascii() != key {
        return Err(Failed("error: a key has no line breaks and no spaces around it".to_owned()));
    }
    output::text(&format!("{}\n", KeyHash::of(key).to_hex()))
}
