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
    /// The service's id of the customer, if it is known.
    pub(in crate::control) customer: Option<&'a str>,
    /// The customer's e-mail address, if it is known.
    pub(in crate::control) email: Option<&'a str>,
    /// True if the card is saved, so that it can be charged without the customer.
    pub(in crate::control) saves_card: bool,
    /// The page that the customer comes from and goes back to.
    pub(in crate::control) page: String,
    /// Identifies this order, so that one that is sent twice is one.
    pub(in crate::control) id: String,
}

/// What a payment service tells. Messages come in any order, and more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Told {
    /// A payment arrived.
    Paid(Box<Paid>),
    /// So much of a payment was refunded in all, in the smallest unit of money. Without what was bought if that is not told.
    Refunded { payment: String, paid: Option<Box<Paid>>, in_all: u64 },
    /// The payer's bank asks for the money of a payment back, or decided that it stays. `payment`: its id.
    Disputed { payment: String, dispute: Dispute },
    /// An automatic top-up failed. `number`: which of the account's.
    Failed { account: AccountId, number: u64, why: String },
    /// A subscription ended.
    Unsubscribed(AccountId),
}

/// A payment, and what was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Paid {
    /// The service's id of the payment.
    pub(in crate::control) id: String,
    pub(in crate::control) purchase: Purchase,
    /// The bucket that gets the credits.
    pub(in crate::control) bucket: BucketName,
    /// How long what is left lasts after the payment, or after the end of the period that was paid.
    pub(in crate::control) expires: Option<Duration>,
    /// The period that was paid, of a subscription.
    pub(in crate::control) period: Option<(WallTime, WallTime)>,
    /// The service's id of the customer.
    pub(in crate::control) customer: Option<String>,
    /// Its id of the card, if it was saved.
    pub(in crate::control) method: Option<String>,
    /// Which automatic top-up it is.
    pub(in crate::control) top_up: Option<u64>,
}

impl Paid {
    /// When what is left expires. `now`: when it is granted. A period that is paid when it is over lasts from now on.
    pub(in crate::control) fn expiry(&self, now: WallTime) -> Option<WallTime> {
        let millis = i64::try_from(self.expires?.as_millis()).unwrap_or(i64::MAX);
        let start = match self.period {
            None => now,
            Some((_, end)) if end > now => end,
            Some((start, end)) => WallTime(now.0.saturating_add(end.0.saturating_sub(start.0).max(0))),
        };
        Some(WallTime(start.0.saturating_add(millis)))
    }
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Unread {
    /// It is not signed by the service, or too old.
    Unsigned,
    /// It is signed, but says something else than the service's description.
    Malformed(String),
    /// The service did not tell the rest. It sends the message again.
    Unanswered(String),
}

/// Why there is no page on which a customer pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum NoPage {
    /// The service does not know the customer any more.
    UnknownCustomer,
    /// Anything else, for the operator.
    Failed(String),
}

/// Why a card was not charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Uncharged {
    /// The card, or the service, refused it.
    Refused(String),
    /// It is not known if it was charged. The same request tells.
    Unknown(String),
}

/// A payment service.
pub(in crate::control) trait Provider {
    /// Opens a page on which a customer pays. Returns its address.
    ///
    /// # Errors
    /// [`NoPage`].
    fn checkout(&self, order: &Order<'_>) -> impl Future<Output = Result<String, NoPage>> + Send;

    /// Opens a page on which a customer changes cards and ends subscriptions. Returns its address.
    ///
    /// # Errors
    /// [`NoPage`].
    fn portal(&self, customer: &str, page: &str) -> impl Future<Output = Result<String, NoPage>> + Send;

    /// The request that charges a saved card for an automatic top-up.
    fn charge_form(&self, account: &AccountId, package: &Package, card: (&str, &str), number: u64) -> String;

    /// Charges a saved card. The same request with the same `once` charges it once. `None` if the payment is under way.
    ///
    /// # Errors
    /// [`Uncharged`].
    fn charge(&self, form: &str, once: &str) -> impl Future<Output = Result<Option<Told>, Uncharged>> + Send;

    /// Reads a message. `signature`: the header that signs it. `None` for a message that does not matter.
    ///
    /// # Errors
    /// [`Unread`].
    fn read(
        &self,
        signature: &str,
        body: &[u8],
        now: WallTime,
    ) -> impl Future<Output = Result<Option<Told>, Unread>> + Send;
}
