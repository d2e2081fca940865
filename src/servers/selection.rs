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
#[derive(Clone, Copy, Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::upstream::balance::HashBy;
    use crate::policy::upstream::ejection::Ejection;
    use crate::servers::{Host, HttpVersions, Origin};
    use crate::types::WallTime;

    const NOW: Moment = Moment(1 << 56);

    fn origin(port: u16) -> Origin {
        Origin {
            url: format!("http://127.0.0.1:{port}"),
            host: Host::Address([127, 0, 0, 1].into()),
            port,
            authority: http::HeaderValue::from_static("a"),
            versions: HttpVersions::Http1,
            tls: None,
        }
    }

    /// A group of servers with ports from 1, each with its weight.
    fn group(weights: &[u32]) -> ServerGroup {
        let group = ServerGroup::new("api");
        let listed = (1..).zip(weights).map(|(port, weight)| (Arc::new(origin(port)), *weight));
        group.configure(&listed.collect::<Vec<_>>());
        group
    }

    fn selection<'a>(balance: &'a Balance, random: &'a RefCell<fastrand::Rng>) -> Selection<'a> {
        let slow_start = Duration::ZERO;
        Selection { balance, max_requests: 0, affinity: 0, tried: &[], random, slow_start, now: NOW }
    }

    fn random() -> RefCell<fastrand::Rng> {
        RefCell::new(fastrand::Rng::with_seed(7))
    }

    /// The port of the server that gets a request, which does not end.
    fn start(group: &ServerGroup, selection: &Selection<'_>) -> Result<u16, NoServer> {
        group.select(selection, |server| server.address.port())
    }

    /// How many of 6000 requests each of three servers gets, if each request ends before the next.
    fn spread(group: &ServerGroup, selection: &Selection<'_>) -> [usize; 3] {
        let mut counts = [0; 3];
        for affinity in 0..6000 {
            let selected = group.select(&Selection { affinity, ..*selection }, |server| {
                server.end();
                server.address.port()
            });
            counts[usize::from(selected.unwrap()) - 1] += 1;
        }
        counts
    }

    fn balances() -> [Balance; 3] {
        [Balance::LeastRequests, Balance::RoundRobin, Balance::Hash(HashBy::Account)]
    }

    /// Leaves a server out.
    fn eject(group: &ServerGroup, at: usize) {
        let (server, _) = group.servers()[at].clone();
        let ejection = Ejection { failures: 1, at_most: 100, ..Ejection::default() };
        assert!(group.failed(&server, "gone".to_owned(), &ejection, (NOW, WallTime(0))));
    }

    #[test]
    fn servers_that_are_left_out_get_nothing_unless_all_are() {
        for balance in balances() {
            let (group, random) = (group(&[1, 1, 1]), random());
            let selection = selection(&balance, &random);
            eject(&group, 0);
            group.servers()[2].0.set_down(true, NOW);
            assert_eq!(spread(&group, &selection), [0, 6000, 0], "{balance:?}");
            eject(&group, 1);
            assert!(group.is_in_panic(NOW));
            let counts = spread(&group, &selection);
            assert!(counts.iter().all(|count| count.abs_diff(2000) < 200), "{balance:?}: {counts:?}");
        }
    }

    #[test]
    fn a_server_that_is_back_gets_its_share_little_by_little() {
        for balance in balances() {
            let (group, random) = (group(&[1, 1, 2]), random());
            group.servers()[2].0.set_down(false, NOW);
            let at = |second: u64| {
                let slow_start = Duration::from_secs(10);
                let now = NOW.plus(Duration::from_secs(second));
                spread(&group, &Selection { slow_start, now, ..selection(&balance, &random) })[2]
            };
            let (first, half, full) = (at(0), at(5), at(10));
            assert!(first < half && half < full, "{balance:?}: {first}, {half}, {full}");
            assert!(first < 900 && full.abs_diff(3000) < 300, "{balance:?}: {first}, {full}");
        }
    }

    #[test]
    fn a_server_that_failed_a_request_is_tried_again_only_if_there_is_no_other() {
        for balance in balances() {
            let (group, random) = (group(&[1, 1, 1]), random());
            let selection = selection(&balance, &random);
            let nums: Vec<u64> = group.servers().iter().map(|(server, _)| server.num).collect();
            let two = Selection { tried: &nums[..2], ..selection };
            assert_eq!(spread(&group, &two), [0, 0, 6000], "{balance:?}");
            let counts = spread(&group, &Selection { tried: &nums, ..selection });
            assert!(counts.iter().all(|count| *count > 0), "{balance:?}: {counts:?}");
            let limited = Selection { max_requests: 1, ..two };
            assert_eq!(start(&group, &limited), Ok(3), "{balance:?}");
            assert!(matches!(start(&group, &limited), Ok(1 | 2)), "{balance:?}: the third is full");
        }
    }

    #[test]
    fn each_server_takes_as_many_requests_as_it_may() {
        for (balance, weights) in balances().iter().flat_map(|it| [(it, &[1][..]), (it, &[1, 5, 100])]) {
            let (group, random) = (group(weights), random());
            let limited = Selection { max_requests: 4, ..selection(balance, &random) };
            for _ in 0..4 * weights.len() {
                assert!(start(&group, &limited).is_ok(), "{balance:?}");
            }
            assert_eq!(start(&group, &limited), Err(NoServer::Full), "{balance:?}");
            assert!(group.servers().iter().all(|(server, _)| server.in_flight() == 4), "{balance:?}");
            group.servers()[0].0.end();
            assert_eq!(start(&group, &limited), Ok(1), "{balance:?}");
        }
    }

    #[test]
    fn without_an_address_there_is_no_server() {
        let (balance, random) = (Balance::default(), random());
        let selection = selection(&balance, &random);
        let group = ServerGroup::new("api");
        let host = Host::Name("a.test".to_owned());
        group.configure(&[(Arc::new(Origin { host, ..origin(80) }), 1)]);
        assert_eq!(start(&group, &selection), Err(NoServer::Unresolved));
        group.resolved("a.test", Err("no such name"));
        let why = NoServer::Unknown("a.test: no such name".to_owned());
        assert_eq!(start(&group, &selection), Err(why));
        group.resolved("a.test", Ok(&[([127, 0, 0, 1], 0).into()]));
        assert_eq!(start(&group, &selection), Ok(80));
    }
}
