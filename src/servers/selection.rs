//! Selects the server of a request among those of its upstream.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::group::{Listed, ServerGroup};
use super::server::{Server, ServerState};
use crate::policy::upstream::balance::{Balance, Candidate, least_requests, rendezvous};
use crate::policy::upstream::ejection::ramped;
use crate::types::Moment;

/// What the selection of a server depends on.
#[derive(Debug)]
pub struct Selection<'a> {
    /// The algorithm.
    pub balance: &'a Balance,
    /// Most requests in flight per server; 0 for no limit.
    pub max_requests: u32,
    /// The hash of what requests to the same server have in common, for [`Balance::Hash`].
    pub affinity: u64,
    /// The servers that failed this request before. They are selected again only if there are no others.
    pub tried: &'a [u64],
    /// Draws servers for [`Balance::LeastRequests`].
    pub random: &'a RefCell<fastrand::Rng>,
    /// How long a server that is available again gets less than its share.
    pub slow_start: Duration,
    /// The current time.
    pub now: Moment,
}

/// Why no server was selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoServer {
    /// No address is known: the names of the upstream's servers were not resolved.
    #[error("{0}")]
    Unknown(String),
    /// No address is known yet: the names are being resolved for the first time.
    #[error("the names of the servers are not resolved yet")]
    Unresolved,
    /// All servers have as many requests as they may.
    #[error("all servers have max_requests in flight")]
    Full,
}

impl ServerGroup {
    /// Selects a server and counts a request that starts there; [`Server::end`] ends it. Returns what `use_it` makes of
    /// the server.
    ///
    /// # Errors
    /// [`NoServer`].
    #[inline]
    pub fn select<T>(
        &self,
        selection: &Selection<'_>,
        use_it: impl FnOnce(&Arc<Server>) -> T,
    ) -> Result<T, NoServer> {
        let list = self.list();
        match list.as_slice() {
            [] => Err(self.why_unknown().map_or(NoServer::Unresolved, NoServer::Unknown)),
            [only] if only.server.try_start(selection.max_requests) => Ok(use_it(&only.server)),
            [_] => Err(NoServer::Full),
            several => self.select_of(several, selection).map(use_it),
        }
    }

    fn select_of<'l>(
        &self,
        list: &'l [Listed],
        selection: &Selection<'_>,
    ) -> Result<&'l Arc<Server>, NoServer> {
        let mut open: SmallVec<[(&Listed, Candidate); 8]> = SmallVec::new();
        for listed in list {
            if let ServerState::Up(back) = listed.server.state(selection.now) {
                open.push((listed, candidate(listed, back, selection)));
            }
        }
        if open.is_empty() {
            // None is available: better to try all than to refuse every request.
            open.extend(list.iter().map(|listed| (listed, candidate(listed, None, selection))));
        }
        // Servers that failed this request before are used if there are no others, or the others are full.
        let is_tried = |(listed, _): &(&Listed, Candidate)| selection.tried.contains(&listed.server.num);
        let (tried, new): (SmallVec<_>, SmallVec<_>) = open.into_iter().partition(is_tried);
        let selected = self.first_free(new, selection).or_else(|| self.first_free(tried, selection));
        selected.ok_or(NoServer::Full)
    }

    /// Selects one of these servers that may take one more request.
    fn first_free<'l>(
        &self,
        mut open: SmallVec<[(&'l Listed, Candidate); 8]>,
        selection: &Selection<'_>,
    ) -> Option<&'l Arc<Server>> {
        while !open.is_empty() {
            let candidates: SmallVec<[Candidate; 8]> = open.iter().map(|(_, candidate)| *candidate).collect();
            let selected = match selection.balance {
                Balance::LeastRequests => {
                    let mut random = selection.random.borrow_mut();
                    least_requests(&candidates, (random.u64(..), random.u64(..)))
                }
                Balance::RoundRobin => self.turns().next(&candidates),
                Balance::Hash(_) => rendezvous(&candidates, selection.affinity),
            };
            let Some(at) = selected else { break };
            if open[at].0.server.try_start(selection.max_requests) {
                return Some(&open[at].0.server);
            }
            open.remove(at);
        }
        None
    }
}

fn candidate(listed: &Listed, back: Option<Duration>, selection: &Selection<'_>) -> Candidate {
    Candidate {
        id: listed.server.num,
        weight: ramped(listed.weight, back, selection.slow_start),
        in_flight: listed.server.in_flight(),
    }
}
