//! Implements `account`: creates, lists and changes accounts; grants credits.

use clap::Subcommand;

use super::ask::Asker;
use super::failed::Result;
use super::import;
use crate::control::command::Command;
use crate::control::operations::{AccountInput, BookingInput, GroupInput, SpendTerms};
use crate::types::{AccountId, Credits, GroupName};

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Create an account.
    Create {
        /// The account's id: 1 to 64 of A-Z a-z 0-9 . _ -
        id: AccountId,
        /// The name of a plan in the configuration. An account without a plan has no limits.
        #[arg(long)]
        plan: Option<String>,
        /// A name for people.
        #[arg(long, default_value = "")]
        name: String,
        /// The opening grant.
        #[arg(long)]
        credits: Option<Credits>,
    },
    /// Import accounts: lines with id, name, plan, credits.
    Import(import::Arguments),
    /// List accounts.
    List,
    /// Show an account.
    Show {
        /// The account's id.
        id: AccountId,
    },
    /// Grant credits. Repeating the same reference changes nothing.
    Grant {
        /// The account's id.
        id: AccountId,
        /// The number of credits.
        #[arg(allow_negative_numbers = true)]
        credits: Credits,
        /// A unique reference, such as an invoice number: repeating it changes nothing.
        #[arg(long)]
        reference: String,
        /// The bucket that gets them, one of the configuration's.
        #[arg(long)]
        bucket: Option<String>,
        /// When what is left of them expires: a duration from now, or a time.
        #[arg(long)]
        expires: Option<String>,
        /// A note for the audit log.
        #[arg(long)]
        note: Option<String>,
    },
    /// Increase or decrease the available credits, but not below zero.
    Adjust {
        /// The account's id.
        id: AccountId,
        /// The number of credits; negative to take credits away.
        #[arg(allow_negative_numbers = true)]
        credits: Credits,
        /// A unique reference: repeating it changes nothing.
        #[arg(long)]
        reference: String,
    },
    /// Refuse all requests of an account.
    Suspend {
        /// The account's id.
        id: AccountId,
    },
    /// Accept requests of a suspended account again.
    Resume {
        /// The account's id.
        id: AccountId,
    },
    /// List the groups of an account's keys, which have a spending limit together.
    Groups {
        /// The account's id.
        id: AccountId,
    },
    /// Set what the keys of a group may spend together. Creates the group if it does not exist.
    SetGroup {
        /// The account's id.
        id: AccountId,
        /// The group's name, such as a team or an environment.
        group: GroupName,
        /// The most credits: 100, or 100/day (hour, day, week, month, year).
        #[arg(long)]
        spend_limit: SpendTerms,
    },
    /// Delete a group that no key is in.
    DeleteGroup {
        /// The account's id.
        id: AccountId,
        /// The group's name.
        group: GroupName,
    },
    /// List every ledger entry of an account.
    Statement {
        /// The account's id.
        id: AccountId,
    },
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let record = |command: Command| asker.output.record(&asker.one(&command)?);
    match arguments {
        Arguments::Create { id, name, plan, credits } => {
            record(Command::AccountCreate(AccountInput { id, name, plan, credits }))
        }
        Arguments::Import(arguments) => import::run::<import::Accounts>(asker, &arguments),
        Arguments::List => {
            asker.table(&Command::AccountList, &["id", "plan", "available", "held", "state", "source"])
        }
        Arguments::Show { id } => record(Command::AccountShow { id }),
        Arguments::Grant { id, credits, reference, bucket, expires, note } => {
            let booking = BookingInput { credits, reference, bucket, expires, note };
            record(Command::Book { account: id, adjustment: false, booking })
        }
        Arguments::Adjust { id, credits, reference } => {
            let booking = BookingInput { credits, reference, ..BookingInput::default() };
            record(Command::Book { account: id, adjustment: true, booking })
        }
        Arguments::Suspend { id } => record(Command::AccountSuspend { id, suspended: true }),
        Arguments::Resume { id } => record(Command::AccountSuspend { id, suspended: false }),
        Arguments::Groups { id } => {
            let columns = &["name", "spend_limit", "spent_in_period", "spent", "keys"];
            asker.table(&Command::GroupList { account: id }, columns)
        }
        Arguments::SetGroup { id, group, spend_limit } => {
            record(Command::GroupPut { account: id, name: group, group: GroupInput { spend_limit } })
        }
        Arguments::DeleteGroup { id, group } => record(Command::GroupDelete { account: id, name: group }),
        Arguments::Statement { id } => asker.table(
            &Command::Statement { account: id },
            &["at", "kind", "route", "requests", "amount", "bucket", "balance_after", "reference"],
        ),
    }
}
