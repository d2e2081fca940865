//! Reports the servers of upstreams.

use serde_json::{Value, json};

use crate::servers::{Host, OriginStatus, Server};
use crate::snapshot::{Snapshot, Upstream};

/// All upstreams and their servers, for `tollgate status`.
pub(super) fn report(snapshot: &Snapshot) -> Value {
    let mut upstreams: Vec<&Upstream> = snapshot.upstreams.iter().map(|upstream| &**upstream).collect();
    upstreams.sort_by(|one, other| one.name.cmp(&other.name));
    upstreams.into_iter().map(one).collect()
}

fn one(upstream: &Upstream) -> Value {
    let group = &upstream.servers;
    let servers: Value = group.servers().iter().map(|(server, weight)| server_row(server, *weight)).collect();
    let unresolved: Value = group.origins().iter().filter_map(unresolved).collect();
    json!({
        "name": upstream.name,
        "waiting": group.queue().len(),
        "servers": servers,
        "unresolved": unresolved,
    })
}

fn server_row(server: &Server, weight: u32) -> Value {
    let failure = server.last_failure();
    json!({
        "server": server.name,
        "url": server.origin.url,
        "weight": weight,
        "in_flight": server.in_flight(),
        "requests": server.started(),
        "last_failure": failure.as_ref().map(|failure| &failure.cause),
        "last_failure_at": failure.map(|failure| failure.at.to_string()),
    })
}

/// A host name that could not be resolved last time.
fn unresolved(status: &OriginStatus) -> Option<Value> {
    let (Host::Name(name), Some(error)) = (&status.origin.host, &status.error) else { return None };
    Some(json!({ "name": name, "error": error }))
}
