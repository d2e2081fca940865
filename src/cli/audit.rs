//! Implements `audit`: lists who changed what, newest first.

use super::ask::Asker;
use super::failed::Result;
use crate::control::command::Command;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only changes of this object, such as account/acme or key/key_0123456789abcdef.
    #[arg(long)]
    object: Option<String>,
    /// How many entries to list at most, up to 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let Arguments { object, limit } = arguments;
    asker.table(
        &Command::Audit { object, most: limit.into() },
        &["at", "by", "from", "action", "object", "after"],
    )
}
