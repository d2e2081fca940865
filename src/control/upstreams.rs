//! Reports the servers of upstreams.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::{Host, OriginStatus, Server, ServerState};
use crate::snapshot::{Snapshot, Upstream};
use crate::types::Moment;

/// All upstreams and their servers, for `tollgate status`.
pub(super) fn report(snapshot: &Snapshot, now: Moment) -> Value {
    let mut upstreams: Vec<&Upstream> = snapshot.upstreams.iter().map(|upstream| &**upstream).collect();
    upstreams.sort_by(|one, other| one.name.cmp(&other.name));
    upstreams.into_iter().map(|upstream| one(upstream, now)).collect()
}

fn one(upstream: &Upstream, now: Moment) -> Value {
    let group = &upstream.servers;
    let listed = group.servers();
    let row = |(server, weight): &(Arc<Server>, u32)| server_row(server, *weight, upstream.slow_start, now);
    let servers: Value = listed.iter().map(row).collect();
    let unresolved: Value = group.origins().iter().filter_map(unresolved).collect();
    json!({
        "name": upstream.name,
        "waiting": group.queue().len(),
        "panic": group.is_in_panic(now),
        "servers": servers,
        "unresolved": unresolved,
    })
}

fn server_row(server: &Server, weight: u32, slow_start: Duration, now: Moment) -> Value {
    let failure = server.last_failure();
    json!({
        "server": server.name,
        "url": server.origin.url,
        "weight": weight,
        "state": state(server.state(now), slow_start),
        "in_flight": server.in_flight(),
        "requests": server.started(),
        "failures": server.failures(),
        "last_failure": failure.as_ref().map(|failure| &failure.cause),
        "last_failure_at": failure.map(|failure| failure.at.to_string()),
    })
}

fn state(state: ServerState, slow_start: Duration) -> &'static str {
    match state {
        ServerState::Down => "down",
        ServerState::Ejected => "ejected",
        ServerState::Up(Some(since)) if since < slow_start => "slow start",
        ServerState::Up(_) => "up",
    }
}

/// A host name that could not be resolved last time.
fn unresolved(status: &OriginStatus) -> Option<Value> {
    let (Host::Name(name), Some(error)) = (&status.origin.host, &status.error) else { return None };
    Some(json!({ "name": name, "error": error }))
}
