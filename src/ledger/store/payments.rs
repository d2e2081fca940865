//! Defines payments that customers made by a payment service, and what of them is asked back.

use serde::{Deserialize, Serialize};

use super::Result;
use crate::policy::credit::LotTerms;
use crate::policy::credit::payment::Reversals;
use crate::policy::credit::top_up::MonthSum;
use crate::types::{AccountId, Credits, Money, WallTime};

/// What was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The account that gets the credits.
    pub account: AccountId,
    /// The name of the package.
    pub package: String,
    /// The credits.
    pub credits: Credits,
    /// The price.
    pub price: Money,
}

/// A payment. Of one whose refund is told before it, or of another seller, only what was told is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    /// The payment service's id of the payment.
    pub id: String,
    /// What was bought; `None` if that is not known.
    pub purchase: Option<Purchase>,
    /// When the credits were granted; `None` if they were not.
    pub granted: Option<WallTime>,
    /// The bucket and the expiry of the credits that were granted.
    pub lot: Option<LotTerms>,
    /// What was asked back.
    pub reversals: Reversals,
    /// The credits that were taken back.
    pub taken: Credits,
    /// Number of bookings that took credits back or gave them again.
    pub steps: u32,
    /// When something about it was told last.
    pub told: WallTime,
}

impl PaymentRow {
    /// A payment of which nothing is known.
    #[must_use]
    pub fn new(id: &str, told: WallTime) -> Self {
        Self {
            id: id.to_owned(),
            purchase: None,
            granted: None,
            lot: None,
            reversals: Reversals::default(),
            taken: Credits::ZERO,
            steps: 0,
            told,
        }
    }

    /// The credits that are due back of those that were granted.
    #[must_use]
    pub fn due_back(&self) -> Credits {
        match &self.purchase {
            Some(purchase) if self.granted.is_some() => {
                self.reversals.due_back(purchase.credits, purchase.price.minor)
            }
            _ => Credits::ZERO,
        }
    }

    /// The credits that are due back and were not taken, because they were spent.
    #[must_use]
    pub fn missing(&self) -> Credits {
        self.due_back().checked_sub(self.taken).unwrap_or_default().max(Credits::ZERO)
    }
}

/// An automatic top-up that was begun: it is asked for with the same words until its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunTopUp {
    /// The request, in the payment service's form.
    pub form: String,
    /// When it was begun.
    pub since: WallTime,
    /// How often it was asked for.
    pub tries: u32,
}

/// When an account is topped up automatically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoTopUp {
    /// Below which balance.
    pub below: Credits,
    /// The package that is bought.
    pub package: String,
    /// The most money in a month, in the smallest unit.
    pub most: u64,
    /// The code of the currency of that.
    pub currency: String,
}

/// How an account pays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payer {
    /// The payment service's id of the customer, for the pages on which one pays.
    pub customer: Option<String>,
    /// The card that may be charged without the customer: the service's ids of its customer, and of the card.
    pub card: Option<(String, String)>,
    /// The package that is subscribed to, and until when it is paid.
    pub subscription: Option<(String, WallTime)>,
    /// When the account is topped up automatically.
    pub top_up: Option<AutoTopUp>,
    /// What automatic top-ups cost in the month.
    pub sum: MonthSum,
    /// The number of automatic top-ups that were begun.
    pub number: u64,
    /// The one that is under way.
    pub begun: Option<BegunTopUp>,
    /// How often the card was refused in succession.
    pub refusals: u32,
    /// Why the last one failed.
    pub problem: Option<String>,
    /// No top-up is begun, and no answer is asked for, before this time.
    pub wait_until: WallTime,
}

/// Reads payments.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait PaymentReader {
    /// A payment.
    fn payment(&mut self, id: &str) -> Result<Option<PaymentRow>>;
    /// The payments of an account, the last ones first, at most `most`.
    fn payments(&mut self, account: &AccountId, most: usize) -> Result<Vec<PaymentRow>>;
    /// How an account pays.
    fn payer(&mut self, account: &AccountId) -> Result<Option<Payer>>;
    /// The id of this seller: the payment service may work for others too.
    fn seller(&mut self) -> Result<String>;
    /// Payments of which credits are missing that do not expire before now, that were told of since a time, and whose account
    /// has credits, at most `most`.
    fn missing(&mut self, since: WallTime, now: WallTime, most: usize) -> Result<Vec<String>>;
    /// The accounts with a top-up under way, or whose balance is below what they are topped up at, at most `most`.
    fn due_top_ups(&mut self, now: WallTime, most: usize) -> Result<Vec<AccountId>>;
}
