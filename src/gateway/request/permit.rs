//! The right to forward a request: a pass of its limits and a payment for its route, in one value.
//!
//! [`super::call`] takes nothing else, and takes the route from it. So a request that was not admitted, or not
//! paid for on its route, cannot be forwarded: it does not compile.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;

use super::access_log::AccessRecord;
use super::limits::Pass;
use super::services::Services;
use crate::directory::Key;
use crate::gateway::connection::{RequestDeadlines, Stream};
use crate::ledger::{Hold, HoldError};
use crate::policy::outcome::Outcome;
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route, View};

/// Proof that the price of a route is held for a request, or that the route is free for it.
#[derive(Debug)]
pub(super) struct Payment {
    /// The route's index in the snapshot.
    route: usize,
    held: Option<Held>,
}

/// Credits that are held for a request, and the price that decides how many of them it costs.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) price: Arc<Price>,
    /// The request is a HEAD: its response has no body that could name a charge.
    pub(super) is_head: bool,
}

impl Payment {
    /// Holds the price of a route (step 7). A route that is free, or public, does not touch the ledger.
    ///
    /// # Errors
    /// [`Reason::InsufficientCredits`] or [`Reason::LedgerUnavailable`].
    pub(super) fn take(
        services: &Services,
        record: &AccessRecord,
        caller: Option<(&Key, Option<&Plan>)>,
        route: &Route,
        method: &Method,
    ) -> Result<Self, Refusal> {
        let price = record.view().price(route, caller.and_then(|(_, plan)| plan));
        let Some((key, _)) = caller.filter(|_| !price.is_free()) else {
            return Ok(Self { route: route.index, held: None });
        };
        match services.spender.hold(&key.account.purse, key.num, route.num, price.hold, record.id) {
            Ok(hold) => {
                let held = Held { hold, price: Arc::clone(price), is_head: method == Method::HEAD };
                Ok(Self { route: route.index, held: Some(held) })
            }
            Err(HoldError::Insufficient) => Err(Reason::InsufficientCredits.into()),
            Err(HoldError::Unavailable) => Err(Reason::LedgerUnavailable.into()),
        }
    }

    /// True if the response's body names the charge, so that it must not be compressed.
    pub(super) fn reads_body(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.price.reads_body())
    }
}

/// A request in flight: shared by its call, its response body, its settlement and its tunnel, and over when the
/// last of them is. Until then it counts towards its key's concurrency.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) services: Rc<Services>,
    pub(super) record: Rc<AccessRecord>,
    pub(super) stream: Stream,
    _pass: Pass,
}

impl InFlight {
    pub(super) fn deadlines(&self) -> &RequestDeadlines {
        &self.stream.deadlines
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.deadlines().is_key_revoked() {
            self.record.set_outcome(Outcome::KeyEnded);
        }
    }
}

/// A request that may be forwarded to its route. Dropped unused, it costs nothing.
#[derive(Debug)]
pub(super) struct Permit {
    request: Rc<InFlight>,
    payment: Payment,
}

impl Permit {
    /// A permit for a request that passed its limits and paid.
    pub(super) fn new(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        stream: &Stream,
        pass: Pass,
        payment: Payment,
    ) -> Self {
        let (services, record, stream) = (Rc::clone(services), Rc::clone(record), stream.clone());
        Self { request: Rc::new(InFlight { services, record, stream, _pass: pass }), payment }
    }

    /// The request in flight.
    pub(super) fn request(&self) -> &Rc<InFlight> {
        &self.request
    }

    /// The snapshot that the request is judged by, and the index of the route that it was paid for on.
    pub(super) fn route(&self) -> (&View, usize) {
        (self.request.record.view(), self.payment.route)
    }

    /// True if credits are held for the request.
    pub(super) fn is_paid(&self) -> bool {
        self.payment.held.is_some()
    }

    /// Uses the permit: the upstream has responded.
    pub(super) fn redeem(self) -> (Rc<InFlight>, Option<Held>) {
        (self.request, self.payment.held)
    }
}
