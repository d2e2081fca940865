//! What is due back of a payment: refunds and disputes, in whatever order they are told, and however often.

use serde::{Deserialize, Serialize};

use crate::types::Credits;

/// Most disputes of one payment that are known.
pub const MAX_DISPUTES: usize = 16;

/// How a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisputeState {
    /// The payer's bank has not decided.
    Open,
    /// The money went back to the payer.
    Lost,
    /// The money stays.
    Won,
}

/// A payer's bank asks for the money back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// The payment service's id of the dispute.
    pub id: String,
    /// The money, in the smallest unit.
    pub amount: u64,
    /// How it stands.
    pub state: DisputeState,
}

/// What was asked back of a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reversals {
    /// The money that was refunded in all, in the smallest unit.
    pub refunded: u64,
    /// The disputes.
    pub disputes: Vec<Dispute>,
}

impl Reversals {
    /// Notes how much was refunded in all. Messages about refunds are cumulative, so the largest one counts.
    pub fn refund(&mut self, in_all: u64) {
        self.refunded = self.refunded.max(in_all);
    }

    /// Notes how a dispute stands. One that is decided is not opened again by a message that comes late.
    pub fn dispute(&mut self, told: Dispute) {
        let has_room = self.disputes.len() < MAX_DISPUTES;
        match self.disputes.iter_mut().find(|known| known.id == told.id) {
            Some(known) if known.state == DisputeState::Open => *known = told,
            None if has_room => self.disputes.push(told),
            Some(_) | None => {}
        }
    }

    /// The credits that are due back of those that were bought for a price: the same share as of the money, rounded down to
    /// a millionth. Refunds and disputes of the same money count twice, but never more than all.
    #[must_use]
    pub fn due_back(&self, credits: Credits, price: u64) -> Credits {
        let disputed = self.disputes.iter().filter(|dispute| dispute.state != DisputeState::Won);
        let back = disputed.fold(self.refunded, |sum, dispute| sum.saturating_add(dispute.amount));
        if back == 0 {
            return Credits::ZERO; // also of what was free
        }
        if back >= price {
            return credits;
        }
        let share = i128::from(credits.millionths()) * i128::from(back) / i128::from(price);
        i64::try_from(share).map_or(credits, Credits::from_millionths)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credits(millionths: i64) -> Credits {
        Credits::from_millionths(millionths)
    }

    #[test]
    fn the_share_of_the_money_is_due_back() {
        let back = |refunded: u64, disputes: &[(u64, DisputeState)]| {
            let mut reversals = Reversals::default();
            reversals.refund(refunded);
            for (at, (amount, state)) in disputes.iter().enumerate() {
                reversals.dispute(Dispute { id: at.to_string(), amount: *amount, state: *state });
            }
            reversals.due_back(credits(1_000_000), 999).millionths()
        };
        use DisputeState::{Lost, Open, Won};
        for (expected, refunded, disputes) in [
            (0, 0, &[][..]),
            (1_001, 1, &[]),
            (500_500, 500, &[]),
            (1_000_000, 999, &[]),
            (1_000_000, 5_000, &[]),
            (1_000_000, 0, &[(999, Open)]),
            (0, 0, &[(999, Won)]),
            (500_500, 400, &[(100, Lost), (899, Won)]),
            (1_000_000, 500, &[(u64::MAX, Lost)]),
        ] {
            assert_eq!(back(refunded, disputes), expected, "{refunded} {disputes:?}");
        }
        assert_eq!(Reversals::default().due_back(credits(7), 0), Credits::ZERO, "what was free stays");
    }

    #[derive(Clone, Debug)]
    enum Told {
        Refund(u64),
        Dispute(u8, u64, DisputeState),
    }

    fn tell(messages: &[Told]) -> Reversals {
        let mut reversals = Reversals::default();
        for told in messages {
            match told {
                Told::Refund(in_all) => reversals.refund(*in_all),
                Told::Dispute(id, amount, state) => {
                    reversals.dispute(Dispute { id: id.to_string(), amount: *amount, state: *state });
                }
            }
        }
        reversals.disputes.sort_by(|one, other| one.id.cmp(&other.id));
        reversals
    }

    proptest! {
        /// Whatever the order of messages, and however often they come, the same is due back.
        #[test]
        fn order_and_repeats_do_not_matter(
            refunds in prop::collection::vec(0_u64..100, 0..4),
            disputes in prop::collection::vec((0_u64..100, any::<bool>()), 0..4),
            order in Just((0..32_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut messages: Vec<Told> = refunds.into_iter().map(Told::Refund).collect();
            for (id, (amount, is_won)) in (0_u8..).zip(disputes) {
                messages.push(Told::Dispute(id, amount, DisputeState::Open));
                let end = if is_won { DisputeState::Won } else { DisputeState::Lost };
                messages.push(Told::Dispute(id, amount, end));
            }
            let expected = tell(&messages);
            // Each message comes at least once, in any order.
            let count = messages.len();
            let order = order.iter().filter(|_| count > 0);
            let mixed: Vec<Told> = order.map(|at| messages[at % count].clone()).collect();
            prop_assert_eq!(tell(&mixed), expected);
        }
    }
}
