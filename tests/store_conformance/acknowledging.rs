//! Wraps a storage, and reports each call that changed something.

use std::sync::{Arc, Mutex};

use tollgate::ledger::entry::Entry;
use tollgate::ledger::store::{
    AccountChange, AccountRow, Begun, Booked, Booking, Books, Changed, GroupRow, Journal, JournalRow,
    KeyEdit, KeyRow, LoadedBooks, LotEnd, NewAccount, Note, Notes, OwnedKey, Readers, RefillBooking,
    Registered, Registration, Result, Storage, TokenRow, UsageRetention,
};
use tollgate::ledger::tally::Fold;
use tollgate::policy::credit::{LotId, SpendLimit, Spending, Wallet};
use tollgate::policy::outcome::usage::UsagePart;
use tollgate::types::{AccountId, AccountNum, GroupName, KeyId, KeyNum, RequestId, WallTime};

/// The report of one successful call.
pub struct Report<'a> {
    /// Number of calls that succeeded so far.
    pub count: usize,
    /// The batch, if one was appended to the journal.
    pub batch: Option<&'a [u8]>,
}

/// Number of calls that succeeded, and the function that is called after each.
struct Reporter<F> {
    count: usize,
    report: F,
}

impl<F: FnMut(Report<'_>)> Reporter<F> {
    fn done<T>(&mut self, result: Result<T>, batch: Option<&[u8]>) -> Result<T> {
        if result.is_ok() {
            self.count += 1;
            (self.report)(Report { count: self.count, batch });
        }
        result
    }
}

/// One half of the storage, journal or books, with the reporter of both halves.
struct Reporting<H: ?Sized, F> {
    half: Box<H>,
    reporter: Arc<Mutex<Reporter<F>>>,
}

/// Reports each call of both halves that changed something.
pub fn acknowledging<F: FnMut(Report<'_>) + Send + 'static>(storage: Storage, report: F) -> Storage {
    let reporter = Arc::new(Mutex::new(Reporter { count: 0, report }));
    let journal = Reporting { half: storage.journal, reporter: Arc::clone(&reporter) };
    Storage {
        books: Box::new(Reporting { half: storage.books, reporter }),
        journal: Box::new(journal),
        leases: None,
    }
}

impl<F: FnMut(Report<'_>) + Send> Journal for Reporting<dyn Journal, F> {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        self.half.read(folded)
    }
    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        let result = self.half.append(seq, at, records);
        self.reporter.lock().unwrap().done(result, Some(records))
    }
    fn reset(&mut self, upto: u64) {
        self.half.reset(upto);
    }
}

/// Forwards calls to the books. Those after `reported` change something, so they are reported.
macro_rules! pass_on {
    (read { $($read:ident($($a:ident: $at:ty),*) -> $ar:ty;)* } reported { $($done:ident($($b:ident: $bt:ty),*) -> $br:ty;)* }) => {
        impl<F: FnMut(Report<'_>) + Send> Books for Reporting<dyn Books, F> {
            $(fn $read(&mut self, $($a: $at),*) -> $ar {
                self.half.$read($($a),*)
            })*
            $(fn $done(&mut self, $($b: $bt),*) -> $br {
                let result = self.half.$done($($b),*);
                self.reporter.lock().unwrap().done(result, None)
            })*
            fn readers(&self) -> Readers {
                self.half.readers()
            }
        }
    };
}

pass_on! {
    read {
        load(at: WallTime) -> Result<LoadedBooks>;
        confirm() -> Result<()>;
        account(id: &AccountId) -> Result<Option<AccountRow>>;
        find_booking(account: AccountNum, booking: &Booking) -> Result<Option<Entry>>;
        wallet(account: AccountNum) -> Result<Wallet>;
        due_lots(now: WallTime, most: usize) -> Result<Vec<(AccountNum, LotId)>>;
        ended_lots() -> Result<Vec<(AccountNum, WallTime)>>;
        checkpoint() -> ();
    }
    reported {
        fold(fold: &Fold, at: WallTime) -> Result<()>;
        register(wanted: &Registration, at: WallTime) -> Result<Registered>;
        create_accounts(new: &[NewAccount], notes: &Notes<Vec<AccountRow>>, at: WallTime) -> Result<Vec<AccountRow>>;
        change_account(id: &AccountId, change: &AccountChange, notes: &Notes<Changed<AccountRow>>, at: WallTime) -> Result<Changed<AccountRow>>;
        book(account: &AccountRow, booking: &Booking, notes: &Notes<Booked>, at: WallTime) -> Result<Entry>;
        limit_accounts(limits: &[(AccountNum, Option<SpendLimit>)], at: WallTime) -> Result<Vec<(AccountNum, Spending, Spending)>>;
        change_group(account: &AccountId, name: &GroupName, limit: Option<SpendLimit>, notes: &Notes<Changed<Option<GroupRow>>>, at: WallTime) -> Result<Changed<Option<GroupRow>>>;
        begin_periods(now: WallTime, most: usize) -> Result<Begun>;
        end_lots(ends: &[LotEnd], at: WallTime) -> Result<()>;
        refill(refills: &[RefillBooking], at: WallTime) -> Result<()>;
        create_keys(rows: &[KeyRow], notes: &Notes<Vec<KeyNum>>, at: WallTime) -> Result<Vec<KeyNum>>;
        change_key(id: KeyId, edit: &KeyEdit, notes: &Notes<Changed<OwnedKey>>, at: WallTime) -> Result<Changed<OwnedKey>>;
        give_back(id: RequestId, actor: &str, notes: &Notes<Booked>, at: WallTime) -> Result<Booked>;
        put_token(token: &TokenRow, notes: &Notes<TokenRow>, at: WallTime) -> Result<()>;
        note(notes: &[Note], at: WallTime) -> Result<()>;
        prune_repeats(now: WallTime, most: usize) -> Result<bool>;
        prune_requests(before: WallTime, most: usize) -> Result<bool>;
        prune_answers(before: WallTime) -> Result<()>;
        prune_jobs(before: WallTime) -> Result<()>;
        count_usage(parts: &[UsagePart]) -> Result<()>;
        prune_usage(keep: &UsageRetention, most: usize) -> Result<bool>;
        save_limits(states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()>;
    }
}
