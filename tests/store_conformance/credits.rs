//! Ends lots and refills accounts, as the books thread does.

use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::store::{Booking, DueRefill, LotEnd, RefillBooking, RefillState};
use tollgate::policy::credit::LotTerms;
use tollgate::types::{Credits, WallTime};

use crate::ALL;
use crate::driver::{Driver, outcome};

impl Driver<'_> {
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
