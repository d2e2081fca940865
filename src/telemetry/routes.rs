//! Counts requests by route, method, class of status and outcome, on the workers, without a lock for each request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;

use crate::policy::outcome::{Outcome, ShadowRule};
use crate::types::{Credits, Histogram, LONG, SHORT};

/// Most routes, of all configurations since the start, that a worker counts apart. Others are counted as one.
const MAX_ROUTES: usize = 10_000;
/// The names of methods as labels; others are counted as one.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// The classes of status as labels; `none` if there was no response.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A request's method, as an index of [`METHODS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodIndex(u8);

impl MethodIndex {
    /// A method that has no label of its own.
    pub const OTHER: Self = Self(7);

    /// The method; `None` if it has no label of its own.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        METHODS.get(usize::from(self.0)).copied().filter(|_| self != Self::OTHER)
    }

    /// The index of a method.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self(0),
            Method::HEAD => Self(1),
            Method::POST => Self(2),
            Method::PUT => Self(3),
            Method::PATCH => Self(4),
            Method::DELETE => Self(5),
            Method::OPTIONS => Self(6),
            _ => Self::OTHER,
        }
    }
}

type Outcomes = [[AtomicU64; CLASSES.len()]; Outcome::COUNT];

/// The counters of one route on one worker.
#[derive(Debug)]
pub struct RouteLane {
    /// The route's name; empty for requests without a route.
    pub route: Box<str>,
    /// The name of its upstream; empty if there is none.
    pub upstream: Box<str>,
    methods: [OnceLock<Box<Outcomes>>; METHODS.len()],
    upstream_classes: [AtomicU64; CLASSES.len()],
    /// Durations of requests.
    pub durations: Histogram,
    /// What the gateway added to the upstream's time.
    pub overhead: Histogram,
    /// Credits charged, in millionths.
    pub charged: AtomicU64,
    /// Credits that refused requests would have held, in millionths.
    pub refused: AtomicU64,
    /// Charges whose price exceeded the hold, or could not be read.
    pub capped: AtomicU64,
    /// Requests that shadow rules would have refused, by [`ShadowRule`].
    pub shadow: [AtomicU64; ShadowRule::ALL.len()],
    /// Credits that shadow prices would have charged, in millionths.
    pub shadow_charged: AtomicU64,
}

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Its method.
    pub method: MethodIndex,
    /// Its outcome.
    pub outcome: Outcome,
    /// The status of its response.
    pub status: u16,
    /// The status of the upstream's response; 0 if there was none.
    pub upstream_status: u16,
    /// The credits charged.
    pub credits: Credits,
    /// Its duration.
    pub duration: Duration,
    /// What the gateway added, if the request was forwarded.
    pub overhead: Option<Duration>,
}

fn class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

fn millionths(credits: Credits) -> u64 {
    u64::try_from(credits.millionths()).unwrap_or(0)
}

impl RouteLane {
    fn new(route: &str, upstream: &str) -> Self {
        Self {
            route: route.into(),
            upstream: upstream.into(),
            methods: Default::default(),
            upstream_classes: Default::default(),
            durations: Histogram::new(LONG),
            overhead: Histogram::new(SHORT),
            charged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            capped: AtomicU64::new(0),
            shadow: Default::default(),
            shadow_charged: AtomicU64::new(0),
        }
    }

    /// Counts a finished request.
    pub fn count(&self, finished: &Finished) {
        let outcomes = self.methods[usize::from(finished.method.0)].get_or_init(Box::default);
        outcomes[finished.outcome.index()][class(finished.status)].fetch_add(1, Ordering::Relaxed);
        if finished.upstream_status != 0 {
            self.upstream_classes[class(finished.upstream_status)].fetch_add(1, Ordering::Relaxed);
        }
        self.durations.add_duration(finished.duration);
        if let Some(overhead) = finished.overhead {
            self.overhead.add_duration(overhead);
        }
        if !finished.credits.is_zero() {
            self.charged.fetch_add(millionths(finished.credits), Ordering::Relaxed);
        }
    }

    /// Counts the credits that a refused request would have held.
    pub fn refuse(&self, credits: Credits) {
        self.refused.fetch_add(millionths(credits), Ordering::Relaxed);
    }

    /// Counts a charge that was above its hold, or could not be read.
    pub fn cap(&self) {
        self.capped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that a shadow rule would have refused.
    pub fn shadow(&self, rule: ShadowRule) {
        self.shadow[rule as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts credits that a shadow price would have charged.
    pub fn shadow_charge(&self, credits: Credits) {
        self.shadow_charged.fetch_add(millionths(credits), Ordering::Relaxed);
    }

    /// Calls `each` for every method, class and outcome that occurred, with its count.
    pub fn each_request(&self, mut each: impl FnMut(&'static str, &'static str, Outcome, u64)) {
        for (method, outcomes) in METHODS.iter().zip(&self.methods) {
            let Some(outcomes) = outcomes.get() else { continue };
            for (outcome, classes) in Outcome::all().zip(outcomes.iter()) {
                for (class, count) in CLASSES.iter().zip(classes) {
                    match count.load(Ordering::Relaxed) {
                        0 => {}
                        count => each(method, class, outcome, count),
                    }
                }
            }
        }
    }

    /// Responses of the upstream by class.
    #[must_use]
    pub fn upstream_responses(&self) -> [u64; CLASSES.len()] {
        self.upstream_classes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The counters of all routes and workers.
#[derive(Debug, Default)]
pub struct RouteMetrics(Mutex<Vec<Arc<RouteLane>>>);

impl RouteMetrics {
    /// The counters of all routes and workers.
    #[must_use]
    pub fn lanes(&self) -> Vec<Arc<RouteLane>> {
        self.0.lock().clone()
    }
}

/// The names of a route and of its upstream.
type Names = (Box<str>, Box<str>);

/// One worker's counters of all routes. Those of the current configuration are found by the route's index.
#[derive(Debug)]
pub struct RouteLanes {
    shared: Arc<RouteMetrics>,
    generation: Cell<u64>,
    current: RefCell<Vec<Option<Arc<RouteLane>>>>,
    known: RefCell<HashMap<Names, Arc<RouteLane>>>,
    none: Arc<RouteLane>,
}

impl RouteLanes {
    /// A worker that has counted nothing.
    #[must_use]
    pub fn new(shared: Arc<RouteMetrics>) -> Self {
        let none = Arc::new(RouteLane::new("", ""));
        shared.0.lock().push(Arc::clone(&none));
        Self {
            shared,
            generation: Cell::new(u64::MAX),
            current: RefCell::default(),
            known: RefCell::default(),
            none,
        }
    }

    /// Calls `count` with the counters of a route. `generation`: the number of the configuration; `names`: the route's
    /// and its upstream's.
    pub fn with(
        &self,
        generation: u64,
        route: Option<usize>,
        names: impl FnOnce() -> (String, String),
        count: impl FnOnce(&RouteLane),
    ) {
        let Some(route) = route else { return count(&self.none) };
        let mut current = self.current.borrow_mut();
        if self.generation.replace(generation) != generation {
            current.clear();
        }
        if current.len() <= route {
            current.resize(route + 1, None);
        }
        count(current[route].get_or_insert_with(|| self.find(names())));
    }

    /// The counters of a route, which may have been in an earlier configuration.
    fn find(&self, (route, upstream): (String, String)) -> Arc<RouteLane> {
        let mut known = self.known.borrow_mut();
        let (route, upstream) = (route.into_boxed_str(), upstream.into_boxed_str());
        if known.len() >= MAX_ROUTES && !known.contains_key(&(route.clone(), upstream.clone())) {
            return Arc::clone(&self.none);
        }
        let lane = known.entry((route, upstream)).or_insert_with_key(|(route, upstream)| {
            let lane = Arc::new(RouteLane::new(route, upstream));
            self.shared.0.lock().push(Arc::clone(&lane));
            lane
        });
        Arc::clone(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_with_their_names_across_configurations() {
        let shared = Arc::new(RouteMetrics::default());
        let lanes = RouteLanes::new(Arc::clone(&shared));
        let finished = Finished {
            method: MethodIndex::of(&Method::POST),
            outcome: Outcome::Proxied,
            status: 200,
            upstream_status: 200,
            credits: Credits::from_millionths(5),
            duration: Duration::from_millis(1),
            overhead: None,
        };
        let count = |generation, index, name: &str| {
            let names = || (name.to_owned(), "up".to_owned());
            lanes.with(generation, index, names, |lane| lane.count(&finished));
        };
        count(1, Some(0), "a");
        count(1, Some(1), "b");
        count(2, Some(0), "b");
        count(2, None, "");
        let counted = |name: &str| {
            let mut sum = 0;
            for lane in shared.lanes().iter().filter(|lane| &*lane.route == name) {
                lane.each_request(|method, class, outcome, count| {
                    assert_eq!((method, class, outcome), ("POST", "2xx", Outcome::Proxied));
                    sum += count;
                });
            }
            sum
        };
        assert_eq!((counted("a"), counted("b"), counted("")), (1, 2, 1));
        let charged: u64 = shared.lanes().iter().map(|lane| lane.charged.load(Ordering::Relaxed)).sum();
        assert_eq!((charged, shared.lanes()[1].upstream_responses()[2]), (20, 1));
    }
}
