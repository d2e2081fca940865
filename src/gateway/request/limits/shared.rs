//! Limits that the gateways of a fleet count together.

use std::sync::Arc;

use crate::directory::{LimitSlot, Meter};
use crate::limit_store::{LimitStore, SharedCounter};
use crate::policy::limit::share::Peeked;
use crate::policy::limit::{Limit, LimitStatus, Outage, Rate};
use crate::policy::reject::{Reason, Refusal};
use crate::types::Moment;

/// What a limit says about a request.
pub(super) enum Verdict {
    /// It decides so: as one of so many gateways that do not know of each other, or 1.
    Decided(LimitStatus, u32),
    /// The request must wait for a share of the limit.
    Waits,
    /// Nobody knows if it would refuse the request, which it only counts.
    Unknown,
    /// Nobody can tell, so that the request is refused.
    Unavailable,
}

/// The refusal of a request while limits cannot be checked that must be.
pub(super) fn unavailable() -> Refusal {
    let detail = "The request's limits cannot be checked at the moment.";
    Refusal { retry_after: Some(1), ..Refusal::because(Reason::Overloaded, detail) }
}

/// Checks the next request against a limit, without counting it. A store that does not answer within the time that a request may
/// wait is as good as one that does not answer.
pub(super) fn peek(
    store: &LimitStore,
    (meter, slot): (&Arc<Meter>, &mut LimitSlot),
    limit: &Limit,
    now: Moment,
    may_wait: bool,
) -> Verdict {
    match slot.counter.peek_share(|| fastrand::u64(..), now) {
        Peeked::Decided(status) => return Verdict::Decided(status, 1),
        Peeked::Unknown if store.answers() && limit.shadow => {
            if slot.counter.wait() {
                ask(store, (meter, slot), &limit.rate(), now);
            }
            return Verdict::Unknown;
        }
        Peeked::Unknown if store.answers() && may_wait => return Verdict::Waits,
        _ => {}
    }
    if slot.counter.probe(now) {
        ask(store, (meter, slot), &limit.rate(), now);
    }
    match store.outage(limit) {
        _ if limit.shadow => Verdict::Unknown,
        Outage::Open => Verdict::Decided(LimitStatus::OPEN, 1),
        Outage::Closed => Verdict::Unavailable,
        Outage::LocalShare => {
            let gateways = store.gateways();
            Verdict::Decided(slot.counter.peek_alone(&limit.rate(), gateways, now), gateways)
        }
    }
}

/// Asks the store about a limit.
pub(super) fn ask(
    store: &LimitStore,
    (meter, slot): (&Arc<Meter>, &mut LimitSlot),
    rate: &Rate,
    now: Moment,
) {
    let counter =
        SharedCounter { meter: Arc::clone(meter), limit: slot.limit, route: slot.route, rate: *rate };
    if !store.ask(counter) {
        slot.counter.unanswered(now);
    }
}
