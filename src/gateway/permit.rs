//! The right to be forwarded: made of a pass and a payment, in one place.
//!
//! [`super::exchange`] takes nothing else, so that forwarding what was not admitted, or was not
//! paid for, does not compile.

use std::rc::Rc;
use std::sync::Arc;

use http::Method;

use super::Gate;
use super::limits::Pass;
use super::record::Record;
use super::stream::Stream;
use super::waits::Waits;
use crate::directory::Key;
use crate::ledger::{Hold, HoldError};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Route;

/// Credits set aside for a request, and what decides how much of them it costs.
#[derive(Debug)]
pub(super) struct Payment {
    pub(super) hold: Hold,
    pub(super) price: Arc<Price>,
    /// The request is a HEAD: its response has no body that a price could stand in.
    pub(super) to_head: bool,
}

/// Proof that a request's price is set aside, or that it has none.
#[derive(Debug)]
pub(super) struct Paid(Option<Payment>);

impl Paid {
    /// Step 7. A route without a price, or without a key, never enters the ledger.
    ///
    /// # Errors
    /// [`Reason::InsufficientCredits`] or [`Reason::LedgerUnavailable`].
    pub(super) fn take(
        gate: &Gate,
        record: &Record,
        key: Option<&Key>,
        (route, method): (&Route, &Method),
        price: &Arc<Price>,
    ) -> Result<Self, Refusal> {
        let Some(key) = key.filter(|_| !price.is_free()) else { return Ok(Self(None)) };
        match gate.spender.hold(&key.account.purse, key.num, route.num, price.hold, record.id) {
            Ok(hold) => {
                Ok(Self(Some(Payment { hold, price: Arc::clone(price), to_head: method == Method::HEAD })))
            }
            Err(HoldError::Insufficient) => Err(Reason::InsufficientCredits.into()),
            Err(HoldError::Unavailable) => Err(Reason::LedgerUnavailable.into()),
        }
    }
}

/// A request that may be forwarded, and what is owed for it until it is over.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Rc<Gate>,
    record: Rc<Record>,
    stream: Stream,
    pass: Pass,
    paid: Paid,
}

impl Permit {
    pub(super) fn new(gate: &Rc<Gate>, record: &Rc<Record>, stream: &Stream, pass: Pass, paid: Paid) -> Self {
        let (gate, record, stream) = (Rc::clone(gate), Rc::clone(record), stream.clone());
        Self { gate, record, stream, pass, paid }
    }

    pub(super) fn gate(&self) -> &Rc<Gate> {
        &self.gate
    }

    /// Whether credits are held for it.
    pub(super) fn is_paid(&self) -> bool {
        self.paid.0.is_some()
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn waits(&self) -> &Waits {
        &self.stream.waits
    }

    /// Whether the upstream took longer than its route allows.
    pub(super) fn is_overdue(&self) -> bool {
        self.stream.waits.answer_left(self.gate.beat.now()).is_some_and(|left| left.is_zero())
    }

    pub(super) fn record(&self) -> &Rc<Record> {
        &self.record
    }

    /// What is owed, for the one who settles it.
    pub(super) fn redeem(self) -> Owed {
        let Self { gate, record, stream, pass, paid } = self;
        Owed { gate, record, stream, pass, payment: paid.0 }
    }
}

/// A permit that was used.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) gate: Rc<Gate>,
    pub(super) record: Rc<Record>,
    pub(super) stream: Stream,
    pub(super) pass: Pass,
    /// Where the route has a price.
    pub(super) payment: Option<Payment>,
}
