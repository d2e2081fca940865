//! Keeps what was decided about the newest requests of the last hour, to explain them and to rehearse a configuration.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::routes::MethodIndex;
use crate::policy::outcome::{Outcome, Shadow};
use crate::types::{AccountNum, Credits, KeyId, RequestId, RouteNum, WallTime};

/// How long decisions are kept.
pub const KEPT: Duration = Duration::from_secs(3600);
/// Most decisions that are kept about refused requests, and as many about others; the oldest are dropped. A decision
/// takes about 150 bytes.
const MAX_KEPT: usize = 65_536;
/// Most decisions that a worker collects before it passes them on.
const MAX_COLLECTED: usize = 512;

/// What was decided about a request. No key, path, query, body or header value.
#[derive(Clone, Debug)]
pub struct RequestDecision {
    /// The request's id.
    pub id: RequestId,
    /// When it ended.
    pub at: WallTime,
    /// Its duration in microseconds; at most an hour or so.
    pub micros: u32,
    /// Its method.
    pub method: MethodIndex,
    /// The client's address; `None` if the request was refused before it was read.
    pub address: Option<IpAddr>,
    /// The account and the key; `None` if it was not authenticated.
    pub caller: Option<(AccountNum, KeyId)>,
    /// Which of the key's secrets it had: the start of its SHA-256.
    pub secret: u32,
    /// The route; number 0 if there was none.
    pub route: RouteNum,
    /// The outcome.
    pub outcome: Outcome,
    /// The status of the response.
    pub status: u16,
    /// The status of the upstream's response; 0 if there was none.
    pub upstream_status: u16,
    /// The credits charged.
    pub credits: Credits,
    /// The name of the limit that refused it, or would have, if it is a shadow.
    pub limit: Option<Arc<str>>,
    /// What shadow rules would have done.
    pub shadow: Shadow,
}

impl RequestDecision {
    fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
    }
}

/// Decisions that a worker has collected, the oldest first; never empty.
type Part = Arc<[RequestDecision]>;

/// The decisions of all workers. Those about refused requests are kept apart, so that many other requests do not push
/// them out.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<[Kept; 2]>);

/// Decisions of one kind, in parts, so that a worker passes many at once.
#[derive(Debug, Default)]
struct Kept {
    parts: VecDeque<Part>,
    /// Their number.
    count: usize,
    /// When the newest decision ended that was dropped for lack of space.
    dropped: Option<WallTime>,
}

impl Kept {
    fn add(&mut self, part: Part, now: WallTime) {
        self.count += part.len();
        self.parts.push_back(part);
        while self.count > MAX_KEPT {
            self.dropped = self.drop_oldest().or(self.dropped);
        }
        while self.parts.front().and_then(|part| part.last()).is_some_and(|newest| is_old(newest, now)) {
            self.drop_oldest();
        }
    }

    /// Drops the oldest part. Returns when its newest request ended.
    fn drop_oldest(&mut self) -> Option<WallTime> {
        let part = self.parts.pop_front()?;
        self.count -= part.len();
        part.last().map(|newest| newest.at)
    }
}

impl Decisions {
    fn pass(&self, is_refused: bool, part: Part, now: WallTime) {
        self.0.lock()[usize::from(is_refused)].add(part, now);
    }

    /// The parts that are kept, without holding up the workers.
    fn parts(&self) -> Vec<Part> {
        self.0.lock().iter().flat_map(|kept| kept.parts.iter().cloned()).collect()
    }

    /// The decision about a request. Takes a time: call it on a blocking thread.
    pub fn find(&self, now: WallTime, is_it: impl Fn(&RequestDecision) -> bool) -> Option<RequestDecision> {
        let parts = self.parts();
        let mut all = parts.iter().flat_map(|part| part.iter());
        all.find(|decision| !is_old(decision, now) && is_it(decision)).cloned()
    }

    /// The newest decisions that are kept still, the newest first, at most `most`. Takes a time: call it on a blocking
    /// thread.
    #[must_use]
    pub fn newest(
        &self,
        now: WallTime,
        most: usize,
        is_it: impl Fn(&RequestDecision) -> bool,
    ) -> Vec<RequestDecision> {
        let parts = self.parts();
        let all = parts.iter().flat_map(|part| part.iter());
        let mut found: Vec<&RequestDecision> =
            all.filter(|decision| !is_old(decision, now) && is_it(decision)).collect();
        if found.len() > most {
            found.select_nth_unstable_by_key(most, |decision| std::cmp::Reverse(decision.at));
            found.truncate(most);
        }
        found.sort_by_key(|decision| std::cmp::Reverse(decision.at));
        found.into_iter().cloned().collect()
    }

    /// All decisions since a time, in the order of their times. Takes a time: call it on a blocking thread.
    #[must_use]
    pub fn since(&self, from: WallTime) -> Vec<RequestDecision> {
        let parts = self.parts();
        let all = parts.iter().flat_map(|part| part.iter());
        let mut all: Vec<RequestDecision> = all.filter(|decision| decision.at >= from).cloned().collect();
        all.sort_by_key(|decision| decision.at);
        all
    }

    /// Since when all decisions are kept: about other requests, and about refused ones. `None` if none was dropped for
    /// lack of space.
    #[must_use]
    pub fn complete_since(&self) -> [Option<WallTime>; 2] {
        self.0.lock().each_ref().map(|kept| kept.dropped)
    }
}

fn is_old(decision: &RequestDecision, now: WallTime) -> bool {
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    now.0.saturating_sub(decision.at.0) > kept
}

/// The decisions of one worker until it passes them on.
#[derive(Debug)]
pub struct DecisionLane {
    shared: Arc<Decisions>,
    /// Those about other requests, and about refused ones.
    collected: [RefCell<Vec<RequestDecision>>; 2],
}

impl DecisionLane {
    /// A worker that has decided nothing.
    #[must_use]
    pub fn new(shared: Arc<Decisions>) -> Self {
        Self { shared, collected: [RefCell::default(), RefCell::default()] }
    }

    /// Adds a decision.
    #[inline]
    pub fn add(&self, decision: RequestDecision) {
        let (is_refused, now) = (decision.is_refused(), decision.at);
        let mut collected = self.collected[usize::from(is_refused)].borrow_mut();
        collected.push(decision);
        if collected.len() >= MAX_COLLECTED {
            let part = std::mem::replace(&mut *collected, Vec::with_capacity(MAX_COLLECTED));
            self.shared.pass(is_refused, part.into(), now);
        }
    }

    /// Passes the decisions on.
    pub fn pass(&self, now: WallTime) {
        for (collected, is_refused) in self.collected.iter().zip([false, true]) {
            let part = collected.take();
            if !part.is_empty() {
                self.shared.pass(is_refused, part.into(), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reject::Reason;

    fn decision(number: u128, at: i64, outcome: Outcome) -> RequestDecision {
        RequestDecision {
            id: RequestId(number),
            at: WallTime(at),
            micros: 0,
            method: MethodIndex::OTHER,
            address: None,
            caller: None,
            secret: 0,
            route: RouteNum(0),
            outcome,
            status: 200,
            upstream_status: 200,
            credits: Credits::ZERO,
            limit: None,
            shadow: Shadow::default(),
        }
    }

    #[test]
    fn an_hour_is_kept_within_bounds_and_refusals_apart() {
        let shared = Arc::new(Decisions::default());
        let lane = DecisionLane::new(Arc::clone(&shared));
        let refused = Outcome::Refused(Reason::RateLimited);
        lane.add(decision(1, 0, refused));
        for number in 0..200_000 {
            lane.add(decision(
                1_000 + number,
                1_000 + i64::try_from(number).unwrap() / 1_000,
                Outcome::Proxied,
            ));
        }
        let now = WallTime(1_300);
        lane.pass(now);
        let find = |number, now| shared.find(now, |one| one.id == RequestId(number)).map(|one| one.outcome);
        assert_eq!(find(1, now), Some(refused), "a refusal is not pushed out");
        assert_eq!(find(1_000, now), None);
        assert_eq!(find(200_999, now), Some(Outcome::Proxied));
        assert!((MAX_KEPT - MAX_COLLECTED..=MAX_KEPT).contains(&(shared.since(WallTime(0)).len() - 1)));
        assert!(shared.since(WallTime(0)).is_sorted_by_key(|one| one.at));
        let [served, none] = shared.complete_since();
        assert!(served > Some(WallTime(1_100)) && none.is_none());
        let later = WallTime(3_600_500);
        assert_eq!(find(1, later), None, "too old");
        lane.add(decision(2, 4_000_000, refused));
        lane.add(decision(3, 4_000_000, Outcome::Proxied));
        lane.pass(WallTime(4_000_000));
        assert_eq!(shared.since(WallTime(0)).len(), 2);
    }
}
