//! Ends lots and refills accounts, as the books thread does.

use tollgate::ledger::entry::EntryKind;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{Booking, DueRefill, LotEnd, RefillBooking, RefillState};
use tollgate::ledger::verify::verify;
use tollgate::policy::credit::refill::Every;
use tollgate::policy::credit::{LotTerms, SpendLimit};
use tollgate::types::{AccountNum, Credits, GroupName, WallTime};

use crate::driver::{Driver, driver, outcome};
use crate::{ALL, Call};

/// A limit with one of the periods, or none.
pub fn limit(credits: i64, every: u8) -> SpendLimit {
    let every = [None, Some(Every::Hour), Some(Every::Day)][usize::from(every % 3)];
    SpendLimit { credits: Credits::from_millionths(credits), every }
}

/// One of two groups.
pub fn group(number: u8) -> GroupName {
    format!("g{}", number % 2).parse().unwrap()
}

impl Driver<'_> {
    /// Sets the spending limit of an account.
    pub fn limit(&mut self, account: u8, every: u8, at: WallTime) -> String {
        let wanted = (every > 0).then(|| limit(i64::from(account) * 20, every));
        outcome(self.store.books.limit_accounts(&[(AccountNum(u32::from(account)), wanted)], at))
    }

    /// Sets the spending limit of a group of keys, or deletes the group.
    pub fn group(&mut self, account: u8, number: u8, every: u8, at: WallTime) -> String {
        let account = format!("a{account}").parse().unwrap();
        let wanted = (every > 0).then(|| limit(i64::from(number) * 30, every));
        let notes = self.notes("group.change");
        outcome(self.store.books.change_group(&account, &group(number), wanted, &notes, at))
    }

    /// Begins the periods that are over some hours later.
    pub fn begin_periods(&mut self, hours: u8) -> String {
        let now = WallTime(self.at + i64::from(hours) * 3_600_000);
        outcome(self.store.books.begin_periods(now, ALL).map(|mut begun| {
            begun.keys.sort_unstable();
            begun.groups.sort_unstable();
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

/// Promise 1: what was charged beyond an account's credits is paid by its next grant, before a bucket has any of it.
#[test]
fn a_grant_pays_a_debt_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut sqlite = sqlite::open(&folder.path().join("ledger.db")).unwrap();
    let mut memory = MemoryStore::default().storage();
    for store in [&mut sqlite, &mut memory] {
        let mut driver = driver(store);
        driver.run(&Call::Register { accounts: vec![(0, None)], keys: vec![(0, 0)], routes: vec![0] });
        driver.run(&Call::Holds(vec![(0, 5, Some(5))]));
        driver.run(&Call::Fold);
        for (reference, amount) in [(3, 2), (1, 8)] {
            driver.run(&Call::Book { account: 0, adjustment: false, amount, reference });
        }
        let mut reader = driver.store.books.reader().unwrap();
        let entries = reader.entries(None, 0, ALL).unwrap();
        let splits: Vec<_> = entries.iter().map(|(_, entry)| entry.split.text()).collect();
        let expected = [None, None, Some("default:0.000003 sub:0.000005".to_owned())];
        assert_eq!(splits, expected);
        assert_eq!(verify(&mut *reader).unwrap().differences, []);
    }
}
