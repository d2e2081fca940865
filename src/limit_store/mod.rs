//! Where the gateways of a fleet count limits together: Redis or Valkey.
//!
//! A request asks nobody: it uses its gateway's share of each limit ([`crate::policy::limit::share`]). One thread talks to the
//! store. It sends what was asked for while the last round was under way, one call of a script for each limit
//! (`sliding_window.lua` or `gcra.lua`, each with `share.lua`), and then wakes the requests that wait for a share.

mod script;
mod thread;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::directory::{LimitSlot, Meter, Slots};
use crate::policy::limit::{Limit, Outage, Rate};
use crate::types::{Histogram, NameId, RouteNum, SHORT};

pub use script::{Script, Servers};
pub use thread::{Keeper, start};

/// Longest time that a request waits for a share of its limits.
pub const MAX_WAIT: Duration = Duration::from_millis(250);
/// Most limits, of one owner each, that are asked about at the same time.
const MAX_ASKED: usize = 65_536;

/// The gateway's end of the store.
pub struct LimitStore {
    asked: Mutex<Vec<Place>>,
    /// Notified when something is asked.
    wanted: Notify,
    /// Notified when the store has answered, or has not in time.
    answered: Notify,
    /// No message of the last round was answered.
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

/// The counter of a limit of a key, an account or an address.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose requests it counts.
    pub meter: Arc<Meter>,
    /// The limit.
    pub limit: NameId,
    /// The route, for limits of scope `key+route`; otherwise 0.
    pub route: RouteNum,
    /// How many requests the limit admits.
    pub rate: Rate,
}

/// Places of which the gateway has shares.
type Places = HashMap<(Vec<u8>, NameId, RouteNum), Place>;

impl fmt::Debug for LimitStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LimitStore").field("outage", &self.outage).finish_non_exhaustive()
    }
}

impl Place {
    /// The slot of the counter, if there still is one.
    fn slot<'a>(&self, slots: &'a mut Slots) -> Option<&'a mut LimitSlot> {
        slots.iter_mut().find(|slot| slot.limit == self.limit && slot.route == self.route)
    }

    /// Names the limit in the store.
    fn name(&self) -> String {
        format!("{:x}:{}", self.limit.0, self.route.0)
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
    pub fn ask(&self, place: Place) -> bool {
        let mut asked = self.asked.lock();
        if asked.len() >= MAX_ASKED {
            return false;
        }
        asked.push(place);
        if asked.len() == 1 {
            self.wanted.notify_one();
        }
        true
    }

    /// Resolves when the store has answered, or has not in time. It may be about other limits.
    pub fn answered(&self) -> Notified<'_> {
        self.answered.notified()
    }

    /// False if the store answered nothing when it was last asked.
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
