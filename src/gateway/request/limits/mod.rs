//! Applies rate limits: a request is admitted and counted by all limits that cover it, or it is counted by none.

mod by_address;
mod failed_keys;
mod locked;
mod shared;
mod waiting;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

use crate::directory::{Directory, Dirty, Key, LimitSlot, Meter, Owner, Slots};
use crate::ledger::{JobSlot, LIMITS_SAVED_EVERY};
use crate::limit_store::LimitStore;
use crate::policy::client_address::client_network;
use crate::policy::limit::{Limit, LimitStatus, ReachedLimit, Scope, headers};
use crate::policy::reject::{Reason, Refusal};
use crate::policy::values::{Values, once};
use crate::snapshot::{Plan, Route, Settings, limits_of};
use crate::types::{Moment, WallTime};

use by_address::ByAddress;
pub use by_address::MAX_ADDRESSES;
use failed_keys::FailedKeys;
use locked::{LockedMeter, LockedMeters, Meters};
use shared::Verdict;

/// The name of the limit of requests in flight.
const CONCURRENCY: &str = "concurrency";
/// The name of the limit of open jobs.
const JOBS: &str = "jobs";
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Limit states of all workers.
#[derive(Debug)]
pub struct Limits {
    addresses: ByAddress<Arc<Meter>>,
    /// The shared meter of all addresses beyond [`MAX_ADDRESSES`].
    other_addresses: Arc<Meter>,
    dirty: Dirty,
    /// Where the gateways of a fleet count together.
    store: Option<Arc<LimitStore>>,
    pub(super) failed_keys: FailedKeys,
}

/// The facts about a request that limits depend on.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The key; `None` on a public route.
    pub key: Option<&'a Key>,
    /// The plan of the key's account.
    pub plan: Option<&'a Plan>,
    /// The route.
    pub route: &'a Route,
    /// The method.
    pub method: &'a Method,
    /// The client's address.
    pub address: IpAddr,
    /// When the request started.
    pub now: Moment,
    /// The request may repeat an earlier one, so that its job gets a place only later.
    pub is_repeatable: bool,
}

/// Proof that a request was admitted by its limits. Until it is dropped, the request counts towards its key's
/// concurrency.
#[derive(Debug)]
pub struct Pass {
    /// The key's meter, if its plan limits concurrency.
    entered: Option<Arc<Meter>>,
    /// A shadow limit that would have refused the request.
    shadowed: Option<Arc<str>>,
    /// The place of the job that the request may open.
    job: RefCell<Option<JobSlot>>,
}

impl Pass {
    /// The name of a shadow limit that would have refused the request.
    pub(super) fn shadowed(&self) -> Option<&Arc<str>> {
        self.shadowed.as_ref()
    }

    /// Takes the place of the job that the request opens.
    pub(super) fn take_job(&self) -> Option<JobSlot> {
        self.job.take()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(meter) = self.entered.take() {
            meter.leave();
        }
    }
}

/// Headers that the gateway adds to a response, including a refusal.
#[derive(Debug, Default)]
pub struct ResponseHeaders {
    /// Headers to set.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// The allocation that their values share.
    pub values: Values,
}

impl Default for Limits {
    fn default() -> Self {
        let nobody = Owner::Address(IpAddr::from([0, 0, 0, 0]));
        Self {
            addresses: ByAddress::default(),
            other_addresses: Arc::new(Meter::with(nobody, Slots::new())),
            dirty: Dirty::default(),
            store: None,
            failed_keys: FailedKeys::default(),
        }
    }
}

impl Limits {
    /// Limits that count together with other gateways.
    #[must_use]
    pub fn shared(store: Option<Arc<LimitStore>>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Admits a request (step 6): every limit that covers it, together, then the concurrency of its key. Adds the
    /// rate limit headers to `response` whether the request is admitted or not. `None` if it must wait for its gateway's share of
    /// a limit, and `may_wait`: then [`Limits::admit_later`] admits it, and nothing was counted.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with the longest of the waits, so that `Retry-After` is never too
    /// early; [`Reason::ConcurrencyLimited`]; [`Reason::Overloaded`] if a limit cannot be checked. Nothing is counted then.
    pub fn admit(
        &self,
        subject: &Subject<'_>,
        settings: &Settings,
        wall: WallTime,
        may_wait: bool,
        response: &mut ResponseHeaders,
    ) -> Result<Option<Pass>, Refusal> {
        let own = subject.key.and_then(Key::limits).map(|limits| &**limits);
        let name = subject.route.name.as_str();
        let limits = limits_of(own, subject.plan).chain(&subject.route.limits);
        let limits = limits.filter(|limit| limit.covers(name, subject.method));
        let mut checked: CheckedLimits<'_> =
            limits.map(|limit| CheckedLimit { limit, at: 0, gateways: 1, status: None }).collect();
        if checked.is_empty() {
            return subject.enter().map(Some);
        }
        let outcome = self.check(subject, &mut checked, may_wait);
        if !matches!(outcome, Ok(None)) {
            describe(&checked, outcome.is_ok(), settings, wall, response);
        }
        outcome
    }

    /// Counts a request with all limits, or with none. `None` if it must wait for a share of a limit, and may.
    fn check(
        &self,
        subject: &Subject<'_>,
        checked: &mut CheckedLimits<'_>,
        may_wait: bool,
    ) -> Result<Option<Pass>, Refusal> {
        let meters = self.meters(subject, checked);
        let mut locked = meters.lock();
        let (mut refused, mut shadowed, mut waits): (Option<(u64, &Limit)>, _, _) = (None, None, false);
        for CheckedLimit { limit, at, gateways, status } in &mut *checked {
            let Some(of) = locked.of(limit.scope) else { continue };
            *at = of.slot_index(limit, subject.route.num);
            let peeked = match self.peek((of.meter, &mut of.slots[*at]), limit, subject.now, may_wait) {
                Verdict::Decided(peeked, of) => {
                    *gateways = of;
                    peeked
                }
                Verdict::Waits => {
                    waits = true;
                    continue;
                }
                Verdict::Unknown => continue,
                Verdict::Unavailable => return Err(shared::unavailable()),
            };
            match peeked.admitted {
                true => {}
                false if limit.shadow => shadowed = Some(Arc::clone(&limit.name)),
                false => {
                    let wait = peeked.seconds().max(1);
                    if refused.is_none_or(|(longest, _)| wait > longest) {
                        refused = Some((wait, limit));
                    }
                }
            }
            *status = Some(peeked);
        }
        if let Some((seconds, limit)) = refused {
            let (retry_after, limit) = (Some(seconds), Some(limit.reached()));
            return Err(Refusal { retry_after, limit, ..Reason::RateLimited.into() });
        }
        if waits {
            self.wait(&mut locked, checked, subject.now);
            return Ok(None);
        }
        let mut pass = subject.enter()?;
        pass.shadowed = shadowed;
        self.take(&mut locked, checked, subject.now);
        Ok(Some(pass))
    }

    #[inline]
    fn peek(
        &self,
        (meter, slot): (&Arc<Meter>, &mut LimitSlot),
        limit: &Limit,
        now: Moment,
        may_wait: bool,
    ) -> Verdict {
        if let Some(store) = &self.store {
            return shared::peek(store, (meter, slot), limit, now, may_wait);
        }
        let (rate, own) = (limit.rate(), &mut slot.counter.own);
        own.adapt(&rate, now);
        Verdict::Decided(own.peek(&rate, now), 1)
    }

    /// Asks for shares of the limits that did not decide.
    fn wait(&self, locked: &mut LockedMeters<'_>, checked: &CheckedLimits<'_>, now: Moment) {
        for CheckedLimit { limit, at, .. } in checked.iter().filter(|checked| checked.status.is_none()) {
            if let (Some(store), Some(LockedMeter { meter, slots })) = (&self.store, locked.of(limit.scope))
                && slots[*at].counter.wait()
            {
                shared::ask(store, (meter, &mut slots[*at]), &limit.rate(), now);
            }
        }
    }

    /// Counts a request with all limits that admit it: a shadow limit may be among those that do not.
    fn take(&self, locked: &mut LockedMeters<'_>, checked: &CheckedLimits<'_>, now: Moment) {
        for CheckedLimit { limit, at, gateways, status } in checked {
            let admitted = status.as_ref().filter(|status| status.admitted);
            if let (Some(LockedMeter { meter, slots }), Some(status)) = (locked.of(limit.scope), admitted) {
                let slot = &mut slots[*at];
                match &self.store {
                    None => slot.counter.own.take(status, now),
                    Some(store) => {
                        if slot.counter.take_shared(&limit.rate(), *gateways, now) {
                            shared::ask(store, (meter, slot), &limit.rate(), now);
                        }
                    }
                }
            }
        }
        let saved_at = now.plus(LIMITS_SAVED_EVERY);
        for LockedMeter { meter, slots } in locked.all() {
            if meter.must_be_saved(slots, saved_at) {
                self.dirty.mark(meter);
            }
        }
    }

    fn meters<'a>(&self, subject: &'a Subject<'_>, checked: &CheckedLimits<'_>) -> Meters<'a> {
        let any = |scopes: &[Scope]| checked.iter().any(|verdict| scopes.contains(&verdict.limit.scope));
        let key = subject.key.filter(|_| any(&[Scope::Key, Scope::KeyRoute]));
        let account = subject.key.filter(|_| any(&[Scope::Account]));
        Meters {
            key: key.map(Key::meter),
            account: account.map(|key| key.account.meter()),
            address: any(&[Scope::Address]).then(|| self.address(subject.address)),
        }
    }

    fn address(&self, address: IpAddr) -> Arc<Meter> {
        let address = client_network(address);
        let new = || Arc::new(Meter::new(Owner::Address(address)));
        self.addresses.update(address, new, |_| {}).unwrap_or_else(|| Arc::clone(&self.other_addresses))
    }

    /// Restores the saved meter of an address.
    pub fn restore(&self, address: IpAddr, slots: Slots) {
        self.addresses.update(address, || Arc::new(Meter::with(Owner::Address(address), slots)), |_| {});
    }

    /// Marks every meter as changed, before the last call of [`Limits::drain`]; also meters whose states will be
    /// fresh within a second, which are otherwise not saved.
    pub fn mark_all(&self, directory: &Directory) {
        directory.each_meter(|meter| self.dirty.mark(meter));
        self.addresses.each(|meter| self.dirty.mark(meter));
        self.dirty.mark(&self.other_addresses);
    }

    /// States that changed since the last call, as bytes, to be saved. An address whose limits are fresh again is
    /// forgotten here and in the store, within 32 calls.
    pub fn drain(&self, now: Moment) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.failed_keys.sweep(now);
        let mut states = self.dirty.drain(now);
        self.addresses.sweep_some(|address, meter| {
            let fresh = Arc::strong_count(meter) == 1 && meter.is_fresh(now);
            if fresh && meter.is_saved() {
                states.push((Owner::Address(*address).to_bytes(), Vec::new()));
            }
            !fresh
        });
        states
    }
}

impl Subject<'_> {
    /// Counts the request towards its key's concurrency, if the plan allows one more.
    fn enter(&self) -> Result<Pass, Refusal> {
        let mut pass = Pass { entered: None, shadowed: None, job: RefCell::new(None) };
        let Some(key) = self.key else { return Ok(pass) };
        if let Some(limit) = self.plan.and_then(|plan| plan.concurrency) {
            if !key.meter().enter(limit) {
                let limit = Some(ReachedLimit { name: Arc::from(CONCURRENCY), window: Duration::ZERO });
                return Err(Refusal { limit, ..Reason::ConcurrencyLimited.into() });
            }
            pass.entered = Some(Arc::clone(key.meter()));
        }
        if self.route.price.opens.is_some() && !self.is_repeatable {
            *pass.job.get_mut() = Some(reserve_job(key, self.plan.and_then(|plan| plan.jobs))?);
        }
        Ok(pass)
    }
}

/// Reserves a place for the job that a request may open. `most`: most open jobs of its account.
///
/// # Errors
/// [`Reason::ConcurrencyLimited`] if so many are open.
pub(super) fn reserve_job(key: &Key, most: Option<u32>) -> Result<JobSlot, Refusal> {
    key.account.purse.reserve_job(most).ok_or_else(|| {
        let limit = Some(ReachedLimit { name: Arc::from(JOBS), window: Duration::ZERO });
        let detail = "The account has as many open jobs as its plan allows.";
        Refusal { limit, ..Refusal::because(Reason::ConcurrencyLimited, detail) }
    })
}

/// A limit that covers a request, and its verdict.
struct CheckedLimit<'a> {
    limit: &'a Limit,
    /// The index of its slot in the meter.
    at: usize,
    /// The number of gateways that decide alone, each about its part of the limit.
    gateways: u32,
    status: Option<LimitStatus>,
}

/// All limits that cover a request; up to four without an allocation.
type CheckedLimits<'a> = SmallVec<[CheckedLimit<'a>; 4]>;

fn describe(
    checked: &CheckedLimits<'_>,
    taken: bool,
    settings: &Settings,
    wall: WallTime,
    response: &mut ResponseHeaders,
) {
    let not_taken = |status: LimitStatus| if taken { status } else { status.not_taken() };
    let checked = checked.iter().filter(|verdict| !verdict.limit.shadow);
    let verdicts = checked.filter_map(|verdict| Some((verdict.limit, not_taken(verdict.status?))));
    let ResponseHeaders { headers, values } = response;
    if settings.ietf_headers
        && let Some((policy, rate)) = headers::ietf(verdicts.clone(), values)
    {
        headers.extend([(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, once(rate))]);
    }
    if settings.x_ratelimit_headers
        && let Some([limit, remaining, reset]) = headers::x_ratelimit(verdicts, wall, values)
    {
        headers.extend([(X_LIMIT, limit), (X_REMAINING, once(remaining)), (X_RESET, reset)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::LimitState;
    use crate::types::{AccountNum, NameId, RouteNum};

    /// Promise 6 across a clean stop: states are saved even if they would be fresh before the next regular save.
    #[test]
    fn the_last_states_are_all_saved() {
        let (directory, limits, now) = (Directory::default(), Limits::default(), Moment(1_000));
        let state = LimitState::Gcra { arrival: now.0 + 10, interval: 10 };
        let slot = LimitSlot { limit: NameId(1), route: RouteNum(0), counter: state.into() };
        directory.park(Owner::Account(AccountNum(1)), Slots::from_iter([slot]));
        assert_eq!(limits.drain(now), [], "not marked yet");
        limits.mark_all(&directory);
        let saved = limits.drain(now);
        assert_eq!(saved.len(), 2, "the account, and the meter of addresses beyond the bound: {saved:?}");
    }
}
