//! Defines the commands of the control plane, as they are sent over the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::operations::{
    AccountInput, AccountLine, BookingInput, ChargesQuery, GroupInput, InvitationInput, KeyInput, KeyLine,
    RehearsalInput, TokenInput, UsageQuery, UserInput, UserPatch,
};
use crate::policy::key::KeyState;
use crate::types::{AccountId, GroupName, KeyId};

/// A command of an operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the arguments of the commands of the same names")]
pub enum Command {
    /// Reload the configuration.
    Reload,
    /// Report counters and health.
    Status,
    /// List the gateways of the fleet.
    Nodes,
    /// Pass the gateway to the process that asks. The rest of the conversation is not a command's.
    TakeOver,
    /// Create a key.
    KeyCreate { account: AccountId, key: KeyInput },
    /// Import keys by their hashes.
    KeyImport { lines: Vec<KeyLine> },
    /// List keys.
    KeyList { account: Option<AccountId>, idle: Option<String> },
    /// Show a key.
    KeyShow { id: KeyId },
    /// Give a key a new secret.
    KeyRotate { id: KeyId, overlap: Option<String> },
    /// Disable, enable or revoke a key.
    KeyState { id: KeyId, state: KeyState },
    /// Tell how secret scanners recognise keys.
    KeyPattern,
    /// Create an account.
    AccountCreate(AccountInput),
    /// Import accounts.
    AccountImport { lines: Vec<AccountLine> },
    /// List accounts.
    AccountList,
    /// Show an account.
    AccountShow { id: AccountId },
    /// List the groups of an account's keys.
    GroupList { account: AccountId },
    /// Set the spending limit of a group of keys.
    GroupPut { account: AccountId, name: GroupName, group: GroupInput },
    /// Delete a group of keys.
    GroupDelete { account: AccountId, name: GroupName },
    /// Suspend or resume an account.
    AccountSuspend { id: AccountId, suspended: bool },
    /// Grant credits or adjust a balance.
    Book { account: AccountId, adjustment: bool, booking: BookingInput },
    /// List all ledger entries of an account.
    Statement { account: AccountId },
    /// List all accounts and keys, with the hashes of keys.
    ExportAll,
    /// List all ledger entries.
    Export,
    /// Check every balance and link against the entries.
    Verify,
    /// List what requests were charged.
    Charges(ChargesQuery),
    /// List all holds in doubt, or only those of one request.
    InDoubt { request: Option<String> },
    /// Return a hold in doubt.
    GiveBack { id: String },
    /// Copy the ledger to a new file.
    Backup { to: PathBuf },
    /// Show the decisions that the gateway would make about a request.
    Explain { key: KeyId, method: String, url: String },
    /// Show what was decided about a request of the last hour.
    Request { id: String },
    /// Compare a configuration with the one in force, for the requests of the last hour.
    Rehearse(RehearsalInput),
    /// Create a token of the admin API.
    TokenCreate(TokenInput),
    /// List tokens.
    TokenList,
    /// Revoke a token.
    TokenRevoke { name: String },
    /// Create a user of the dashboard.
    UserCreate(UserInput),
    /// Invite somebody to the dashboard.
    UserInvite(InvitationInput),
    /// List users of the dashboard.
    UserList { operators: bool },
    /// Make a link that signs a user in.
    UserLink { user: String },
    /// Change a user.
    UserChange { user: String, patch: UserPatch },
    /// Delete a user.
    UserDelete { user: String },
    /// Report usage, a row for each interval.
    Usage(UsageQuery),
    /// Report usage as comma-separated values.
    UsageCsv(UsageQuery),
    /// List the newest audit entries.
    Audit { object: Option<String>, most: usize },
}

impl Command {
    /// True if the command only reads the ledger. Opening grants of the configuration file are not booked for such a
    /// command.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::Nodes
                | Self::KeyList { .. }
                | Self::KeyShow { .. }
                | Self::KeyPattern
                | Self::AccountList
                | Self::AccountShow { .. }
                | Self::Statement { .. }
                | Self::Export
                | Self::ExportAll
                | Self::Verify
                | Self::Charges(_)
                | Self::InDoubt { .. }
                | Self::Backup { .. }
                | Self::Explain { .. }
                | Self::Request { .. }
                | Self::Rehearse(_)
                | Self::TokenList
                | Self::UserList { .. }
                | Self::Usage(_)
                | Self::UsageCsv(_)
                | Self::Audit { .. }
        )
    }
}
