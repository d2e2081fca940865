//! Takes customers' money by a payment service. [`Provider`] is all that Tollgate needs of one; [`stripe`] is the one there
//! is.

pub(in crate::control) mod stripe;

use std::future::Future;
use std::time::Duration;

use crate::ledger::store::Purchase;
use crate::policy::credit::payment::Dispute;
use crate::snapshot::payments::Package;
use crate::types::{AccountId, BucketName, WallTime};

/// What a customer is about to buy.
#[derive(Debug)]
pub(in crate::control) struct Order<'a> {
    pub(in crate::control) account: &'a AccountId,
    pub(in crate::control) package: &'a Package,
    /// The customer's e-mail address, if it is known.
    pub(in crate::control) email: Option<&'a str>,
    /// The page that the customer comes from and goes back to.
    pub(in crate::control) page: String,
    /// Identifies this order, so that one that is sent twice is one.
    pub(in crate::control) id: String,
}

/// What a payment service tells. Messages come in any order, and more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Told {
    /// A payment arrived.
    Paid(Paid),
    /// So much of a payment was refunded in all, in the smallest unit of money.
    Refunded(Paid, u64),
    /// The payer's bank asks for the money of a payment back, or decided that it stays. `payment`: its id.
    Disputed { payment: String, dispute: Dispute },
}

/// A payment, and what was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Paid {
    /// The service's id of the payment.
    pub(in crate::control) id: String,
    pub(in crate::control) purchase: Purchase,
    /// The bucket that gets the credits.
    pub(in crate::control) bucket: BucketName,
    /// How long after the payment what is left expires.
    pub(in crate::control) expires: Option<Duration>,
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Unread {
    /// It is not signed by the service, or too old.
    Unsigned,
    /// It is signed, but says something else than the service's description.
    Malformed(String),
}

/// A payment service.
pub(in crate::control) trait Provider {
    /// Opens a page on which a customer pays. Returns its address.
    ///
    /// # Errors
    /// Why there is none, for the operator.
    fn checkout(&self, order: &Order<'_>) -> impl Future<Output = Result<String, String>> + Send;

    /// Reads a message. `signature`: the header that signs it. `None` for a message that does not matter.
    ///
    /// # Errors
    /// [`Unread`].
    fn read(&self, signature: &str, body: &[u8], now: WallTime) -> Result<Option<Told>, Unread>;
}
