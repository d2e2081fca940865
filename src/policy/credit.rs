//! Credit arithmetic: what a hold leaves, what a settlement returns, what a grant adds.
//!
//! The ledger applies these to an atomic; the model and the property tests apply them to a number.

use crate::types::Credits;

/// Largest balance: half of what 64 bits hold, so that adding a balance and its holds never overflows.
pub const MAX_BALANCE: Credits = Credits::from_millionths(i64::MAX / 2);

/// What is left of `available` when `amount` is set aside, or `None` if it does not suffice.
#[must_use]
pub fn after_hold(available: Credits, amount: Credits) -> Option<Credits> {
    available.checked_sub(amount).filter(|left| !left.is_negative() && !amount.is_negative())
}

/// What returns to the balance when a hold is settled at `charge`: never more than was held.
#[must_use]
pub fn returned(held: Credits, charge: Credits) -> Credits {
    let charge = charge.clamp(Credits::ZERO, held.max(Credits::ZERO));
    held.checked_sub(charge).unwrap_or(Credits::ZERO)
}

/// The balance after a grant or an adjustment, or `None` if it would overflow or go below zero.
#[must_use]
pub fn after_booking(available: Credits, amount: Credits) -> Option<Credits> {
    available.checked_add(amount).filter(|left| amount > Credits::ZERO || !left.is_negative())
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
        assert_eq!(after_booking(Credits::MAX, Credits::from_millionths(1)), None);
        assert_eq!(after_hold(Credits::from_millionths(i64::MIN), Credits::MAX), None);
    }
}
