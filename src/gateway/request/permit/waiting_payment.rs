//! Defines a payment that waits for the request body, or for another part of the system.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::Payment;
use crate::gateway::request::repeats::answer::Answer;
use crate::gateway::request::repeats::claimed::Claimed;
use crate::policy::reject::{Reason, Refusal};

/// Longest time that a request waits to be paid for, once its body is read.
const MAX_PAYMENT_WAIT: Duration = Duration::from_secs(1);
/// The same, where credits may have to be leased first.
const MAX_LEASED_WAIT: Duration = Duration::from_secs(3);

/// A payment that is not made yet.
pub(in crate::gateway::request) struct WaitingPayment {
    /// The response's body will name the charge.
    pub(in crate::gateway::request) reads_body: bool,
    /// The payment depends on the request body, which is read completely first.
    pub(in crate::gateway::request) needed_body: Option<NeededBody>,
    /// Longest time that it may take.
    longest: Duration,
    pay: Box<dyn FnOnce(Bytes, Option<Claimed>) -> PaymentFuture>,
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

impl WaitingPayment {
    pub(in crate::gateway::request) fn new(
        reads_body: bool,
        pay: impl FnOnce(Bytes, Option<Claimed>) -> PaymentFuture + 'static,
    ) -> Self {
        Self { reads_body, needed_body: None, longest: MAX_PAYMENT_WAIT, pay: Box::new(pay) }
    }

    /// Lets it take longer where credits may have to be leased first.
    pub(in crate::gateway::request) fn leasing(self, may_lease: bool) -> Self {
        let longest = if may_lease { MAX_LEASED_WAIT } else { self.longest };
        Self { longest, ..self }
    }

    /// A payment that depends on the request body, of at most `max` bytes. `of`: which requests have that bound.
    pub(in crate::gateway::request) fn of_body(
        reads_body: bool,
        (max, of): (u64, &'static str),
        pay: impl FnOnce(Bytes, Option<Claimed>) -> PaymentFuture + 'static,
    ) -> Self {
        let needed_body = Some(NeededBody { max, of });
        Self { needed_body, ..Self::new(reads_body, pay) }
    }

    /// Pays. `body`: the request body, if it was needed. `claimed`: the claim that is recorded with the hold.
    pub(in crate::gateway::request) fn pay(self, body: Bytes, claimed: Option<Claimed>) -> PaymentFuture {
        (self.pay)(body, claimed)
    }

    /// Waits until the payment is made, for a bounded time. `body`: the request body, if it was needed.
    ///
    /// # Errors
    /// As the payment; [`Reason::LedgerUnavailable`] too if it takes longer; [`Unpaid::Replayed`].
    pub(in crate::gateway::request) async fn finish(self, body: Bytes) -> Result<Payment, Unpaid> {
        let longest = self.longest;
        let paid = tokio::time::timeout(longest, self.pay(body, None)).await;
        paid.unwrap_or_else(|_| Err(Reason::LedgerUnavailable.into()))
    }
}
