//! Parses the command line and runs the command. Each command has its own file.

mod account;
mod ask;
mod audit;
mod check;
mod demo;
mod explain;
mod export;
mod failed;
mod import;
mod key;
mod ledger;
mod output;
mod reconcile;
mod serve;
mod status;
mod token;
mod usage;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::raw;
use crate::control::api;
use ask::Asker;
use failed::Failed;
use output::Output;

/// An API gateway that checks keys, applies limits and charges credits exactly.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
    /// The configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = "./config.toml")]
    config: PathBuf,
    /// The output format.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Run a gateway, a sample API and a ledger in a temporary folder, with a key to try.
    Demo(demo::Arguments),
    /// Run the gateway.
    Serve(serve::Arguments),
    /// Report all mistakes of a configuration.
    Check(check::Arguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print the description of the admin API: OpenAPI 3.1.
    Openapi,
    /// Create, list and change keys.
    #[command(subcommand)]
    Key(key::Arguments),
    /// Create, list and change accounts; grant credits.
    #[command(subcommand)]
    Account(account::Arguments),
    /// Verify, export and back up the ledger; list and return holds in doubt.
    #[command(subcommand)]
    Ledger(ledger::Arguments),
    /// Create, list and revoke tokens of the admin API.
    #[command(subcommand)]
    Token(token::Arguments),
    /// Invite, list and change people who sign in to the dashboard.
    #[command(subcommand)]
    User(user::Arguments),
    /// Compare an upstream's bill with what its requests were charged, and list what differs.
    Reconcile(reconcile::Arguments),
    /// List who changed what.
    Audit(audit::Arguments),
    /// Report requests, credits, bytes and durations by time.
    Usage(usage::Arguments),
    /// Show the decisions that a request would meet, without sending it.
    Explain(explain::Arguments),
    /// Write all accounts and keys as a configuration file.
    Export(export::Arguments),
    /// Reload the configuration of the running gateway.
    Reload,
    /// Show counters, health and upstreams of the running gateway.
    Status,
    /// List the gateways of the fleet: their state, and what they have leased.
    Nodes,
    /// Print shell completions.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the process was started with. Exit code 0: success; 1: the command was refused or failed; 2:
/// invalid arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let asker = Asker { config: arguments.config, output: arguments.output };
    let result = match arguments.command {
        Commands::Demo(arguments) => demo::run(&arguments),
        Commands::Serve(arguments) => serve::run(&asker.config, &arguments),
        Commands::Check(arguments) => check::run(&asker, &arguments),
        Commands::Schema => output::json(raw::schema()),
        Commands::Openapi => output::json(&api::openapi()),
        Commands::Key(arguments) => key::run(&asker, arguments),
        Commands::Account(arguments) => account::run(&asker, arguments),
        Commands::Ledger(arguments) => ledger::run(&asker, arguments),
        Commands::Token(arguments) => token::run(&asker, arguments),
        Commands::User(arguments) => user::run(&asker, arguments),
        Commands::Usage(arguments) => usage::run(&asker, arguments),
        Commands::Reconcile(arguments) => reconcile::run(&asker, arguments),
        Commands::Audit(arguments) => audit::run(&asker, arguments),
        Commands::Explain(arguments) => explain::run(&asker, arguments),
        Commands::Export(arguments) => export::run(&asker, &arguments),
        Commands::Reload => ask::reload(&asker),
        Commands::Status => status::run(&asker),
        Commands::Nodes => status::nodes(&asker),
        Commands::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tollgate", &mut text);
            output::text(&String::from_utf8_lossy(&text))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(message)) => {
            if !message.is_empty() {
                eprintln!("{message}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
