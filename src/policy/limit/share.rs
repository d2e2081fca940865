//! A gateway's share of a limit that the gateways of a fleet count together in a store.
//!
//! The store grants a gateway a number of requests ahead of need, and counts them as leased until it is told that they were
//! made. What was made and what is leased is together never more than the limit admits, whenever a leased request is made. So a
//! request that finds its share does not wait for the store.
//!
//! All numbers are totals since the share was opened. So a message that is repeated, or that arrives late, does no harm, and a
//! grant whose answer was lost is known from the next answer. A share that was not heard of for [`LIFETIME`] ends: the store
//! counts what was leased as made, and the gateway has stopped using it before.

use std::time::Duration;

use smallvec::SmallVec;

use super::definition::{LimitStatus, Rate};
use crate::types::{Moment, nanos};

/// How long the store knows a share of which it does not hear.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// How long its gateway uses it: less, as clocks do not run equally fast.
const USABLE: Duration = Duration::from_secs(8);
/// For how long a share should last that is asked for ahead of need.
const AHEAD: Duration = Duration::from_secs(1);
/// How long a share is kept that is not used.
const IDLE: Duration = Duration::from_millis(500);
/// How often a share that is used is reported.
const REPORTED_EVERY: Duration = Duration::from_secs(1);
/// Longest time until a store that had nothing left is asked again: others may give something back.
const ASKED_AGAIN: Duration = Duration::from_millis(100);
/// Time until a store that did not answer is asked again.
const RETRIED: Duration = Duration::from_millis(250);
/// Most times at which requests are reported to have been made.
const MAX_USES: usize = 61;
/// Clocks run differently by at most one in so many.
const MAX_DRIFT: u32 = 100;

/// How much time has passed at least where another clock runs.
pub(super) fn least_age(age: Duration) -> Duration {
    age.saturating_sub(age / MAX_DRIFT)
}

/// Requests, and when the last of them was made.
type Uses = SmallVec<[(Moment, u32); 1]>;

/// A share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Differs from those of all shares of the limit.
    id: u64,
    /// The store knows it.
    is_open: bool,
    granted: u64,
    used: u64,
    returned: u64,
    /// Those of `used` of which the store does not know for sure, oldest first.
    unconfirmed: Uses,
    usable_until: Moment,
    /// Requests that wait for it.
    waiting: u32,
    /// A message is waiting to be sent, or for its answer.
    is_asking: bool,
    /// When the last message was sent.
    asked: Moment,
    /// When the last request was made.
    last_used: Moment,
    known: Known,
}

/// What the store said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Requests that it could grant still.
    free: u32,
    /// It is not asked before.
    ask_again: Moment,
    /// When a request is admitted, if nothing is given back.
    admits: Moment,
    /// When the whole limit is available again.
    fresh: Moment,
    /// It did not answer.
    is_silent: bool,
}

/// What a gateway tells the store, and asks it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The share.
    pub id: u64,
    /// The store does not know it yet.
    pub opens: bool,
    /// Most requests that the gateway knows it may make.
    pub granted: u64,
    /// Requests that it has made.
    pub used: u64,
    /// Requests that it gives back.
    pub returned: u64,
    /// How many more it wants.
    pub want: u32,
    /// The latest requests, with their age, latest first.
    pub uses: Vec<(Duration, u32)>,
    /// When it is sent.
    pub sent: Moment,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The store knows the share.
    pub is_known: bool,
    /// Most requests that the gateway may make.
    pub granted: u64,
    /// Requests that it could grant still.
    pub free: u32,
    /// Time until it can grant one, if nothing is given back.
    pub wait: Duration,
    /// Time until the whole limit is available again.
    pub fresh: Duration,
}

/// What a share says about the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// The limit decides so.
    Decided(LimitStatus),
    /// The store must be asked.
    Unknown,
    /// The store does not answer.
    Silent,
}

impl Share {
    /// A share that the store does not know yet.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            is_open: false,
            granted: 0,
            used: 0,
            returned: 0,
            unconfirmed: Uses::new(),
            usable_until: Moment(0),
            waiting: 0,
            is_asking: false,
            asked: Moment(0),
            last_used: Moment(0),
            known: Known::default(),
        }
    }

    /// Requests that may be made now.
    fn left(&self, now: Moment) -> u64 {
        let left = self.granted.saturating_sub(self.used + self.returned);
        if now < self.usable_until { left } else { 0 }
    }

    /// Checks the next request without counting it.
    #[must_use]
    pub fn peek(&self, now: Moment) -> Peeked {
        let left = self.left(now);
        let until = |moment: Moment| Duration::from_nanos(moment.0.saturating_sub(now.0));
        if left > 0 {
            let remaining = u32::try_from(left - 1).unwrap_or(u32::MAX).saturating_add(self.known.free);
            let after = until(self.known.fresh);
            return Peeked::Decided(LimitStatus { admitted: true, remaining, after, next: 0 });
        }
        if self.known.is_silent {
            return Peeked::Silent;
        }
        if now < self.known.ask_again {
            let after = until(self.known.admits);
            return Peeked::Decided(LimitStatus { admitted: false, remaining: 0, after, next: 0 });
        }
        Peeked::Unknown
    }

    /// Counts a request that the share admitted, or that was admitted without it.
    pub fn take(&mut self, rate: &Rate, now: Moment) {
        if self.left(now) == 0 && self.is_open && !self.is_asking {
            self.abandon(self.ungranted()); // the store must not take this request for one that it has granted
        }
        self.used += 1;
        self.last_used = now;
        let part = rate.bucket.max(1);
        match self.unconfirmed.last_mut() {
            Some((last, n)) if last.0 / part == now.0 / part => (*last, *n) = (now, n.saturating_add(1)),
            _ => self.unconfirmed.push((now, 1)),
        }
        if self.unconfirmed.len() > MAX_USES {
            let (_, first) = self.unconfirmed.remove(0);
            self.unconfirmed[0].1 = self.unconfirmed[0].1.saturating_add(first);
        }
    }

    /// A request waits for the share. Returns true if the store must be asked.
    pub fn wait(&mut self) -> bool {
        self.waiting = self.waiting.saturating_add(1);
        !std::mem::replace(&mut self.is_asking, true)
    }

    /// True if the store, which did not answer, is asked again now; then it counts as asked.
    pub fn probe(&mut self, now: Moment) -> bool {
        let probes = !self.is_asking && now >= self.known.ask_again;
        self.is_asking |= probes;
        probes
    }

    /// True if the store must be asked now, so that no request will have to wait; then it counts as asked.
    pub fn must_ask(&mut self, now: Moment) -> bool {
        if self.is_asking || now < self.known.ask_again {
            return false;
        }
        let (left, idle) = (self.left(now), now.since(self.last_used) >= IDLE);
        let is_due = !self.is_reported(now) && (idle || now.since(self.asked) >= REPORTED_EVERY);
        let must = left < self.demand(now) / 2 || is_due || self.known.is_silent;
        self.is_asking |= must;
        must
    }

    /// How many requests are made in [`AHEAD`], at the rate of those since the last message.
    fn demand(&self, now: Moment) -> u64 {
        let elapsed = nanos(now.since(self.asked)).max(1_000_000);
        self.unconfirmed().saturating_sub(1).saturating_mul(nanos(AHEAD)) / elapsed // one alone tells no rate
    }

    /// The message that is sent now. `most`: as many requests are never wanted. `gives_up`: everything is given back.
    pub fn ask(&mut self, most: u32, gives_up: bool, now: Moment) -> Ask {
        let left = self.left(now);
        let is_idle = now.since(self.last_used) >= IDLE && self.waiting == 0;
        let demand = if is_idle || gives_up { 0 } else { self.demand(now) };
        let keep = demand.max(self.waiting.into());
        self.returned += left.saturating_sub(keep.saturating_mul(2)); // what is more than twice the need
        let want = u32::try_from(keep.saturating_sub(left)).unwrap_or(u32::MAX).min(most);
        (self.asked, self.waiting, self.is_asking) = (now, 0, true);
        Ask {
            id: self.id,
            opens: !self.is_open,
            granted: self.granted,
            used: self.used,
            returned: self.returned,
            want,
            uses: self.unconfirmed.iter().rev().map(|(at, n)| (least_age(now.since(*at)), *n)).collect(),
            sent: now,
        }
    }

    /// Takes in the answer to a message.
    pub fn answered(&mut self, ask: &Ask, answer: Answer, now: Moment) {
        self.is_asking = false;
        self.known.is_silent = false;
        if !answer.is_known {
            self.known.ask_again = now;
            return self.abandon(self.ungranted());
        }
        // Less than before if it had ended, and a late message opened it again.
        (self.is_open, self.granted) = (true, answer.granted);
        self.usable_until = ask.sent.plus(USABLE);
        let mut confirmed: u64 = ask.uses.iter().map(|(_, n)| u64::from(*n)).sum();
        confirm(&mut self.unconfirmed, &mut confirmed);
        let is_dry = ask.want > 0 && self.left(now) == 0 && answer.wait > Duration::ZERO;
        self.known = Known {
            free: answer.free,
            ask_again: if is_dry { now.plus(answer.wait.min(ASKED_AGAIN)) } else { now },
            admits: now.plus(answer.wait),
            fresh: now.plus(answer.fresh),
            is_silent: false,
        };
        if ask.want == 0 && answer.granted <= ask.used + ask.returned {
            self.abandon(self.unconfirmed()); // the store has forgotten it
        }
    }

    /// The store did not answer. It may have read the message.
    pub fn unanswered(&mut self, now: Moment) {
        self.is_asking = false;
        (self.known.is_silent, self.known.ask_again) = (true, now.plus(RETRIED));
    }

    /// True if the store knows everything and is not being asked, and nothing is leased.
    #[must_use]
    pub fn is_reported(&self, now: Moment) -> bool {
        self.left(now) == 0 && !self.is_asking && self.unconfirmed.is_empty()
    }

    /// Requests of which the store may not know.
    #[must_use]
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed.iter().map(|(_, n)| u64::from(*n)).sum()
    }

    /// Requests that were made without a grant.
    fn ungranted(&self) -> u64 {
        (self.used + self.returned).saturating_sub(self.granted)
    }

    /// Starts a new share with the latest `kept` requests. What was granted to this one, the store counts when it ends.
    fn abandon(&mut self, kept: u64) {
        let Self { id, last_used, asked, known, waiting, .. } = *self;
        let mut surplus = self.unconfirmed().saturating_sub(kept);
        let mut unconfirmed = std::mem::take(&mut self.unconfirmed);
        confirm(&mut unconfirmed, &mut surplus);
        let used = unconfirmed.iter().map(|(_, n)| u64::from(*n)).sum();
        *self = Self { last_used, asked, known, waiting, used, unconfirmed, ..Self::new(id.wrapping_add(1)) };
    }
}

/// Removes the oldest `n` requests.
fn confirm(uses: &mut Uses, n: &mut u64) {
    while let Some((_, first)) = uses.first_mut().filter(|_| *n > 0) {
        let done = u32::try_from(*n).unwrap_or(u32::MAX).min(*first);
        (*first, *n) = (*first - done, *n - u64::from(done));
        if *first == 0 {
            uses.remove(0);
        }
    }
}
