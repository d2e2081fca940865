//! Implements `token`: creates, lists and revokes tokens of the admin API.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::ask::Asker;
use super::failed::Result;
use super::output::Output;
use crate::control::command::Command;
use crate::control::operations::{Role, TokenInput};

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Create a token. It is shown only once.
    Create {
        /// A name by which operators recognise the token.
        name: String,
        /// What the token may do.
        #[arg(long, value_enum)]
        role: RoleArgument,
        /// When the token expires: a duration such as 90d, or a time such as 2027-01-01T00:00:00Z.
        #[arg(long)]
        expires: Option<String>,
    },
    /// List tokens.
    List,
    /// Revoke a token permanently.
    Revoke {
        /// The token's name.
        name: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RoleArgument {
    /// Everything.
    Owner,
    /// Reads accounts, and books credits.
    Billing,
    /// Reads everything, changes nothing.
    Support,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Owner => Self::Owner,
            RoleArgument::Billing => Self::Billing,
            RoleArgument::Support => Self::Support,
        }
    }
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    match arguments {
        Arguments::Create { name, role, expires } => {
            let made = asker.one(&Command::TokenCreate(TokenInput { name, role: role.into(), expires }))?;
            asker.output.record(&json!({ "name": made["name"], "token": made["token"] }))?;
            if asker.output == Output::Text {
                eprintln!("This token is shown only now; Tollgate keeps its SHA-256.");
            }
            Ok(())
        }
        Arguments::List => {
            asker.table(&Command::TokenList, &["name", "role", "state", "created", "expires", "last_used"])
        }
        Arguments::Revoke { name } => asker.output.record(&asker.one(&Command::TokenRevoke { name })?),
    }
}
