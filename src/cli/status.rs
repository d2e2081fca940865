//! `tollgate status`: counters, health and upstreams of the running gateway. `tollgate nodes`: the gateways of its fleet.

use serde_json::Value;

use super::ask::Asker;
use super::failed::Result;
use super::output::{self, Output};
use crate::control::command::Command;

/// Columns of the table of servers.
const SERVERS: &[&str] =
    &["upstream", "server", "url", "weight", "state", "in_flight", "requests", "failures", "last_failure"];
/// Columns of the table of host names that could not be resolved.
const UNRESOLVED: &[&str] = &["upstream", "name", "error"];

pub(super) fn run(asker: &Asker) -> Result {
    let mut status = asker.online(&Command::Status)?;
    if asker.output == Output::Json {
        return asker.output.record(&status);
    }
    let upstreams = status.as_object_mut().and_then(|status| status.remove("upstreams")).unwrap_or_default();
    asker.output.record(&status)?;
    for (list, columns) in [("servers", SERVERS), ("unresolved", UNRESOLVED)] {
        let rows = rows(&upstreams, list);
        if !rows.is_empty() {
            output::text("\n")?;
            let mut table = asker.output.rows(columns);
            rows.iter().try_for_each(|row| table.add(row))?;
            table.finish()?;
        }
    }
    Ok(())
}

/// The rows of all upstreams, each with the name of its upstream.
fn rows(upstreams: &Value, list: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for upstream in upstreams.as_array().into_iter().flatten() {
        for row in upstream[list].as_array().into_iter().flatten() {
            let mut row = row.clone();
            row["upstream"] = upstream["name"].clone();
            rows.push(row);
        }
    }
    rows
}

pub(super) fn nodes(asker: &Asker) -> Result {
    asker.table(&Command::Nodes, &["name", "state", "seen_ms", "journal", "accounts", "leased"])
}
