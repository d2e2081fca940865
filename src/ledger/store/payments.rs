//! Defines payments that customers made by a payment service, and what of them is asked back.

use super::Result;
use crate::policy::credit::payment::Reversals;
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

/// Reads payments.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait PaymentReader {
    /// A payment.
    fn payment(&mut self, id: &str) -> Result<Option<PaymentRow>>;
    /// The payments of an account, the last ones first, at most `most`.
    fn payments(&mut self, account: &AccountId, most: usize) -> Result<Vec<PaymentRow>>;
}
