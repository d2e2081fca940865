//! Where the gateways of a fleet count limits together: Redis or Valkey.
//!
//! A request asks nobody: it uses its gateway's share of each limit ([`crate::policy::limit::share`]). One thread talks to the
//! store: it calls a script for each limit that is asked about (`sliding_window.lua` or `gcra.lua`, each with `share.lua`), and wakes the
//! requests that wait for a share.

mod script;
mod thread;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::directory::{LimitSlot, Meter, Slots};
use crate::policy::limit::share::{Answer, Ask};
use crate::policy::limit::{Limit, Outage, Rate};
use crate::types::{Histogram, Moment, NameId, RouteNum, SHORT};

pub use script::{Script, Servers};
pub use thread::{StoreThread, start};

/// Longest time that a request waits for a share of its limits.
pub const MAX_WAIT: Duration = Duration::from_millis(250);
/// Most limits, of one owner each, that are asked about at the same time.
const MAX_ASKED: usize = 65_536;

/// The gateway's end of the store.
pub struct LimitStore {
    asked: Mutex<VecDeque<SharedCounter>>,
    /// Notified when something is asked.
    wanted: Notify,
    /// Notified when the store has answered, or has not in time.
    answered: Notify,
    /// The last message was not answered.
    is_silent: AtomicBool,
    /// What happens to requests while the store does not answer, unless a limit says otherwise.
    outage: Outage,
    /// The number of gateways of the fleet.
    gateways: Box<dyn Fn() -> u32 + Send + Sync>,
    /// Counters since the start.
    pub counters: Counters,
}

/// Counters of a store.
#[derive(Debug)]
pub struct Counters {
    /// How long messages took that were answered.
    pub times: Histogram,
    /// Number of messages that were not answered.
    pub failures: AtomicU64,
    /// Number of limits, of one owner each, of which the gateway has a share.
    pub shares: AtomicU64,
}

/// The counter of a limit of a key, an account or an address, which the store counts together with those of other gateways.
#[derive(Clone, Debug)]
pub struct SharedCounter {
    /// Whose requests it counts.
    pub meter: Arc<Meter>,
    /// The limit.
    pub limit: NameId,
    /// The route, for limits of scope `key+route`; otherwise 0.
    pub route: RouteNum,
    /// How many requests the limit admits.
    pub rate: Rate,
}

/// Counters by what identifies them: at most as many as the meters of keys, accounts and addresses have.
type SharedCounters = HashMap<(Vec<u8>, NameId, RouteNum), SharedCounter>;

impl fmt::Debug for LimitStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LimitStore").field("outage", &self.outage).finish_non_exhaustive()
    }
}

impl SharedCounter {
    /// The slot of the counter, if there still is one.
    fn slot<'a>(&self, slots: &'a mut Slots) -> Option<&'a mut LimitSlot> {
        slots.iter_mut().find(|slot| slot.limit == self.limit && slot.route == self.route)
    }

    /// Names the limit in the store.
    fn name(&self) -> String {
        format!("{:x}:{}", self.limit.0, self.route.0)
    }

    /// The message to the store, as [`crate::policy::limit::Counter::ask`].
    fn ask(&self, gives_up: bool, now: Moment) -> Option<(Ask, Vec<(Duration, u32)>)> {
        self.slot(&mut self.meter.lock())?.counter.ask(&self.rate, gives_up, now)
    }

    /// Takes in an answer; `None` if there is none.
    fn receive(&self, ask: &Ask, answer: Option<Answer>, now: Moment) {
        if let Some(slot) = self.slot(&mut self.meter.lock()) {
            match answer {
                Some(answer) => slot.counter.answered(ask, answer, now),
                None => slot.counter.unanswered(now),
            }
        }
    }

    /// As [`crate::policy::limit::Counter::must_ask`].
    fn must_ask(&self, now: Moment) -> Option<bool> {
        self.slot(&mut self.meter.lock())?.counter.must_ask(now)
    }

    fn id(&self) -> (Vec<u8>, NameId, RouteNum) {
        (self.meter.owner().to_bytes(), self.limit, self.route)
    }
}

impl LimitStore {
    fn new(outage: Outage, gateways: Box<dyn Fn() -> u32 + Send + Sync>) -> Self {
        let counters =
            Counters { times: Histogram::new(SHORT), failures: AtomicU64::new(0), shares: AtomicU64::new(0) };
        Self {
            asked: Mutex::default(),
            wanted: Notify::new(),
            answered: Notify::new(),
            is_silent: AtomicBool::new(false),
            outage,
            gateways,
            counters,
        }
    }

    /// Asks the store about a limit. False if too much is asked about already.
    #[must_use]
    pub fn ask(&self, counter: SharedCounter) -> bool {
        let mut asked = self.asked.lock();
        if asked.len() >= MAX_ASKED {
            return false;
        }
        asked.push_back(counter);
        if asked.len() == 1 {
            self.wanted.notify_one();
        }
        true
    }

    /// Asks the store about a limit, or later.
    fn ask_again(&self, counter: SharedCounter, now: Moment) {
        if !self.ask(counter.clone())
            && let Some(slot) = counter.slot(&mut counter.meter.lock())
        {
            slot.counter.unanswered(now);
        }
    }

    /// What is sent next, first asked first.
    fn take_asked(&self, most: usize) -> Vec<SharedCounter> {
        let mut asked = self.asked.lock();
        let some = most.min(asked.len());
        asked.drain(..some).collect()
    }

    /// Resolves when the store has answered, or has not in time. It may be about other limits.
    pub fn answered(&self) -> Notified<'_> {
        self.answered.notified()
    }

    /// False if the store did not answer when it was last asked. Of a cluster nothing is known as a whole.
    #[must_use]
    pub fn answers(&self) -> bool {
        !self.is_silent.load(Ordering::Relaxed)
    }

    /// What happens to a request that a limit covers while the store does not answer.
    #[must_use]
    pub fn outage(&self, limit: &Limit) -> Outage {
        limit.outage.unwrap_or(self.outage)
    }

    /// The number of gateways of the fleet; at least 1.
    #[must_use]
    pub fn gateways(&self) -> u32 {
        (self.gateways)().max(1)
    }
}
