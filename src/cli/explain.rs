//! Implements `explain`: shows, in order, the decisions that the gateway would make about a request.

use serde_json::Value;

use super::ask::Asker;
use super::failed::Result;
use super::output::{self, Output};
use crate::control::command::Command;
use crate::types::KeyId;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key's id, as `key list` shows it.
    #[arg(long)]
    key_id: KeyId,
    /// The method: GET, POST, …
    method: String,
    /// The URL: /path, or http://host/path.
    url: String,
}

pub(super) fn run(asker: &Asker, arguments: Arguments) -> Result {
    let Arguments { key_id, method, url } = arguments;
    let explained = asker.one(&Command::Explain { key: key_id, method, url })?;
    if asker.output == Output::Json {
        output::json(&explained)?;
    } else {
        for step in explained["steps"].as_array().into_iter().flatten() {
            let mark = if step["passes"] == Value::Bool(true) { "passes" } else { "REFUSES" };
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output::text(&format!("{mark:8}{:22}{}\n", text(&step["step"]), text(&step["detail"])))?;
        }
    }
    match (asker.output, &explained["reason"], &explained["status"]) {
        (Output::Json, ..) => Ok(()),
        (Output::Text, Value::String(reason), status) => {
            output::text(&format!("refused: {reason} ({status})\n"))
        }
        (Output::Text, ..) => output::text("admitted\n"),
    }
}
