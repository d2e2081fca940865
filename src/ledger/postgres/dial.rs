//! Opens connections to a PostgreSQL server, each for what it does.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fence::Fence;
use super::nodes;
use super::server::Server;
use crate::ledger::sql::db::{Connection, Network, Seat, postgres_failed};
#[cfg(test)]
use crate::ledger::sql::leases::CHANGED;
use crate::ledger::sql::leases::CHANNEL;
use crate::ledger::store::{Hint, LeaseOf, LedgerError, OnHint, Result};

/// Longest time that connecting may take.
const MAX_CONNECT: Duration = Duration::from_secs(3);
/// Attempts to take the lock of the gateway that serves.
const LOCK_ATTEMPTS: u32 = 20;
/// Pause between two attempts to take the lock of the gateway that serves, which the server frees once it has noticed that
/// a connection ended.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What each connection sets: the server notices within some seconds that its client is gone, and frees its locks.
const EACH: &str =
    "SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3;
     SET tcp_user_timeout = '5s'; SET client_connection_check_interval = '1s'";
/// What a connection that writes sets: commits are on disk, and the server ends what hangs.
const WRITER: &str = "SET synchronous_commit = 'on'; SET statement_timeout = '20s';
     SET idle_in_transaction_session_timeout = '20s'";
const READER: &str = "SET default_transaction_read_only = 'on'";
/// Longest time that a statement may take which requests wait for.
const MAX_SHORT: Duration = Duration::from_secs(3);
/// Longest time that any other statement may take, with what the network adds.
pub(super) const MAX_STATEMENT: Duration = Duration::from_secs(30);
/// Key of the lock that a gateway takes while it serves: `TGLS`.
const SERVES: i32 = 0x5447_4c53;
/// Key of the lock that it takes to write a journal in the database: `TGLJ`.
const JOURNALS: i32 = 0x5447_4c4a;
/// Key of the lock that a gateway holds that is alone, or all gateways of a fleet: `TGLF`.
const FLEET: i32 = 0x5447_4c46;
/// Key of the lock that it takes to lease credits: `TGLL`.
const LEASES: i32 = 0x5447_4c4c;

/// Receives what other gateways tell by NOTIFY.
pub(super) struct Hints {
    /// The number of this gateway.
    node: i64,
    hinted: OnceLock<OnHint>,
}

impl Hints {
    pub(super) fn new(node: i64) -> Self {
        Self { node, hinted: OnceLock::new() }
    }

    /// Sets, once, the function that receives hints.
    pub(super) fn on_hint(&self, hinted: OnHint) {
        let _ = self.hinted.set(hinted);
    }

    /// Passes a notification on, unless this gateway calls.
    fn receive(&self, payload: &str) {
        let hint = match read_call(payload) {
            Some((node, _)) if node == self.node => return,
            Some((_, of)) => Hint::Called(of),
            None => Hint::Changed,
        };
        if let Some(hinted) = self.hinted.get() {
            hinted(hint);
        }
    }
}

/// The payload of a call by a gateway.
pub(super) fn write_call(node: i64, of: &[LeaseOf]) -> String {
    let numbers: Vec<String> = of.iter().map(|of| of.number().to_string()).collect();
    format!("{node} {}", numbers.join(" "))
}

/// From [`write_call`]: the gateway, and what it needs; `None` if it is another payload.
fn read_call(payload: &str) -> Option<(i64, Vec<LeaseOf>)> {
    let (node, of) = payload.split_once(' ')?;
    let of = of.split(' ').filter_map(|number| LeaseOf::of_number(number.parse().ok()?));
    Some((node.parse().ok()?, of.collect()))
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes the books. Has the lock of the gateway that serves.
    Serves,
    /// Writes the journal. Has the lock of that.
    Journals,
    /// Leases credits. Has the lock of that.
    Leases,
    /// Writes, now and then, without a lock.
    Writes,
    /// Only reads.
    Reads,
}

impl Role {
    /// A word that operators see in `pg_stat_activity`.
    fn name(self) -> &'static str {
        match self {
            Self::Serves => "books",
            Self::Journals => "journal",
            Self::Leases => "leases",
            Self::Writes => "upkeep",
            Self::Reads => "reads",
        }
    }

    fn lock(self) -> Option<i32> {
        match self {
            Self::Serves => Some(SERVES),
            Self::Journals => Some(JOURNALS),
            Self::Leases => Some(LEASES),
            Self::Writes | Self::Reads => None,
        }
    }
}

pub(super) fn connect(server: &Server, seat: Seat, role: Role, fence: &Arc<Fence>) -> Result<Connection> {
    let longest = match role {
        Role::Journals | Role::Leases => MAX_SHORT,
        Role::Serves | Role::Writes | Role::Reads => MAX_STATEMENT,
    };
    Ok(Connection::postgres(network(server, seat, role, fence)?, seat, longest))
}

/// A connection for leases, which receives hints.
pub(super) fn connect_for_leases(
    server: &Server,
    seat: Seat,
    fence: &Arc<Fence>,
    hints: &Arc<Hints>,
) -> Result<Connection> {
    let network = listening_network(server, seat, Role::Leases, fence, Some(Arc::clone(hints)))?;
    Ok(Connection::postgres(network, seat, MAX_SHORT))
}

/// What opens the connections of a role.
pub(super) fn network(server: &Server, seat: Seat, role: Role, fence: &Arc<Fence>) -> Result<Arc<Network>> {
    listening_network(server, seat, role, fence, None)
}

fn listening_network(
    server: &Server,
    seat: Seat,
    role: Role,
    fence: &Arc<Fence>,
    hints: Option<Arc<Hints>>,
) -> Result<Arc<Network>> {
    let (mut server, fence) = (server.clone(), Arc::clone(fence));
    let name = server.node.as_deref().unwrap_or(nodes::ALONE).to_owned();
    server.config.application_name(format!("tollgate {name} {}", role.name()));
    if server.tls.is_some() {
        server.config.ssl_mode(SslMode::Require); // never without, whatever the server offers
    }
    Network::new(move || {
        let (server, fence, hints) = (server.clone(), Arc::clone(&fence), hints.clone());
        async move {
            let late = || LedgerError::Failed(format!("{} does not answer", place(&server.config)));
            tokio::time::timeout(MAX_CONNECT, dial(&server, seat, role, &fence, hints))
                .await
                .unwrap_or_else(|_| Err(late()))
        }
        .boxed()
    })
}

async fn dial(
    server: &Server,
    seat: Seat,
    role: Role,
    fence: &Fence,
    hints: Option<Arc<Hints>>,
) -> Result<Client> {
    let listens = hints.is_some();
    let client = match &server.tls {
        Some(tls) => start(&server.config, MakeRustlsConnect::new((**tls).clone()), hints).await?,
        None => start(&server.config, NoTls, hints).await?,
    };
    let settings = format!("{EACH}; {}", if role == Role::Reads { READER } else { WRITER });
    client.batch_execute(&settings).await.map_err(|error| postgres_failed(&error))?;
    if let Some(lock) = role.lock() {
        let node = i32::try_from(seat.node).map_err(|_| LedgerError::Failed("too many nodes".to_owned()))?;
        if !take_lock(&client, "pg_try_advisory_lock", (lock, node)).await? {
            let message = "another gateway with the name of this one serves it already";
            return Err(LedgerError::Refused(message.to_owned()));
        }
    }
    if role.lock().is_some()
        && let Some(begun) = fence.generation()
    {
        let sql = "SELECT generation FROM nodes WHERE num = $1";
        let row = client.query_one(sql, &[&seat.node]).await;
        let generation: i64 = row.and_then(|row| row.try_get(0)).map_err(|error| postgres_failed(&error))?;
        if generation != begun {
            fence.fall();
            let message = "another process has served as this gateway meanwhile: restart it";
            return Err(LedgerError::Refused(message.to_owned()));
        }
    }
    if listens && let Err(error) = client.batch_execute(&format!("LISTEN {CHANNEL}")).await {
        tracing::warn!(%error, "changes at other gateways will take half a second");
    }
    if role == Role::Serves {
        let kind = if seat.is_of_fleet { "pg_try_advisory_lock_shared" } else { "pg_try_advisory_lock" };
        if !take_lock(&client, kind, (FLEET, 0)).await? {
            return Err(nodes::in_the_way(seat, "they are running"));
        }
    }
    Ok(client)
}

/// The hosts and the database, for messages.
pub(in crate::ledger) fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports =
        config.get_ports().iter().map(|port| format!(":{port}")).chain(std::iter::repeat(String::new()));
    let hosts: Vec<String> = hosts.zip(ports).map(|(host, port)| host + &port).collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

async fn start<T>(config: &Config, tls: T, hints: Option<Arc<Hints>>) -> Result<Client>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let refused = |error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).filter(|_| error.as_db_error().is_none());
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        let LedgerError::Failed(message) = postgres_failed(&error) else { return LedgerError::Closed };
        let has_none = cause.contains("does not support TLS");
        let help = if has_none { "; the URL of such a server ends with `?sslmode=disable`" } else { "" };
        LedgerError::Failed(format!("{}: {message}{cause}{help}", place(config)))
    };
    let (client, mut connection) = config.connect(tls).await.map_err(refused)?;
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                Ok(AsyncMessage::Notification(told)) => {
                    hints.iter().for_each(|hints| hints.receive(told.payload()));
                }
                Ok(_) => {} // a notice
                Err(error) => return tracing::debug!(%error, "a connection to PostgreSQL ended"),
            }
        }
    });
    Ok(client)
}

/// Takes a lock, which the server frees once it has noticed that a former connection ended. False if another has it.
async fn take_lock(client: &Client, function: &str, (lock, node): (i32, i32)) -> Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        let row = client.query_one(&format!("SELECT {function}($1, $2)"), &[&lock, &node]).await;
        if row.and_then(|row| row.try_get(0)).map_err(|error| postgres_failed(&error))? {
            return Ok(true);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AccountNum, KeyNum};

    #[test]
    fn calls_are_told_from_changes() {
        let of = vec![LeaseOf::Account(AccountNum(7)), LeaseOf::Key(KeyNum(u32::MAX))];
        assert_eq!(read_call(&write_call(3, &of)), Some((3, of)));
        assert_eq!(read_call(CHANGED), None);
    }
}
