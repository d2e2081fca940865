//! Implements `explain`: shows, in order, the decisions that the gateway would make about a request, or made about one.

use serde_json::Value;

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::control::command::Command;
use crate::types::KeyId;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key's id, as `key list` shows it.
    #[arg(long, required_unless_present = "request")]
    key_id: Option<KeyId>,
    /// The id of a request of the last hour, as its response's x-request-id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["key_id", "method", "url"])]
    request: Option<String>,
    /// The method: GET, POST, …
    #[arg(required_unless_present = "request")]
    method: Option<String>,
    /// The URL: /path, or http://host/path.
    #[arg(required_unless_present = "request")]
    url: Option<String>,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let explained = match arguments {
        Arguments { request: Some(id), .. } => asker.online(&Command::Request { id })?,
        Arguments { key_id: Some(key), method: Some(method), url: Some(url), .. } => {
            asker.one(&Command::Explain { key, method, url })?
        }
        _ => return Err(Failed("error: a key, a method and a URL, or --request".to_owned())),
    };
    if asker.output == Output::Json {
        return output::json(&explained);
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    for step in explained["steps"].as_array().into_iter().flatten() {
        let mark = match (&step["passes"], &step["shadow"]) {
            (Value::Bool(true), Value::String(_)) => "(shadow)",
            (Value::Bool(true), _) => "passes",
            _ => "REFUSES",
        };
        output::text(&format!("{mark:9}{:22}{}\n", text(&step["step"]), text(&step["detail"])))?;
    }
    match (&explained["reason"], &explained["outcome"]) {
        (Value::String(reason), _) => output::text(&format!("refused: {reason} ({})\n", explained["status"])),
        (_, Value::String(outcome)) => {
            let (at, status) = (text(&explained["at"]), &explained["status"]);
            output::text(&format!("{outcome}, {status}, {} credits, {at}\n", explained["credits"]))
        }
        _ => output::text("admitted\n"),
    }
}
