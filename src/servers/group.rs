//! All servers of one upstream.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, MutexGuard};

use super::budget::RetryBudget;
use super::origin::{Host, Origin};
use super::queue::WaitQueue;
use super::server::{Server, ServerState};
use crate::policy::upstream::balance::Turns;
use crate::policy::upstream::ejection::Ejection;
use crate::types::{Histogram, LONG, Moment, WallTime};

/// Most addresses of one host name that are used.
pub const MAX_ADDRESSES: usize = 64;

/// All servers of one upstream, and the requests that wait for one of them.
#[derive(Debug)]
pub struct ServerGroup {
    upstream: Arc<str>,
    list: ArcSwap<Vec<Listed>>,
    origins: Mutex<Vec<OriginStatus>>,
    turns: Mutex<Turns>,
    /// Held while a server is left out, so that two threads do not leave out more than allowed.
    ejecting: Mutex<()>,
    queue: Arc<WaitQueue>,
    budget: RetryBudget,
    /// How long connecting took, TLS included.
    pub connects: Histogram,
}

/// A server and its weight.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) server: Arc<Server>,
    pub(super) weight: u32,
}

/// A server as the configuration names it, and its addresses.
#[derive(Clone, Debug)]
pub struct OriginStatus {
    /// What the configuration says.
    pub origin: Arc<Origin>,
    /// The share of each of its addresses.
    pub weight: u32,
    /// The addresses that were last found.
    pub addresses: Vec<SocketAddr>,
    /// Why its name could not be resolved last time.
    pub error: Option<String>,
}

impl ServerGroup {
    /// The servers of an upstream with this name; none, until they are configured.
    #[must_use]
    pub fn new(upstream: &str) -> Self {
        Self {
            upstream: upstream.into(),
            list: ArcSwap::default(),
            origins: Mutex::default(),
            turns: Mutex::default(),
            ejecting: Mutex::default(),
            queue: Arc::default(),
            budget: RetryBudget::default(),
            connects: Histogram::new(LONG),
        }
    }

    /// Sets the servers that the configuration names, each with its weight. Servers that stay keep their state, and the
    /// addresses of names that stay are still used.
    pub fn configure(&self, origins: &[(Arc<Origin>, u32)]) {
        let mut known = self.origins.lock();
        let status = |(origin, weight): &(Arc<Origin>, u32)| {
            let before = known.iter().find(|before| before.origin.is_same(origin));
            let of_name = known.iter().find(|before| before.origin.host == origin.host);
            let found = of_name.map(|before| before.addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>());
            let addresses = match &origin.host {
                Host::Address(address) => vec![*address],
                Host::Name(_) => found.unwrap_or_default(),
            };
            OriginStatus {
                origin: before.map_or_else(|| Arc::clone(origin), |before| Arc::clone(&before.origin)),
                weight: *weight,
                addresses: addresses.into_iter().map(|ip| SocketAddr::new(ip, origin.port)).collect(),
                error: of_name.and_then(|before| before.error.clone()),
            }
        };
        *known = origins.iter().map(status).collect();
        self.publish(&known);
    }

    /// Sets the addresses of a host name. If it could not be resolved, or has none, the former ones stay in use. Returns
    /// true if something changed.
    pub fn resolved(&self, name: &str, found: Result<&[SocketAddr], &str>) -> bool {
        let mut known = self.origins.lock();
        let (mut changed, mut is_new_error) = (false, false);
        for status in known.iter_mut() {
            if !matches!(&status.origin.host, Host::Name(host) if host == name) {
                continue;
            }
            let error = match found {
                Ok([]) => Some("it has no address".to_owned()),
                Err(error) => Some(error.to_owned()),
                Ok(found) => {
                    let port = status.origin.port;
                    let mut addresses: Vec<_> =
                        found.iter().map(|at| SocketAddr::new(at.ip(), port)).collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    addresses.truncate(MAX_ADDRESSES);
                    changed |= addresses != status.addresses;
                    status.addresses = addresses;
                    None
                }
            };
            is_new_error |= error.is_some() && error != status.error;
            status.error = error;
        }
        if changed {
            self.publish(&known);
        } else {
            self.queue.freed_all(); // requests that wait for an address fail now, if there is none
        }
        changed || is_new_error
    }

    /// Replaces the list of servers. An address that stays keeps its server.
    fn publish(&self, origins: &[OriginStatus]) {
        let before = self.list.load();
        let mut list: Vec<Listed> = Vec::new();
        for status in origins {
            for &address in &status.addresses {
                let same =
                    |it: &&Listed| it.server.address == address && it.server.origin.is_same(&status.origin);
                if list.iter().any(|it| same(&it)) {
                    continue; // listed twice, or two names have the same address
                }
                let new = || {
                    let (upstream, queue) = (Arc::clone(&self.upstream), Arc::clone(&self.queue));
                    Arc::new(Server::new(upstream, Arc::clone(&status.origin), address, queue))
                };
                let server = before.iter().find(same).map_or_else(new, |it| Arc::clone(&it.server));
                list.push(Listed { server, weight: status.weight });
            }
        }
        self.list.store(Arc::new(list));
        self.queue.freed_all(); // requests may wait for an address
    }

    /// The host names of the servers, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for status in self.origins.lock().iter() {
            if let Host::Name(name) = &status.origin.host
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// The servers as the configuration names them.
    #[must_use]
    pub fn origins(&self) -> Vec<OriginStatus> {
        self.origins.lock().clone()
    }

    /// All servers, each with its weight.
    #[must_use]
    pub fn servers(&self) -> Vec<(Arc<Server>, u32)> {
        self.list.load().iter().map(|it| (Arc::clone(&it.server), it.weight)).collect()
    }

    /// The requests that wait for a server.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Counts a failed request, and leaves its server out if too many failed in a row. Returns true if it did.
    pub fn failed(
        &self,
        server: &Server,
        cause: String,
        ejection: &Ejection,
        (now, wall): (Moment, WallTime),
    ) -> bool {
        let in_a_row = server.count_failure(wall, cause);
        ejection.failures != 0 && in_a_row >= ejection.failures && self.eject(server, ejection, now)
    }

    /// Leaves a server out for a while, unless it is already, or too many are. Returns true if it does now.
    pub fn eject(&self, server: &Server, ejection: &Ejection, now: Moment) -> bool {
        let _one_at_a_time = self.ejecting.lock();
        let list = self.list.load();
        let out = list.iter().filter(|it| it.server.state(now) == ServerState::Ejected).count();
        let is_out = server.state(now) == ServerState::Ejected;
        let ejects = !is_out && ejection.allows(out, list.len());
        if ejects {
            server.eject(now.plus(ejection.time));
        }
        ejects
    }

    /// The budget of retries.
    #[must_use]
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// True if there are servers but none is available, so that requests are sent to all of them.
    #[must_use]
    pub fn is_in_panic(&self, now: Moment) -> bool {
        let list = self.list.load();
        !list.is_empty() && !list.iter().any(|it| matches!(it.server.state(now), ServerState::Up(_)))
    }

    pub(super) fn list(&self) -> Guard<Arc<Vec<Listed>>> {
        self.list.load()
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock()
    }

    /// Why no address is known; `None` if names are still being resolved for the first time.
    pub(super) fn why_unknown(&self) -> Option<String> {
        let known = self.origins.lock();
        let mut errors = Vec::new();
        for status in known.iter() {
            if let Host::Name(name) = &status.origin.host {
                errors.push(format!("{name}: {}", status.error.as_ref()?));
            }
        }
        Some(errors.join("; "))
    }
}
