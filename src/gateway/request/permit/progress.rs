//! Pays for a request now, or once its body is read.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;

use super::Payment;
use crate::directory::Key;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::items;
use crate::gateway::request::repeats::{self, Answer};
use crate::gateway::request::services::Services;
use crate::ledger::OpenJob;
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route};

/// Longest time that a request waits to be paid for, once its body is read.
const MAX_PAYMENT_WAIT: Duration = Duration::from_secs(1);

/// Why a request is not paid for.
#[derive(Debug)]
pub(in crate::gateway::request) enum Unpaid {
    /// It is refused.
    Refused(Refusal),
    /// It was made before: the client gets the same response.
    Replayed(Box<Answer>),
}

impl<T: Into<Refusal>> From<T> for Unpaid {
    fn from(refusal: T) -> Self {
        Self::Refused(refusal.into())
    }
}

/// A payment that is made, or will be.
pub(in crate::gateway::request) enum PaymentProgress {
    /// It is made.
    Ready(Payment),
    /// It depends on the request body, or on another part of the system.
    Waiting(WaitingPayment),
}

/// A payment that is not made yet.
pub(in crate::gateway::request) struct WaitingPayment {
    /// The response's body will name the charge.
    pub(in crate::gateway::request) reads_body: bool,
    /// The payment depends on the request body, which is read completely first.
    pub(in crate::gateway::request) needed_body: Option<NeededBody>,
    pay: Box<dyn FnOnce(Bytes) -> PaymentFuture>,
}

/// A request body that a payment depends on.
#[derive(Clone, Copy)]
pub(in crate::gateway::request) struct NeededBody {
    /// Its most bytes.
    pub(in crate::gateway::request) max: u64,
    /// Which requests have that bound.
    of: &'static str,
}

impl NeededBody {
    /// Says which bound the body has, if it is too large.
    pub(in crate::gateway::request) fn refuse(self, fault: impl Into<Refusal>) -> Refusal {
        let refusal = fault.into();
        if refusal.reason != Reason::BodyTooLarge {
            return refusal;
        }
        let Self { of, max } = self;
        Refusal::because(refusal.reason, format!("{of} may have a body of at most {max} bytes."))
    }
}

/// Resolves to the payment, or to why there is none. It can be dropped at any time: then nothing is held.
pub(in crate::gateway::request) type PaymentFuture = Pin<Box<dyn Future<Output = Result<Payment, Unpaid>>>>;

impl PaymentProgress {
    /// Holds the price of a route (step 7). `job`: the open job that the request asks about.
    ///
    /// # Errors
    /// As [`Payment::hold`].
    pub(in crate::gateway::request) fn start(
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
        if let Some(waiting) = crate::gateway::request::waiting::start(services, record, key, route, price) {
            return Ok(Self::Waiting(waiting));
        }
        if price.opens.is_some() && services.spender.is_full_of_jobs() {
            return Err(Reason::Overloaded.into());
        }
        if let (Some(settings), Some(key)) = (&record.view().settings.idempotency, key)
            && repeats::is_repeatable(price, parts)
            && let Some(idempotency_key) = repeats::idempotency_key(parts)?
        {
            let paid = WaitingPayment::hold(services, record, key, (route, parts), price)?;
            let named = (idempotency_key, settings);
            return repeats::payment(services, key, parts, named, paid).map(Self::Waiting);
        }
        if let (Some(_), Some(key)) = (&price.per_item, key) {
            return WaitingPayment::hold(services, record, key, (route, parts), price).map(Self::Waiting);
        }
        Payment::hold(services, record, key, route, method, price).map(Self::Ready)
    }

    /// True if the response's body names the charge, so that it must be one that can be read.
    pub(in crate::gateway::request) fn reads_body(&self) -> bool {
        match self {
            Self::Ready(payment) => payment.held.as_ref().is_some_and(|held| held.price.reads_body()),
            Self::Waiting(waiting) => waiting.reads_body,
        }
    }

    /// True if the payment depends on the request body.
    pub(in crate::gateway::request) fn needs_request_body(&self) -> bool {
        matches!(self, Self::Waiting(waiting) if waiting.needed_body.is_some())
    }
}

impl WaitingPayment {
    pub(in crate::gateway::request) fn new(
        reads_body: bool,
        pay: impl FnOnce(Bytes) -> PaymentFuture + 'static,
    ) -> Self {
        Self { reads_body, needed_body: None, pay: Box::new(pay) }
    }

    /// A payment that depends on the request body, of at most `max` bytes. `of`: which requests have that bound.
    pub(in crate::gateway::request) fn of_body(
        reads_body: bool,
        (max, of): (u64, &'static str),
        pay: impl FnOnce(Bytes) -> PaymentFuture + 'static,
    ) -> Self {
        Self { reads_body, needed_body: Some(NeededBody { max, of }), pay: Box::new(pay) }
    }

    /// Holds a price, which may be per item of the request body.
    ///
    /// # Errors
    /// As [`items::payment`].
    fn hold(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        key: &Arc<Key>,
        (route, parts): (&Route, &Parts),
        price: &Arc<Price>,
    ) -> Result<Self, Refusal> {
        if let Some(per_item) = &price.per_item {
            return items::payment(services, record, key, route, parts, (price, per_item));
        }
        let reads_body = price.reads_body();
        let (services, record, key) = (Rc::clone(services), Rc::clone(record), Arc::clone(key));
        let (price, index, method) = (Arc::clone(price), route.index, parts.method.clone());
        let pay = async move || -> Result<Payment, Unpaid> {
            let route = &record.view().routes[index];
            Ok(Payment::hold(&services, &record, Some(&key), route, &method, &price)?)
        };
        Ok(Self::new(reads_body, move |_| Box::pin(async move { pay().await })))
    }

    /// Pays. `body`: the request body, if it was needed.
    pub(in crate::gateway::request) fn pay(self, body: Bytes) -> PaymentFuture {
        (self.pay)(body)
    }

    /// Waits until the payment is made, at most [`MAX_PAYMENT_WAIT`]. `body`: the request body, if it was needed.
    ///
    /// # Errors
    /// As [`Payment::hold`]; [`Reason::LedgerUnavailable`] too if it takes longer; [`Unpaid::Replayed`].
    pub(in crate::gateway::request) async fn finish(self, body: Bytes) -> Result<Payment, Unpaid> {
        let paid = tokio::time::timeout(MAX_PAYMENT_WAIT, self.pay(body)).await;
        paid.unwrap_or_else(|_| Err(Reason::LedgerUnavailable.into()))
    }
}
