//! Implements `export`: writes all accounts and keys as a configuration file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::Value;

use super::ask::Asker;
use super::failed::{Failed, Result};
use crate::control::command::Command;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to write, which must not exist; default: standard output.
    file: Option<PathBuf>,
}

/// Comments at the top.
const HEAD: &str = "# Accounts and keys, as Tollgate knew them. `credits` is the balance, which a ledger that does not know the account
# grants once. Comments are what a file cannot say: suspended accounts, disabled keys, and keys with a spending limit.
";

pub(super) fn run(asker: &Asker, arguments: &Arguments) -> Result {
    let mut out: Box<dyn Write> = match &arguments.file {
        Some(path) => Box::new(BufWriter::new(create(path)?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    out.write_all(HEAD.as_bytes())?;
    let (mut state, mut written) = (String::new(), Ok(()));
    let done = asker.each(&Command::ExportAll, |row| {
        let text = match (&row["account"], &row["key"]) {
            (account @ Value::Object(_), _) => {
                account["state"].as_str().unwrap_or_default().clone_into(&mut state);
                of_account(account)
            }
            (_, key) => of_key(key, &state),
        };
        if written.is_ok() {
            written = out.write_all(text.as_bytes());
        }
    })?;
    written.and_then(|()| out.flush())?;
    eprintln!("{} accounts, {} keys", done["accounts"], done["keys"]);
    Ok(())
}

fn create(path: &PathBuf) -> Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| Failed(format!("error: {}: {error}", path.display())))
}

/// A value as TOML.
fn toml(value: &Value) -> String {
    let list = |items: Vec<String>, [open, close]: [&str; 2]| format!("{open}{}{close}", items.join(", "));
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => list(items.iter().map(toml).collect(), ["[", "]"]),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            list(fields.map(|(name, value)| format!("{name} = {}", toml(value))).collect(), ["{ ", " }"])
        }
        other => other.to_string(),
    }
}

/// Lines with these settings, without those that are null.
fn settings(of: &Value, names: &[&str]) -> String {
    let line = |name: &&str| {
        Some(format!("{name} = {}\n", toml(Some(&of[*name]).filter(|value| !value.is_null())?)))
    };
    names.iter().filter_map(line).collect()
}

fn of_account(account: &Value) -> String {
    let id = toml(&account["id"]);
    let balance = &account["balance"];
    let credits = match balance.to_string() {
        balance if balance.starts_with('-') => format!("# The balance is {balance}.\n"),
        balance => format!("credits = \"{balance}\"\n"),
    };
    let name = match account["name"].as_str() {
        Some(name) if !name.is_empty() => format!("# {name}\n"),
        _ => String::new(),
    };
    let text = format!("[accounts.{id}]\n{}{credits}", settings(account, &["plan", "webhooks"]));
    match account["state"].as_str() {
        Some("active") => format!("\n{name}{text}"),
        state => format!("\n{name}{}", commented(state.unwrap_or_default(), &text)),
    }
}

/// Text as a comment, with the reason.
fn commented(reason: &str, text: &str) -> String {
    let lines = text.lines().map(|line| format!("# {line}\n"));
    format!("# {reason}:\n{}", lines.collect::<String>())
}

fn of_key(key: &Value, of_account: &str) -> String {
    let state = key["state"].as_str().unwrap_or_default();
    let account = toml(&key["account"]);
    let mut text = format!(
        "[[accounts.{account}.keys]]\n{}",
        settings(key, &["label", "sha256", "scopes", "allow_from", "limits"])
    );
    if let Some(expires) = key["expires"].as_str() {
        text += &format!("expires = {expires}\n");
    }
    match (of_account, state, &key["spend_limit"], &key["group"]) {
        ("active", "active", Value::Null, Value::Null) => text,
        ("active", "active", Value::Null, group) => {
            commented(&format!("in the group {group}, which has a spending limit"), &text)
        }
        ("active", "active", limit, _) => {
            let reason = format!("a spending limit of {limit}, of which {} are spent", key["spent"]);
            commented(&reason, &text)
        }
        ("active", state, ..) => commented(state, &text),
        (of_account, ..) => commented(&format!("its account: {of_account}"), &text),
    }
}
