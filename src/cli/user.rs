//! Implements `user`: people who sign in to the dashboard.

use clap::Subcommand;
use serde_json::{Value, json};

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::Output;
use super::token::RoleArgument;
use crate::control::command::Command;
use crate::control::operations::{InvitationInput, MemberRole, UserInput, UserPatch};
use crate::types::AccountId;

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Create a user who signs in by links.
    Create {
        /// The e-mail address.
        email: String,
        /// The user's name.
        #[arg(long, default_value = "")]
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Invite somebody, who chooses a password. Without a role, they open an account of their own.
    Invite {
        /// The e-mail address.
        email: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// List users.
    List {
        /// Only operators.
        #[arg(long)]
        operators: bool,
    },
    /// Make a link that signs a user in once, within a day.
    Link {
        /// The user's e-mail address or id.
        user: String,
    },
    /// Let a user sign in no more. Their sessions end.
    Disable {
        /// The user's e-mail address or id.
        user: String,
    },
    /// Let a user sign in again.
    Enable {
        /// The user's e-mail address or id.
        user: String,
    },
    /// Delete a user.
    Delete {
        /// The user's e-mail address or id.
        user: String,
    },
}

/// What a user may do.
#[derive(Debug, clap::Args)]
pub(super) struct Rights {
    /// The role as an operator.
    #[arg(long, value_enum, conflicts_with_all = ["account", "role"])]
    operator: Option<RoleArgument>,
    /// The account that they have access to.
    #[arg(long)]
    account: Option<AccountId>,
    /// What they may do in the account: owner, developer, billing or viewer.
    #[arg(long, requires = "account", value_parser = role)]
    role: Option<MemberRole>,
}

fn role(text: &str) -> std::result::Result<MemberRole, String> {
    MemberRole::named(text).ok_or_else(|| "there are owner, developer, billing and viewer".to_owned())
}

fn email(text: &str) -> Result<crate::control::operations::Email> {
    text.parse().map_err(|message| Failed(format!("error: {text}: {message}")))
}

fn link(asker: &Asker, made: &Value) -> Result {
    asker
        .output
        .record(&json!({ "email": made["email"], "link": made["link"], "expires": made["expires"] }))?;
    if asker.output == Output::Text && made["mailed"] == true {
        eprintln!("The link is sent by e-mail too.");
    }
    Ok(())
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    match arguments {
        Arguments::Create { email: text, name, rights } => {
            let Rights { operator, account, role } = rights;
            let input =
                UserInput { email: email(&text)?, name, account, role, operator: operator.map(Into::into) };
            asker.output.record(&asker.one(&Command::UserCreate(input))?)
        }
        Arguments::Invite { email: text, rights } => {
            let Rights { operator, account, role } = rights;
            let input =
                InvitationInput { email: email(&text)?, account, role, operator: operator.map(Into::into) };
            link(asker, &asker.one(&Command::UserInvite(input))?)
        }
        Arguments::List { operators } => asker.table(
            &Command::UserList { operators },
            &["email", "id", "name", "operator", "disabled", "created", "last_sign_in"],
        ),
        Arguments::Link { user } => link(asker, &asker.one(&Command::UserLink { user })?),
        Arguments::Disable { user } => change(asker, user, true),
        Arguments::Enable { user } => change(asker, user, false),
        Arguments::Delete { user } => asker.output.record(&asker.one(&Command::UserDelete { user })?),
    }
}

fn change(asker: &Asker, user: String, disabled: bool) -> Result {
    let patch = UserPatch { disabled: Some(disabled), ..UserPatch::default() };
    asker.output.record(&asker.one(&Command::UserChange { user, patch })?)
}
