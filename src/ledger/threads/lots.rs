//! Ends lots that expire, and refills accounts.
//!
//! Credits expire when the books thread books it, shortly after their time. What was spent before is folded before, and
//! what holds in flight may need stays for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::books::BooksThread;
use crate::ledger::caps::Caps;
use crate::ledger::entry::EntryKind;
use crate::ledger::purse::{Lessee, Purse};
use crate::ledger::store::{Booking, LedgerError, LotEnd, RefillBooking, RefillState, Result};
use crate::policy::credit::refill::{Mode, Period, Refill};
use crate::policy::credit::{LotId, LotTerms, MAX_BALANCE};
use crate::types::{AccountId, AccountNum, Credits, WallTime};

/// Most lots that are ended in one transaction.
const MAX_ENDED_AT_ONCE: usize = 1_000;
/// Most such transactions after a fold. The rest follows after the next one.
const MAX_ROUNDS: usize = 10;

/// The refill of an account that is due.
#[derive(Clone, Debug)]
pub struct RefillOrder {
    /// The account's number.
    pub num: AccountNum,
    /// The account's id.
    pub account: AccountId,
    /// The plan.
    pub plan: String,
    /// What to do.
    pub what: RefillWhat,
}

/// What to do about an account that is listed as due.
#[derive(Clone, Debug)]
pub enum RefillWhat {
    /// Refill it for this period; the number of periods that began since the last refill, never 0.
    Refill(Arc<Refill>, Period, u64),
    /// Do not refill it.
    Wait(RefillState),
}

/// Open holds by account: when they were made, and their amounts.
type Holds = BTreeMap<AccountNum, Vec<(WallTime, Credits)>>;

impl BooksThread {
    /// Ends the lots that are due, and what of ended ones no hold needs any more.
    pub(super) fn end_due_lots(&mut self) -> Result<()> {
        for round in 0..MAX_ROUNDS {
            let now = self.clock.wall();
            let due = self.books.due_lots(now, MAX_ENDED_AT_ONCE)?;
            let is_last = due.len() < MAX_ENDED_AT_ONCE;
            let mut by_account: BTreeMap<AccountNum, BTreeSet<LotId>> = BTreeMap::new();
            for (account, lot) in due {
                by_account.entry(account).or_default().insert(lot);
            }
            let mut less_needed = self.tally.take_less_needed();
            if round == 0 && self.shared.desk.is_some() {
                // Other gateways may have settled holds.
                less_needed.extend(self.books.ended_lots()?.into_iter().map(|(account, _)| account));
            }
            for account in &less_needed {
                by_account.entry(*account).or_default();
            }
            if by_account.is_empty() || self.off_by != 0 {
                return Ok(());
            }
            // After an error, all of it is looked at again.
            self.end_lots_of(&by_account, now).inspect_err(|_| self.tally.note_less_needed(less_needed))?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Ends these lots, and what no hold needs of all ended lots of these accounts.
    fn end_lots_of(
        &mut self,
        by_account: &BTreeMap<AccountNum, BTreeSet<LotId>>,
        now: WallTime,
    ) -> Result<()> {
        self.fold()?;
        let holds = self.holds_of_all(by_account.keys().copied())?;
        let mut unneeded = Vec::new();
        for (account, lots) in by_account {
            let (wallet, Some(purse)) = (self.books.wallet(*account)?, self.shared.purses.get(*account))
            else {
                continue;
            };
            let of_account = holds.get(account).map(Vec::as_slice).unwrap_or_default();
            let amounts = wallet.unneeded(of_account, |lot| lots.contains(&lot.id) || lot.ended.is_some());
            let ended = wallet.lots.iter().filter(|lot| lot.ended.is_some()).map(|lot| lot.id).collect();
            unneeded.push((purse, amounts, ended));
            self.tally.end(*account, now);
        }
        // From here on nothing fails before the change is written: what is taken is either written or returned.
        let TakenUnneeded { ends, taken, again } = take_unneeded(unneeded);
        if !ends.is_empty() {
            self.write_taken(&taken, |thread| thread.books.end_lots(&ends, now))?;
            self.show_buckets(by_account.keys().copied());
        }
        self.tally.set_ended(self.books.ended_lots()?);
        self.tally.note_less_needed(again);
        Ok(())
    }

    /// Shows requests which buckets accounts have. If they cannot be read, requests see those of before.
    pub(super) fn show_buckets(&mut self, accounts: impl IntoIterator<Item = AccountNum>) {
        for account in accounts {
            if let (Some(purse), Ok(wallet)) = (self.shared.purses.get(account), self.books.wallet(account)) {
                purse.show(wallet);
            }
        }
    }

    /// The open holds of accounts. What other gateways of a fleet have leased may all be held; what they do not need is
    /// gathered before.
    fn holds_of_all(&mut self, accounts: impl Iterator<Item = AccountNum> + Clone) -> Result<Holds> {
        let mut holds = Holds::new();
        if self.shared.desk.is_some() {
            let purses: Vec<Arc<Purse>> =
                accounts.clone().filter_map(|account| self.shared.purses.get(account)).collect();
            let all: Vec<(Arc<dyn Lessee>, Credits)> =
                purses.iter().map(|purse| (Arc::clone(purse) as _, purse.available())).collect();
            self.gather(&all)?;
            for account in accounts.clone() {
                let leased = self.books.leased_elsewhere(account)?;
                if leased > Credits::ZERO {
                    holds.entry(account).or_default().push((WallTime(0), leased));
                }
            }
        }
        let wanted: BTreeSet<AccountNum> = accounts.collect();
        for hold in self.tally.open_holds().filter(|hold| wanted.contains(&hold.account)) {
            holds.entry(hold.account).or_default().push((hold.at, hold.amount));
        }
        holds.values_mut().for_each(|holds| holds.sort_unstable());
        Ok(holds)
    }

    /// Writes a change that takes away credits, which are taken from their purses already. First waits until the
    /// settlements that returned them are on disk: if a crash left the change without them, the accounts would be
    /// overspent.
    fn write_taken(
        &mut self,
        taken: &[(Arc<Purse>, Credits)],
        write: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.wait_until_written()
            .inspect_err(|_| taken.iter().for_each(|(purse, amount)| purse.give(*amount)))?;
        match write(self) {
            Ok(()) => {
                self.return_withheld();
                #[cfg(test)]
                self.moved.extend(taken.iter().map(|(purse, amount)| {
                    (purse.num, Credits::ZERO.checked_sub(*amount).unwrap_or_default())
                }));
                Ok(())
            }
            // It may be written: the credits stay unavailable until the next start.
            Err(error @ LedgerError::Uncertain(_)) => Err(error),
            Err(error) => {
                // The change may still be found after a crash, so these credits stay unavailable until a later commit
                // succeeds.
                let some = taken.iter().filter(|(_, amount)| !amount.is_zero());
                self.withheld
                    .extend(some.map(|(purse, amount)| (Arc::clone(purse), Caps::default(), *amount)));
                Err(error)
            }
        }
    }

    /// Refills accounts, all or none. An account that was refilled for its period before is left as it is.
    pub(in crate::ledger) fn refill(&mut self, orders: &[RefillOrder]) -> Result<()> {
        self.check_balance()?;
        self.fold()?;
        let wanted: BTreeSet<AccountNum> = orders.iter().map(|order| order.num).collect();
        let holds = self.holds_of_all(wanted.iter().copied())?;
        let mut changes = Vec::new();
        let mut orders: Vec<&RefillOrder> = orders.iter().collect();
        orders.sort_by_key(|order| order.num); // folds of other gateways lock accounts in this order
        for order in orders {
            let Some(purse) = self.shared.purses.get(order.num) else { continue };
            let (refill, gain) = self.refill_of(order, &purse, &holds)?;
            changes.push((purse, refill, gain));
        }
        let (mut refills, mut taken, mut given) = (Vec::new(), Vec::new(), Vec::new());
        for (purse, mut refill, Gain { expires, granted }) in changes {
            // In a fleet, what is granted is free for all gateways, and what expires was leased.
            let at_once = if self.shared.desk.is_some() { Credits::ZERO } else { expires.min(granted) };
            let less = expires.checked_sub(at_once).unwrap_or_default();
            if !less.is_zero() {
                // Requests may have taken some of it since the fold.
                let took = purse.take_at_most(less);
                give_up(&mut refill.ends, less.checked_sub(took).unwrap_or_default());
                taken.push((Arc::clone(&purse), took));
            }
            given.push((purse, granted.checked_sub(at_once).unwrap_or_default()));
            refills.push(refill);
        }
        let now = self.clock.wall();
        for refill in refills.iter().filter(|refill| !refill.ends.is_empty()) {
            self.tally.end(refill.num, now);
        }
        self.write_taken(&taken, |thread| thread.books.refill(&refills, now))?;
        given.iter().for_each(|(purse, gain)| purse.receive(*gain));
        #[cfg(test)]
        self.moved.extend(given.iter().map(|(purse, gain)| (purse.num, *gain)));
        self.show_buckets(wanted);
        self.tally.set_ended(self.books.ended_lots()?);
        Ok(())
    }

    /// What refills an account, and how its balance changes.
    fn refill_of(
        &mut self,
        order: &RefillOrder,
        purse: &Purse,
        holds: &Holds,
    ) -> Result<(RefillBooking, Gain)> {
        let (num, plan) = (order.num, order.plan.clone());
        let (refill, period, periods) = match &order.what {
            RefillWhat::Refill(refill, period, periods) => (refill, period, periods),
            RefillWhat::Wait(state) => {
                let refill = RefillBooking { num, plan, ends: Vec::new(), grant: None, state: *state };
                return Ok((refill, Gain::default()));
            }
        };
        let state = RefillState { due: Some(period.end), refilled: Some(period.start), is_absent: false };
        let mut booking = Booking {
            account: order.account.clone(),
            kind: EntryKind::Grant,
            amount: Credits::ZERO,
            reference: refill.reference(&order.plan, period),
            actor: "plan".to_owned(),
            key: None,
            lot: Some(LotTerms {
                bucket: refill.bucket.clone(),
                expires: matches!(refill.mode, Mode::Reset { .. }).then_some(period.end),
                of_refill: true,
            }),
        };
        if self.books.find_booking(num, &booking)?.is_some() {
            return Ok((RefillBooking { num, plan, ends: Vec::new(), grant: None, state }, Gain::default()));
        }
        let wallet = self.books.wallet(num)?;
        let of_account = holds.get(&num).map(Vec::as_slice).unwrap_or_default();
        let unneeded = wallet.unneeded(of_account, |lot| refill.ends(lot));
        let left = sum(unneeded.iter().map(|(_, amount)| *amount));
        let room = MAX_BALANCE.checked_sub(purse.available()).unwrap_or_default().max(Credits::ZERO);
        booking.amount = refill.grant(*periods, left, &wallet).min(room);
        let gain = Gain { expires: left, granted: booking.amount };
        let ends = unneeded.into_iter().map(|(lot, amount)| LotEnd { account: num, lot, amount }).collect();
        let grant = Some(booking).filter(|booking| !booking.amount.is_zero());
        Ok((RefillBooking { num, plan, ends, grant, state }, gain))
    }
}

/// How a refill changes a balance.
#[derive(Clone, Copy, Debug, Default)]
struct Gain {
    /// What is left of the last one, and expires.
    expires: Credits,
    granted: Credits,
}

/// What lots have that no hold needs, by purse, and which of its lots have ended before.
type Unneeded = (Arc<Purse>, Vec<(LotId, Credits)>, BTreeSet<LotId>);

/// What was taken from purses.
#[derive(Default)]
struct TakenUnneeded {
    ends: Vec<LotEnd>,
    taken: Vec<(Arc<Purse>, Credits)>,
    /// Accounts of which more could be taken later.
    again: Vec<AccountNum>,
}

/// Takes from purses what no hold needs, unless requests have taken it since the fold.
fn take_unneeded(unneeded: Vec<Unneeded>) -> TakenUnneeded {
    let mut all = TakenUnneeded::default();
    for (purse, amounts, ended) in unneeded {
        let wanted = sum(amounts.iter().map(|(_, amount)| *amount));
        let mut room = purse.take_at_most(wanted);
        all.taken.push((Arc::clone(&purse), room));
        if room < wanted {
            all.again.push(purse.num);
        }
        for (lot, amount) in amounts {
            let amount = amount.min(room);
            room = room.checked_sub(amount).unwrap_or_default();
            if !amount.is_zero() || !ended.contains(&lot) {
                all.ends.push(LotEnd { account: purse.num, lot, amount });
            }
        }
    }
    all
}

fn sum(amounts: impl Iterator<Item = Credits>) -> Credits {
    amounts.fold(Credits::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(Credits::MAX))
}

/// Lets less expire, by this much.
fn give_up(ends: &mut [LotEnd], mut less: Credits) {
    for end in ends {
        let part = end.amount.min(less);
        end.amount = end.amount.checked_sub(part).unwrap_or_default();
        less = less.checked_sub(part).unwrap_or_default();
    }
}
