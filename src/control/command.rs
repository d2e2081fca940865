//! Defines the commands of the control plane, as they are sent over the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::policy::key::KeyState;
use crate::types::{AccountId, Credits, KeyId};

/// A command of an operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of the commands of the same names")]
pub enum Command {
    /// Reload the configuration.
    Reload,
    /// Report counters and health.
    Status,
    /// Pass the gateway to the process that asks. The rest of the conversation is not a command's.
    TakeOver,
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
    /// Grant credits or adjust a balance.
    Book { account: AccountId, adjustment: bool, credits: Credits, reference: String },
    /// List all ledger entries of an account.
    Statement { account: AccountId },
    /// List all ledger entries.
    Export,
    /// Check every balance and link against the entries.
    Verify,
    /// List all holds in doubt, or only those of one request.
    InDoubt { request: Option<String> },
    /// Return a hold in doubt.
    GiveBack { id: String },
    /// Copy the ledger to a new file.
    Backup { to: PathBuf },
    /// Show the decisions that the gateway would make about a request.
    Explain { key: KeyId, method: String, url: String },
}

impl Command {
    /// True if the command only reads the ledger. Opening grants of the configuration file are not booked for such a
    /// command.
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
    /// The account that the key belongs to.
    pub account: AccountId,
    /// A label for operators.
    pub label: String,
    /// The environment in the key's prefix, such as `live` or `test`.
    pub environment: String,
    /// Name patterns of the routes that the key may use; empty for every route.
    pub scopes: Vec<String>,
    /// When the key expires: a duration from now, or a time in RFC 3339. `None` if it does not expire.
    pub expires: Option<String>,
}
