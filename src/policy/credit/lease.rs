//! Decides how many credits a gateway of a fleet leases of an account.

use std::time::Duration;

use crate::types::Credits;

/// For how long a lease lasts at the rate at which credits were spent.
const AHEAD: Duration = Duration::from_secs(10);
/// How many times what a request needs is leased while no rate is known.
const FIRST: i64 = 16;
/// Into how many parts a gateway's share of what is free is divided, of which it leases one. Since it leases more once half of a
/// lease is spent, it may have two. A lost gateway is settled within `PARTS / 2` seconds. If the credits last longer, at the rate at
/// which they are spent, its leases return in time; otherwise they are at most what it spends in a second.
const PARTS: i64 = 24;
/// How many times what one request needs is leased if one part is less, unless it is more than half of the share.
const LEAST: i64 = 4;

/// What a gateway would lease if there is enough: what it spends in the next [`AHEAD`], or some times what it needs now.
/// `spent`: what it spent in the time `within`.
#[must_use]
pub fn target(need: Credits, spent: Credits, within: Duration) -> Credits {
    let millis = i128::try_from(within.as_millis()).unwrap_or(i128::MAX).max(1);
    let ahead = i128::try_from(AHEAD.as_millis()).unwrap_or(i128::MAX);
    let at_rate = i128::from(spent.millionths().max(0)) * ahead / millis;
    let first = i128::from(need.millionths()) * i128::from(FIRST);
    let target = at_rate.max(first).min(i128::from(i64::MAX / 4));
    Credits::from_millionths(i64::try_from(target).unwrap_or(i64::MAX / 4)).max(need)
}

/// What a gateway leases of the `free` credits: its target, at most one of the [`PARTS`] of its share, so that as the balance runs
/// dry, leases become as small as what is needed, or what some requests need. `users`: number of gateways that have leased some, with this one.
///
/// Nothing if it is less than the `least` that one request needs: two gateways with a part each could serve none.
#[must_use]
pub fn grant(need: Credits, least: Credits, target: Credits, free: Credits, users: usize) -> Credits {
    let free = free.max(Credits::ZERO);
    let users = i64::try_from(users.max(1)).unwrap_or(i64::MAX);
    let share = free.millionths() / users;
    let some = least.millionths().saturating_mul(LEAST).min(share / 2);
    let part = Credits::from_millionths((share / PARTS).max(some));
    let granted = need.max(target.min(part)).min(free);
    if granted < least { Credits::ZERO } else { granted }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn credits(millionths: i64) -> Credits {
        Credits::from_millionths(millionths)
    }

    #[test]
    fn leases_are_sized_by_rate_and_by_what_is_left() {
        let (none, second) = (Credits::ZERO, Duration::from_secs(1));
        assert_eq!(target(credits(5), none, second), credits(80));
        assert_eq!(target(credits(5), credits(1_000), second), credits(10_000));
        // need, least, target, free, users, and what is granted
        let table = [
            (5, 5, 100, 1_000_000, 1, 100),
            (5, 5, 100, 720, 1, 30),
            (5, 5, 100, 1_000_000, 3, 100),
            (5, 5, 100, 720, 3, 20),
            (5, 5, 100, 72, 3, 12),
            (5, 5, 100, 12, 3, 5),
            (5, 2, 100, 4, 3, 4),
            (5, 5, 100, 4, 3, 0),
            (0, 0, 100, 144, 3, 2),
            (5, 5, 100, -4, 3, 0),
        ];
        for (need, least, target, free, users, granted) in table {
            let [need, least, target, free] = [need, least, target, free].map(credits);
            assert_eq!(grant(need, least, target, free, users), credits(granted), "{need} {least} {free}");
        }
    }

    proptest! {
        /// No more is leased than is free, and what is needed if it is free.
        #[test]
        fn a_lease_is_at_most_what_is_free(
            need in 0..i64::MAX / 4, spent in 0..i64::MAX, millis in 0..1_000_000_u64, free in any::<i64>(), users in 0..2_000_usize,
        ) {
            let target = target(credits(need), credits(spent), Duration::from_millis(millis));
            prop_assert!(target >= credits(need));
            let least = credits(need / 2);
            let granted = grant(credits(need), least, target, credits(free), users);
            prop_assert!(granted >= Credits::ZERO && granted <= credits(free.max(0)));
            prop_assert!(granted >= credits(need.min(free)) || credits(free) < least);
        }
    }
}
