//! Decides which bucket pays. Credits that were granted into a bucket, or with an expiry, are a lot; all other credits
//! of an account are its rest, which is in the default bucket and does not expire.
//!
//! A hold takes credits from the account as a whole. Which lots pay is decided when its charge is folded, so that a
//! request costs the same however many buckets there are.

use super::Split;
use crate::types::{BucketName, Credits, WallTime};

/// The priority of a bucket for which none is configured.
pub const DEFAULT_PRIORITY: u32 = 100;

/// The number of a lot in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LotId(pub i64);

/// Credits of an account that were granted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// The lot's number, which grows with each grant.
    pub id: LotId,
    /// The bucket.
    pub bucket: BucketName,
    /// Lots of a lower number pay first.
    pub priority: u32,
    /// The credits that were not spent yet. Never negative.
    pub left: Credits,
    /// When what is left expires; `None` if it does not.
    pub expires: Option<WallTime>,
    /// When the lot was ended, by its expiry or a refill. What is left is for holds that were made before.
    pub ended: Option<WallTime>,
    /// True if a refill granted it, so that the next one may end it.
    pub of_refill: bool,
}

impl Lot {
    /// True if the lot may pay for a hold that was made at `held`; `None`: that was made since the lot ended, if it did.
    fn pays_for(&self, held: Option<WallTime>) -> bool {
        self.ended.is_none_or(|ended| held.is_some_and(|held| held < ended))
    }
}

/// The terms of granted credits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LotTerms {
    /// The bucket.
    pub bucket: BucketName,
    /// When what is left expires.
    pub expires: Option<WallTime>,
    /// True if a refill grants them.
    pub of_refill: bool,
}

impl LotTerms {
    /// True if the credits need no lot.
    #[must_use]
    pub fn is_rest(&self) -> bool {
        self.bucket.is_default() && self.expires.is_none() && !self.of_refill
    }
}

/// The credits of an account: its lots and its rest. Their sum is its balance. The rest is negative only where there are
/// no lots: they pay before it becomes so, and what is granted later pays its debt first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wallet {
    /// The lots.
    pub lots: Vec<Lot>,
    /// All other credits.
    pub rest: Credits,
    /// The priority of the default bucket.
    pub rest_priority: u32,
}

impl Wallet {
    /// Takes `amount`, which is not negative: from the buckets in the order of their priorities; within a priority from
    /// what expires sooner, then from what was granted earlier, and from the rest last. `held`: when the hold was made, if
    /// that may have been before a lot ended. What an ended lot has left pays only for such holds, or where nothing else
    /// is left. If the amount is more than there is, the rest becomes negative.
    ///
    /// Returns the split of the negative amount.
    pub fn draw(&mut self, amount: Credits, held: Option<WallTime>) -> Split {
        const LAST: (i64, i64) = (i64::MAX, i64::MAX);
        let order = |lot: &Lot| {
            let expires = lot.expires.map_or(i64::MAX, |expires| expires.0);
            (!lot.pays_for(held), lot.priority, (expires, lot.id.0))
        };
        self.lots.sort_by_key(order);
        let rest_at = self.lots.partition_point(|lot| order(lot) < (false, self.rest_priority, LAST));
        let (mut split, mut wanted) = (Split::default(), amount.max(Credits::ZERO));
        let (first, last) = self.lots.split_at_mut(rest_at);
        first.iter_mut().for_each(|lot| take(lot, &mut wanted, &mut split));
        let from_rest = wanted.min(self.rest.max(Credits::ZERO));
        self.rest = less(self.rest, from_rest);
        split.add(&BucketName::default(), less(Credits::ZERO, from_rest));
        wanted = less(wanted, from_rest);
        last.iter_mut().for_each(|lot| take(lot, &mut wanted, &mut split));
        self.rest = less(self.rest, wanted);
        split.add(&BucketName::default(), less(Credits::ZERO, wanted));
        split
    }

    /// The lot with these terms, which has not ended.
    #[must_use]
    pub fn lot_of(&self, terms: &LotTerms) -> Option<LotId> {
        let same = |lot: &&Lot| {
            lot.ended.is_none()
                && lot.bucket == terms.bucket
                && lot.expires == terms.expires
                && lot.of_refill == terms.of_refill
        };
        self.lots.iter().find(same).map(|lot| lot.id)
    }

    /// Pays what was taken beyond all credits, which is where the rest is negative, from credits that are to be added.
    /// Returns what is left of these.
    #[must_use]
    pub fn pay_debt(&mut self, amount: Credits) -> Credits {
        let paid = amount.min(less(Credits::ZERO, self.rest)).max(Credits::ZERO);
        self.rest = self.rest.checked_add(paid).unwrap_or(self.rest);
        less(amount, paid)
    }

    /// Adds to the rest; returns the split.
    pub fn add_to_rest(&mut self, amount: Credits) -> Split {
        self.rest = self.rest.checked_add(amount).unwrap_or(self.rest);
        Split::whole(BucketName::default(), amount)
    }

    /// Adds to a lot; returns the split. A lot that is not there any more has the rest change instead.
    pub fn add_to(&mut self, id: LotId, amount: Credits) -> Split {
        let Some(lot) = self.lots.iter_mut().find(|lot| lot.id == id) else {
            return self.add_to_rest(amount);
        };
        lot.left = lot.left.checked_add(amount).unwrap_or(lot.left);
        Split::whole(lot.bucket.clone(), amount)
    }

    /// What of the chosen lots no hold in flight needs, if all holds are charged in full. `holds`: when they were made, and
    /// their amounts.
    #[must_use]
    pub fn unneeded(
        &self,
        holds: &[(WallTime, Credits)],
        chosen: impl Fn(&Lot) -> bool,
    ) -> Vec<(LotId, Credits)> {
        let mut after = self.clone();
        for (at, amount) in holds {
            after.draw(*amount, Some(*at));
        }
        after.lots.iter().filter(|lot| chosen(lot)).map(|lot| (lot.id, lot.left)).collect()
    }

    /// The split of credits that were granted into a bucket and made the balance `after`: a debt is paid first.
    #[must_use]
    pub fn granted(bucket: &BucketName, amount: Credits, after: Credits) -> Split {
        let rest = less(after, amount).min(Credits::ZERO);
        let left = Self { rest, ..Self::default() }.pay_debt(amount);
        let mut split = Split::whole(BucketName::default(), less(amount, left));
        split.add(bucket, left);
        split
    }

    /// The balance.
    #[must_use]
    pub fn total(&self) -> Credits {
        self.lots.iter().fold(self.rest, |sum, lot| sum.checked_add(lot.left).unwrap_or(sum))
    }

    /// What a bucket has, without ended lots.
    #[must_use]
    pub fn left_in(&self, bucket: &BucketName) -> Credits {
        let own = self.lots.iter().filter(|lot| lot.ended.is_none() && lot.bucket == *bucket);
        let rest = if bucket.is_default() { self.rest } else { Credits::ZERO };
        own.fold(rest, |sum, lot| sum.checked_add(lot.left).unwrap_or(sum))
    }
}

/// `amount - less`, where neither is negative and the result fits.
fn less(amount: Credits, less: Credits) -> Credits {
    amount.checked_sub(less).unwrap_or(amount)
}

fn take(lot: &mut Lot, wanted: &mut Credits, split: &mut Split) {
    let part = lot.left.min(*wanted);
    lot.left = less(lot.left, part);
    *wanted = less(*wanted, part);
    split.add(&lot.bucket, less(Credits::ZERO, part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A credit of a wallet, as the model has them: one by one.
    #[derive(Clone, Debug)]
    struct Coin {
        bucket: BucketName,
        priority: u32,
        expires: Option<i64>,
        granted: i64,
        ended: Option<i64>,
    }

    fn wallets() -> impl Strategy<Value = Wallet> {
        let lot = (0_u8..3, 0_u32..3, 0..6_i64, prop::option::of(0..4_i64), prop::option::of(0..4_i64));
        (prop::collection::vec(lot, 0..5), 0..8_i64, 0..3_u32).prop_map(|(lots, rest, rest_priority)| {
            type Parts = (u8, u32, i64, Option<i64>, Option<i64>);
            let lot = |(at, (bucket, priority, left, expires, ended)): (usize, Parts)| Lot {
                id: LotId(i64::try_from(at).unwrap()),
                bucket: ["sub", "paygo", "default"][usize::from(bucket)].parse().unwrap(),
                priority,
                left: Credits::from_millionths(left),
                expires: expires.map(WallTime),
                ended: ended.map(WallTime),
                of_refill: false,
            };
            let lots = lots.into_iter().enumerate().map(lot).collect();
            Wallet { lots, rest: Credits::from_millionths(rest), rest_priority }
        })
    }

    fn coins(wallet: &Wallet) -> Vec<Coin> {
        let mut coins = Vec::new();
        for lot in &wallet.lots {
            let coin = Coin {
                bucket: lot.bucket.clone(),
                priority: lot.priority,
                expires: lot.expires.map(|expires| expires.0),
                granted: lot.id.0,
                ended: lot.ended.map(|ended| ended.0),
            };
            coins.extend((0..lot.left.millionths()).map(|_| coin.clone()));
        }
        let (bucket, priority) = (BucketName::default(), wallet.rest_priority);
        let coin = Coin { bucket, priority, expires: None, granted: i64::MAX, ended: None };
        coins.extend((0..wallet.rest.millionths()).map(|_| coin.clone()));
        coins
    }

    /// The index of the coin that pays next.
    fn next(coins: &[Coin], held: Option<i64>) -> Option<usize> {
        let may = |coin: &Coin| coin.ended.is_none_or(|ended| held.is_some_and(|held| held < ended));
        let order = |at: &usize| {
            let coin = &coins[*at];
            (!may(coin), coin.priority, coin.expires.unwrap_or(i64::MAX), coin.granted)
        };
        (0..coins.len()).min_by_key(order)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Promise 1: charges over several buckets are exact. The model spends credits one by one.
        #[test]
        fn buckets_pay_as_if_credits_were_spent_one_by_one(
            wallet in wallets(),
            charges in prop::collection::vec((0..9_i64, prop::option::of(0..5_i64)), 1..5),
        ) {
            let (mut wallet, mut coins) = (wallet.clone(), coins(&wallet));
            for (amount, held) in charges {
                let amount = amount.min(i64::try_from(coins.len()).unwrap());
                let mut expected = Split::default();
                for _ in 0..amount {
                    let coin = coins.remove(next(&coins, held).unwrap());
                    expected.add(&coin.bucket, Credits::from_millionths(-1));
                }
                let split = wallet.draw(Credits::from_millionths(amount), held.map(WallTime));
                prop_assert_eq!(split, expected);
                let mut left = self::coins(&wallet);
                let key = |coin: &Coin| (coin.granted, coin.bucket.clone());
                left.sort_by_key(key);
                coins.sort_by_key(key);
                prop_assert_eq!(format!("{left:?}"), format!("{coins:?}"));
            }
        }

        #[test]
        fn what_no_hold_needs_can_go(wallet in wallets(), holds in prop::collection::vec((0..5_i64, 0..6_i64), 0..4)) {
            let holds: Vec<_> =
                holds.into_iter().map(|(at, amount)| (WallTime(at), Credits::from_millionths(amount))).collect();
            let sum: i64 = holds.iter().map(|(_, amount)| amount.millionths()).sum();
            prop_assume!(sum <= i64::try_from(coins(&wallet).len()).unwrap());
            let mut left = wallet.clone();
            for (id, amount) in wallet.unneeded(&holds, |_| true) {
                let lot = left.lots.iter_mut().find(|lot| lot.id == id).unwrap();
                lot.left = less(lot.left, amount);
                prop_assert!(!lot.left.is_negative());
            }
            for (at, amount) in holds {
                left.draw(amount, Some(at));
            }
            prop_assert!(!left.rest.is_negative(), "the holds can be paid");
        }
    }

    #[test]
    fn a_debt_is_paid_first() {
        let millionths = Credits::from_millionths;
        let mut wallet = Wallet { rest: millionths(-3), ..Wallet::default() };
        assert_eq!((wallet.pay_debt(millionths(2)), wallet.rest), (millionths(0), millionths(-1)));
        assert_eq!((wallet.pay_debt(millionths(5)), wallet.rest), (millionths(4), millionths(0)));
        assert_eq!((wallet.pay_debt(millionths(5)), wallet.rest), (millionths(5), millionths(0)));
        let sub = "sub".parse().unwrap();
        for (before, text) in [(-7, None), (-3, Some("default:0.000003 sub:0.000002")), (0, Some("sub"))] {
            let split = Wallet::granted(&sub, millionths(5), millionths(before + 5));
            assert_eq!(split.text().as_deref(), text);
        }
    }

    #[test]
    fn more_than_there_is_makes_the_rest_negative() {
        let mut wallet = Wallet { rest: Credits::from_millionths(2), ..Wallet::default() };
        let split = wallet.draw(Credits::from_millionths(5), None);
        assert_eq!(split, Split::whole(BucketName::default(), Credits::from_millionths(-5)));
        assert_eq!(wallet.rest, Credits::from_millionths(-3));
    }
}
