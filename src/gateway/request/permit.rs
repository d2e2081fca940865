//! A permit to forward a request: proof that it passed its limits and that its route is paid for.
//!
//! [`super::call`] needs a permit, and reads the route from it. So code that forwards a request that was not admitted,
//! or not paid for on its route, does not compile.
//!
//! A payment is usually ready immediately. One whose price depends on the request body waits in its own future
//! ([`super::items`]), so that it costs other requests nothing.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::request::Parts;

use super::access_log::AccessRecord;
use super::items;
use super::limits::Pass;
use super::services::Services;
use crate::directory::Key;
use crate::gateway::connection::{RequestDeadlines, Stream};
use crate::ledger::{Capped, Hold, HoldError, JobSlot, OpenJob, SpendCap};
use crate::policy::limit::ReachedLimit;
use crate::policy::outcome::{Outcome, ShadowRule};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{OnDisconnect, Plan, Route, Settles, View};
use crate::types::StatusClass;

/// Longest time that a request waits to be paid for, once its body is read.
const MAX_PAYMENT_WAIT: Duration = Duration::from_secs(1);

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
    pub(super) funds: Funds,
    pub(super) price: Arc<Price>,
    /// The request is a HEAD: its response has no body that could name a charge.
    pub(super) is_head: bool,
}

/// What a request is paid from.
#[derive(Debug)]
pub(super) enum Funds {
    /// Credits that are held for it.
    Hold(Hold),
    /// Nothing: the price is a shadow, which is only counted.
    Shadow,
    /// What an earlier request holds for a job, about which this one asks.
    Job(OpenJob),
}

/// A payment that is made, or will be.
pub(super) enum PaymentProgress {
    /// It is made.
    Ready(Payment),
    /// It depends on the request body, or on another part of the system.
    Waiting(WaitingPayment),
}

/// A payment that is not made yet.
pub(super) struct WaitingPayment {
    /// The response's body will name the charge.
    reads_body: bool,
    /// The payment depends on the request body, which is read completely first.
    pub(super) needs_request_body: bool,
    pay: Box<dyn FnOnce(Bytes) -> PaymentFuture>,
}

/// Resolves to the payment, or to a refusal if there is none. It can be dropped at any time: then nothing is held.
pub(super) type PaymentFuture = Pin<Box<dyn Future<Output = Result<Payment, Refusal>>>>;

impl PaymentProgress {
    /// Holds the price of a route (step 7). `job`: the open job that the request asks about.
    ///
    /// # Errors
    /// As [`Payment::hold`].
    pub(super) fn start(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        caller: Option<(&Arc<Key>, Option<&Plan>)>,
        job: Option<OpenJob>,
        (route, parts): (&Route, &Parts),
    ) -> Result<Self, Refusal> {
        if let Some(settles) = &route.settles {
            return Ok(Self::Ready(Payment::of_job(job, settles, route, &parts.method)));
        }
        let price = record.view().price(route, caller.and_then(|(_, plan)| plan));
        let (key, method) = (caller.map(|(key, _)| key), &parts.method);
        #[cfg(test)]
        if let Some(waiting) = super::waiting::start(services, record, key, route, price) {
            return Ok(Self::Waiting(waiting));
        }
        if price.opens.is_some() && services.spender.is_full_of_jobs() {
            return Err(Reason::Overloaded.into());
        }
        if let (Some(per_item), Some(key)) = (&price.per_item, key) {
            return items::payment(services, record, key, route, parts, (price, per_item)).map(Self::Waiting);
        }
        Payment::hold(services, record, key, route, method, price).map(Self::Ready)
    }

    /// True if the response's body names the charge, so that it must be one that can be read.
    pub(super) fn reads_body(&self) -> bool {
        match self {
            Self::Ready(payment) => payment.held.as_ref().is_some_and(|held| held.price.reads_body()),
            Self::Waiting(waiting) => waiting.reads_body,
        }
    }

    /// True if the payment depends on the request body.
    pub(super) fn needs_request_body(&self) -> bool {
        matches!(self, Self::Waiting(waiting) if waiting.needs_request_body)
    }
}

impl WaitingPayment {
    pub(super) fn new(
        reads_body: bool,
        needs_request_body: bool,
        pay: impl FnOnce(Bytes) -> PaymentFuture + 'static,
    ) -> Self {
        Self { reads_body, needs_request_body, pay: Box::new(pay) }
    }

    /// Waits until the payment is made, at most [`MAX_PAYMENT_WAIT`]. `body`: the request body, if it was needed.
    ///
    /// # Errors
    /// As [`Payment::hold`]; [`Reason::LedgerUnavailable`] too if it takes longer.
    pub(super) async fn finish(self, body: Bytes) -> Result<Payment, Refusal> {
        let paid = tokio::time::timeout(MAX_PAYMENT_WAIT, (self.pay)(body)).await;
        paid.unwrap_or_else(|_| Err(Reason::LedgerUnavailable.into()))
    }
}

/// What a key has reached that may spend no more. It is told once a day.
fn spend_limit() -> ReachedLimit {
    ReachedLimit { name: Arc::from("spend_limit"), window: Duration::from_secs(24 * 3600) }
}

impl Payment {
    /// The payment of a request about a job, which costs nothing itself.
    fn of_job(job: Option<OpenJob>, settles: &Settles, route: &Route, method: &Method) -> Self {
        let held = job.map(|job| Held {
            price: Arc::new(Price { hold: job.amount, ..settles.price.clone() }),
            funds: Funds::Job(job),
            is_head: method == Method::HEAD,
        });
        Self { route: route.index, held }
    }

    /// Holds a price. A route that is free, or public, does not touch the ledger.
    ///
    /// # Errors
    /// [`Reason::InsufficientCredits`] or [`Reason::LedgerUnavailable`].
    pub(super) fn hold(
        services: &Services,
        record: &AccessRecord,
        key: Option<&Arc<Key>>,
        route: &Route,
        method: &Method,
        price: &Arc<Price>,
    ) -> Result<Self, Refusal> {
        let Some(key) = key.filter(|_| !price.is_free()) else {
            return Ok(Self { route: route.index, held: None });
        };
        let held = |funds| Held { funds, price: Arc::clone(price), is_head: method == Method::HEAD };
        if price.shadow {
            let is_above = |cap: &Arc<SpendCap>| cap.left() < price.hold;
            let is_capped =
                key.cap().is_some_and(is_above) || key.account.purse.cap().as_ref().is_some_and(is_above);
            if is_capped || key.account.purse.available() < price.hold {
                record.note_shadow(ShadowRule::Credits);
            }
            return Ok(Self { route: route.index, held: Some(held(Funds::Shadow)) });
        }
        let (purse, cap) = (&key.account.purse, key.cap());
        match services.spender.hold_within(purse, cap, key.num, route.num, price.hold, record.id) {
            Ok(hold) => {
                record.set_held();
                Ok(Self { route: route.index, held: Some(held(Funds::Hold(hold))) })
            }
            Err(HoldError::Capped(capped)) => {
                record.refuse_credits(price.hold);
                let message = match capped {
                    Capped::Key => "The API key's spending limit is reached.",
                    Capped::Account => "The account's spending limit is reached.",
                };
                let refusal = Refusal::because(Reason::InsufficientCredits, message);
                Err(Refusal { limit: Some(spend_limit()), ..refusal })
            }
            Err(HoldError::Insufficient) => {
                record.refuse_credits(price.hold);
                Err(Reason::InsufficientCredits.into())
            }
            Err(HoldError::Unavailable) => Err(Reason::LedgerUnavailable.into()),
        }
    }
}

/// A request in flight: shared by its call, its response body, its settlement and its tunnel. It ends when the last of
/// them is dropped. Until then it counts towards its key's concurrency.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) services: Rc<Services>,
    pub(super) record: Rc<AccessRecord>,
    pub(super) stream: Stream,
    pass: Pass,
}

impl InFlight {
    /// A request that passed its limits.
    pub(super) fn new(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        stream: &Stream,
        pass: Pass,
    ) -> Rc<Self> {
        let (services, record, stream) = (Rc::clone(services), Rc::clone(record), stream.clone());
        Rc::new(Self { services, record, stream, pass })
    }

    /// Takes the place of the job that the request opens.
    pub(super) fn take_job(&self) -> Option<JobSlot> {
        self.pass.take_job()
    }

    /// What happens when the client disconnects.
    pub(super) fn on_disconnect(&self) -> OnDisconnect {
        self.record.route().map_or(OnDisconnect::Finish, |route| route.on_disconnect)
    }

    /// Longest silence within the response body; `None` for no limit.
    pub(super) fn body_timeout(&self) -> Option<Duration> {
        self.record.route().and_then(|route| route.upstream.body_timeout)
    }

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
    pub(super) fn new(request: Rc<InFlight>, payment: Payment) -> Self {
        Self { request, payment }
    }

    /// The request in flight.
    pub(super) fn request(&self) -> &Rc<InFlight> {
        &self.request
    }

    /// The snapshot that applies to the request, and the index of the route that was paid for.
    pub(super) fn route(&self) -> (&View, usize) {
        (self.request.record.view(), self.payment.route)
    }

    /// True if credits are held for the request.
    pub(super) fn is_paid(&self) -> bool {
        self.payment.held.as_ref().is_some_and(|held| matches!(held.funds, Funds::Hold(_)))
    }

    /// Charges what is held: the upstream's response will not be seen.
    pub(super) fn charge_hold(self) {
        if let Some(Held { funds: Funds::Hold(hold), price, .. }) = self.payment.held {
            self.request.record.set_charge(price.hold);
            drop(hold.settle(price.hold, StatusClass::None)); // no response waits for the commit
        }
    }

    /// Uses the permit: the upstream has responded.
    pub(super) fn redeem(self) -> (Rc<InFlight>, Option<Held>) {
        (self.request, self.payment.held)
    }
}
