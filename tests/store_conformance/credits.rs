//! Ends lots and refills accounts, as the books thread does.

use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::store::{Booking, DueRefill, LotEnd, RefillBooking, RefillState};
use tollgate::policy::credit::refill::Every;
use tollgate::policy::credit::{LotTerms, SpendLimit};
use tollgate::types::{AccountNum, Credits, WallTime};

use crate::ALL;
use crate::driver::{Driver, outcome};

/// A limit with one of the periods, or none.
pub fn limit(credits: i64, every: u8) -> SpendLimit {
    let every = [None, Some(Every::Hour), Some(Every::Day)][usize::from(every % 3)];
    SpendLimit { credits: Credits::from_millionths(credits), every }
}

impl Driver<'_> {
    /// Sets the spending limit of an account.
    pub fn limit(&mut self, account: u8, every: u8, at: WallTime) -> String {
        let wanted = (every > 0).then(|| limit(i64::from(account) * 20, every));
        outcome(self.store.books.limit_accounts(&[(AccountNum(u32::from(account)), wanted)], at))
    }

    /// Begins the periods that are over some hours later.
    pub fn begin_periods(&mut self, hours: u8) -> String {
        let now = WallTime(self.at + i64::from(hours) * 3_600_000);
        outcome(self.store.books.begin_periods(now, ALL).map(|mut begun| {
            begun.keys.sort_unstable();
            begun.accounts.sort_unstable();
            begun
        }))
    }

    /// Ends the lots that are due, by half.
    pub fn end_lots(&mut self, at: WallTime) -> String {
        let books = &mut self.store.books;
        let mut ends = Vec::new();
        for (account, lot) in books.due_lots(at, ALL).unwrap() {
            let wallet = books.wallet(account).unwrap();
            let left = wallet.lots.iter().find(|known| known.id == lot).unwrap().left.millionths();
            ends.push(LotEnd { account, lot, amount: Credits::from_millionths((left + 1) / 2) });
        }
        let ended = outcome(books.end_lots(&ends, at));
        self.tally.set_ended(books.ended_lots().unwrap());
        format!("{ends:?} {ended}")
    }

    /// Refills the accounts that are due, and ends the lots of their last refill.
    pub fn refill(&mut self, at: WallTime) -> String {
        let books = &mut self.store.books;
        let (due, mut refills) = (books.reader().unwrap().due_refills(at, ALL).unwrap(), Vec::new());
        for DueRefill { num, account, plan, .. } in due {
            let lots = books.wallet(num).unwrap().lots.into_iter().filter(|lot| lot.of_refill);
            let ends = lots.map(|lot| LotEnd { account: num, lot: lot.id, amount: lot.left }).collect();
            let (bucket, expires) = ("sub".parse().unwrap(), Some(WallTime(at.0 + 4)));
            let grant = Booking {
                key: None,
                lot: Some(LotTerms { bucket, expires, of_refill: true }),
                account,
                kind: EntryKind::Grant,
                amount: Credits::from_millionths(7),
                reference: format!("refill {}", at.0),
                actor: "plan".to_owned(),
            };
            let due = (at.0 % 3 > 0).then_some(WallTime(at.0 + 4));
            let state = RefillState { due, refilled: Some(at), is_absent: at.0 % 5 == 0 };
            refills.push(RefillBooking { num, plan, ends, grant: Some(grant), state });
        }
        let refilled = outcome(books.refill(&refills, at));
        self.tally.set_ended(books.ended_lots().unwrap());
        format!("{refills:?} {refilled}")
    }
}
