//! A permit to forward a request: proof that it passed its limits and that its route is paid for.
//!
//! [`super::call`] needs a permit, and reads the route from it. So code that forwards a request that was not admitted,
//! or not paid for on its route, does not compile.
//!
//! A payment is usually ready immediately. One whose price depends on the request body waits in its own future
//! ([`super::items`]), so that it costs other requests nothing.

pub(super) mod lease;
pub(super) mod progress;
pub(super) mod waiting_payment;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::access_log::AccessRecord;
use super::limits::Pass;
use super::repeats::claimed::Claimed;
use super::services::Services;
use crate::directory::Key;
use crate::gateway::connection::{RequestDeadlines, Stream};
use crate::ledger::outbox::NotDurable;
use crate::ledger::{Capped, Hold, HoldError, HoldRequest, JobSlot, OpenJob, Settled, SpendCap};
use crate::policy::limit::ReachedLimit;
use crate::policy::outcome::{Outcome, ShadowRule};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{OnDisconnect, Route, Settles, View};
use crate::types::StatusClass;

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
    /// The claim of the request's idempotency key.
    pub(super) claimed: Option<Box<Claimed>>,
}

/// What a request is paid from.
#[derive(Debug)]
pub(super) enum Funds {
    /// Credits that are held for it.
    Hold(Hold),
    /// Credits that were held for it, and are charged already.
    Settled(Settled),
    /// Nothing: the price is a shadow, which is only counted.
    Shadow,
    /// What an earlier request holds for a job, about which this one asks.
    Job(OpenJob),
}

/// What a key has reached that may spend no more. It is told once a day.
fn spend_limit() -> ReachedLimit {
    ReachedLimit { name: Arc::from("spend_limit"), window: Duration::from_secs(24 * 3600) }
}

impl Payment {
    /// The payment of a request about a job, which costs nothing itself.
    pub(super) fn of_job(job: Option<OpenJob>, settles: &Settles, route: &Route, method: &Method) -> Self {
        let held = job.map(|job| Held {
            price: Arc::new(Price { hold: job.amount, ..settles.price.clone() }),
            funds: Funds::Job(job),
            is_head: method == Method::HEAD,
            claimed: None,
        });
        Self { route: route.index, held }
    }

    /// Holds a price, with the claim of an idempotency key, which it takes. A route that is free, or public, does not touch
    /// the ledger.
    ///
    /// # Errors
    /// [`HoldError`], see [`refused`].
    pub(super) fn hold(
        services: &Services,
        record: &AccessRecord,
        key: Option<&Arc<Key>>,
        route: &Route,
        method: &Method,
        price: &Arc<Price>,
        claimed: &mut Option<Claimed>,
    ) -> Result<Self, HoldError> {
        let Some(key) = key.filter(|_| !price.is_free()) else {
            return Ok(Self { route: route.index, held: None });
        };
        let is_head = method == Method::HEAD;
        let held = |funds, claimed: Option<Claimed>| {
            let claimed = claimed.map(Box::new);
            Held { funds, price: Arc::clone(price), is_head, claimed }
        };
        if price.shadow {
            let is_above = |cap: &Arc<SpendCap>| cap.left() < price.hold;
            let is_capped = key.caps().all().any(|(_, cap)| is_above(cap))
                || key.account.purse.cap().as_ref().is_some_and(is_above);
            if is_capped || key.account.purse.available() < price.hold {
                record.note_shadow(ShadowRule::Credits);
            }
            return Ok(Self { route: route.index, held: Some(held(Funds::Shadow, None)) });
        }
        let wanted = HoldRequest {
            purse: &key.account.purse,
            caps: key.caps(),
            key: key.num,
            route: route.num,
            amount: price.hold,
            id: record.id,
            claim: claimed.as_mut().map(|claimed| {
                let until = claimed.until(services);
                (&mut claimed.claim, until)
            }),
        };
        let hold = services.spender.hold_as(wanted)?;
        record.set_held();
        Ok(Self { route: route.index, held: Some(held(Funds::Hold(hold), claimed.take())) })
    }
}

/// The refusal of a request whose price was not held.
pub(super) fn refused(record: &AccessRecord, price: &Price, error: HoldError) -> Refusal {
    match error {
        HoldError::Capped(capped) => {
            record.refuse_credits(price.hold);
            let message = match capped {
                Capped::Key => "The API key's spending limit is reached.",
                Capped::Group => "The spending limit of the API key's group is reached.",
                Capped::Account => "The account's spending limit is reached.",
            };
            let refusal = Refusal::because(Reason::InsufficientCredits, message);
            Refusal { limit: Some(spend_limit()), ..refusal }
        }
        HoldError::Insufficient => {
            record.refuse_credits(price.hold);
            Reason::InsufficientCredits.into()
        }
        HoldError::Unavailable => Reason::LedgerUnavailable.into(),
    }
}

impl Payment {
    /// Waits until the hold is on disk, and the claim that was recorded with it.
    ///
    /// # Errors
    /// [`NotDurable`] if they cannot be written: drop the payment, which releases both.
    pub(super) async fn committed(&self) -> Result<(), NotDurable> {
        match &self.held {
            Some(Held { funds: Funds::Hold(hold), .. }) => hold.committed().await,
            _ => Ok(()),
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

    /// True if the client may get the response by repeating the request, so that it must be read also without the client.
    pub(super) fn is_claimed(&self) -> bool {
        self.payment.held.as_ref().is_some_and(|held| held.claimed.is_some())
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
