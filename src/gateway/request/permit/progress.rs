//! Pays for a request now, or once its body is read.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;

use super::lease::lease_and_hold;
use super::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::{Payment, refused};
use crate::directory::Key;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::jobs::{AskedJob, find_later};
use crate::gateway::request::repeats::RepeatKey;
use crate::gateway::request::services::Services;
use crate::gateway::request::{items, repeats};
use crate::ledger::HoldError;
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Plan, Route};

/// A payment that is made, or will be.
pub(in crate::gateway::request) enum PaymentProgress {
    /// It is made.
    Ready(Payment),
    /// It depends on the request body, or on another part of the system.
    Waiting(WaitingPayment),
}

impl PaymentProgress {
    /// Holds the price of a route (step 7). `job`: the job that the request asks about. `repeat`: its idempotency key.
    ///
    /// # Errors
    /// As [`refused`], and as [`items::payment`].
    pub(in crate::gateway::request) fn start(
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
        caller: Option<(&Arc<Key>, Option<&Plan>)>,
        (job, repeat): (AskedJob, Option<RepeatKey<'_>>),
        (route, parts): (&Route, &Parts),
    ) -> Result<Self, Refusal> {
        if let Some(settles) = &route.settles {
            let job = match (job, caller) {
                (AskedJob::OfFleet(id), Some((key, _))) => {
                    let found = find_later(services, record, key, id, (route, settles), &parts.method);
                    return Ok(Self::Waiting(found));
                }
                (AskedJob::Open(job), _) => Some(job),
                (AskedJob::None | AskedJob::OfFleet(_), _) => None,
            };
            return Ok(Self::Ready(Payment::of_job(job, settles, route, &parts.method)));
        }
        let price = record.view().price(route, caller.and_then(|(_, plan)| plan));
        let (key, method) = (caller.map(|(key, _)| key), &parts.method);
        #[cfg(test)]
        if let Some(waiting) = crate::gateway::request::waiting::start(services, record, key, route, price) {
            return Ok(Self::Waiting(waiting));
        }
        if let (Some(repeat), Some(key)) = (repeat, key) {
            let paid = hold_later(services, record, key, (route, parts), price)?;
            return repeats::payment((services, record.id), key, parts, repeat, paid).map(Self::Waiting);
        }
        if price.opens.is_some() && services.spender.is_full_of_jobs() {
            return Err(Reason::Overloaded.into());
        }
        if let (Some(_), Some(key)) = (&price.per_item, key) {
            return hold_later(services, record, key, (route, parts), price).map(Self::Waiting);
        }
        match (Payment::hold(services, record, key, route, method, price, &mut None), key) {
            (Ok(payment), _) => Ok(Self::Ready(payment)),
            (Err(HoldError::Insufficient | HoldError::Capped(_)), Some(key))
                if services.spender.is_of_fleet() =>
            {
                hold_later(services, record, key, (route, parts), price).map(Self::Waiting)
            }
            (Err(error), _) => Err(refused(record, price, error)),
        }
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

/// Holds a price, which may be per item of the request body, once credits for it are leased.
///
/// # Errors
/// As [`items::payment`].
fn hold_later(
    services: &Rc<Services>,
    record: &Rc<AccessRecord>,
    key: &Arc<Key>,
    (route, parts): (&Route, &Parts),
    price: &Arc<Price>,
) -> Result<WaitingPayment, Refusal> {
    let may_lease = services.spender.is_of_fleet();
    if let Some(per_item) = &price.per_item {
        let paid = items::payment(services, record, key, route, parts, (price, per_item));
        return paid.map(|paid| paid.leasing(may_lease));
    }
    let reads_body = price.reads_body();
    let (services, record, key) = (Rc::clone(services), Rc::clone(record), Arc::clone(key));
    let (price, index, method) = (Arc::clone(price), route.index, parts.method.clone());
    let pay = async move |claimed| -> Result<Payment, Unpaid> {
        Ok(lease_and_hold(&services, &record, &key, (index, &method), &price, claimed).await?)
    };
    let pay = move |_, claimed| Box::pin(async move { pay(claimed).await }) as PaymentFuture;
    Ok(WaitingPayment::new(reads_body, pay).leasing(may_lease))
}
