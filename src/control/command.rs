//! Commands of the control plane, as they are sent over the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::policy::key::KeyState;
use crate::types::{AccountId, Credits, KeyId};

/// A command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of the commands of the same names")]
pub enum Command {
    /// Read the configuration again.
    Reload,
    /// Counters and health.
    Status,
    /// Create a key.
    KeyCreate(NewKey),
    /// List keys.
    KeyList { account: Option<AccountId> },
    /// Show a key.
    KeyShow { id: KeyId },
    /// Give a key a new secret.
    KeyRotate { id: KeyId, overlap: Option<String> },
    /// Disable, enable or revoke a key.
    KeyState { id: KeyId, state: KeyState },
    /// Create an account.
    AccountCreate { id: AccountId, plan: Option<String> },
    /// List accounts.
    AccountList,
    /// Show an account.
    AccountShow { id: AccountId },
    /// Suspend or resume an account.
    AccountSuspend { id: AccountId, suspended: bool },
    /// Grant or adjust.
    Book { account: AccountId, adjustment: bool, credits: Credits, reference: String },
    /// All entries of an account.
    Statement { account: AccountId },
    /// All entries.
    Export,
    /// Recompute every balance.
    Verify,
    /// List holds in doubt, or those of one request.
    InDoubt { request: Option<String> },
    /// Return a hold in doubt.
    GiveBack { id: String },
    /// Copy the ledger.
    Backup { to: PathBuf },
    /// Show the decisions that a request would meet.
    Explain { key: KeyId, method: String, url: String },
}

impl Command {
    /// True if the command only reads: then opening grants of the file are not booked either.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::KeyList { .. }
                | Self::KeyShow { .. }
                | Self::AccountList
                | Self::AccountShow { .. }
                | Self::Statement { .. }
                | Self::Export
                | Self::Verify
                | Self::InDoubt { .. }
                | Self::Backup { .. }
                | Self::Explain { .. }
        )
    }
}

/// A key to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The account that it belongs to.
    pub account: AccountId,
    /// A label for operators.
    pub label: String,
    /// `live`, `test` and the like.
    pub environment: String,
    /// Patterns of the routes that it may use; empty for every route.
    pub scopes: Vec<String>,
    /// A duration from now, or a moment in RFC 3339.
    pub expires: Option<String>,
}
