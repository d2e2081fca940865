//! Limits that the gateways of a fleet count together.

use std::sync::Arc;

use crate::directory::{LimitSlot, Meter};
use crate::limit_store::{LimitStore, Place};
use crate::policy::limit::share::Look;
use crate::policy::limit::{Limit, LimitStatus, Outage, Rate};
use crate::policy::reject::{Reason, Refusal};
use crate::types::Moment;

/// What a limit says about a request.
pub(super) enum Looked {
    /// It decides so: as one of so many gateways that do not know of each other, or 1.
    Decided(LimitStatus, u32),
    /// The request must wait for a share of the limit.
    Waits,
    /// Nobody can tell, so that the request is refused.
    Unavailable,
}

/// The refusal of a request while limits cannot be checked that must be.
pub(super) fn unavailable() -> Refusal {
    let detail = "The request's limits cannot be checked at the moment.";
    Refusal { retry_after: Some(1), ..Refusal::because(Reason::Overloaded, detail) }
}

/// Checks the next request against a limit, without counting it.
pub(super) fn look(
    store: &LimitStore,
    (meter, slot): (&Arc<Meter>, &mut LimitSlot),
    limit: &Limit,
    now: Moment,
    may_wait: bool,
) -> Looked {
    let looked = slot.counter.look(|| fastrand::u64(..), now);
    let answers = store.answers() && looked != Look::Silent;
    match looked {
        Look::Decided(status) => return Looked::Decided(status, 1),
        Look::Unknown if answers && may_wait && !limit.shadow => return Looked::Waits,
        Look::Unknown if answers && !limit.shadow => return Looked::Decided(LimitStatus::BUSY, 1),
        _ => {}
    }
    if slot.counter.probe(now) {
        ask(store, (meter, slot), &limit.rate(), now);
    }
    match store.outage(limit) {
        _ if limit.shadow => Looked::Decided(LimitStatus::OPEN, 1),
        Outage::Open => Looked::Decided(LimitStatus::OPEN, 1),
        Outage::Closed => Looked::Unavailable,
        Outage::LocalShare => {
            let gateways = store.gateways();
            Looked::Decided(slot.counter.look_alone(&limit.rate(), gateways, now), gateways)
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
    let place = Place { meter: Arc::clone(meter), limit: slot.limit, route: slot.route, rate: *rate };
    if !store.ask(place) {
        slot.counter.unanswered(now);
    }
}
