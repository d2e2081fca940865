//! Computes balances after holds and settlements; which bucket pays, in `lots.rs`; what a refill adds, in `refill.rs`.
//!
//! The functions take and return plain amounts, so that the ledger can apply them to an atomic balance and the
//! property tests to numbers.

pub mod lease;
mod lots;
pub mod payment;
pub mod refill;
mod spending;
mod split;
pub mod top_up;

pub use lots::{DEFAULT_PRIORITY, Lot, LotId, LotTerms, Wallet};
pub use spending::{SpendLimit, Spending};
pub use split::Split;

use crate::types::Credits;

/// Largest balance: half of the 64-bit range, so that the sum of a balance and its holds never overflows.
pub const MAX_BALANCE: Credits = Credits::from_millionths(i64::MAX / 2);

/// The balance after `amount` is held, or `None` if `available` does not suffice or `amount` is negative.
#[must_use]
pub fn after_hold(available: Credits, amount: Credits) -> Option<Credits> {
    available.checked_sub(amount).filter(|left| !left.is_negative() && !amount.is_negative())
}

/// The credits that return to the balance when a hold is settled at `charge`: never more than was held.
#[must_use]
pub fn returned(held: Credits, charge: Credits) -> Credits {
    let charge = charge.clamp(Credits::ZERO, held.max(Credits::ZERO));
    held.checked_sub(charge).unwrap_or(Credits::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credits() -> impl Strategy<Value = Credits> {
        (-10_i64..1_000).prop_map(Credits::from_millionths)
    }

    proptest! {
        #[test]
        fn holding_and_settling_charges_exactly_the_charge(available in credits(), held in credits(), charge in credits()) {
            prop_assume!(!held.is_negative());
            if let Some(left) = after_hold(available, held) {
                prop_assert!(!left.is_negative());
                let back = left.checked_add(returned(held, charge)).unwrap();
                let paid = available.checked_sub(back).unwrap();
                prop_assert_eq!(paid, charge.clamp(Credits::ZERO, held));
            } else {
                prop_assert!(available < held);
            }
        }
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(after_hold(Credits::from_millionths(i64::MIN), Credits::MAX), None);
    }
}
