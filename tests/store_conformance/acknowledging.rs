//! A store that tells after each call that changed something.

use tollgate::ledger::entry::Entry;
use tollgate::ledger::fold::Fold;
use tollgate::ledger::store::{
    AccountRow, AccountState, Booked, Booking, Books, KeyChange, KeyRow, Reader, Registered, Registration,
    Result, Store,
};
use tollgate::types::{AccountId, AccountNum, KeyId, KeyNum, RequestId, WallTime};

/// What is told.
pub struct Told<'a> {
    /// How many calls succeeded so far.
    pub count: usize,
    /// The batch, where this one added one to the journal.
    pub batch: Option<&'a [u8]>,
}

/// `tell` gets the store, and what happened.
pub struct Acknowledging<S, F> {
    store: S,
    count: usize,
    tell: F,
}

impl<S: Store, F: FnMut(&mut S, Told<'_>) + Send> Acknowledging<S, F> {
    pub fn new(store: S, tell: F) -> Self {
        Self { store, count: 0, tell }
    }

    fn told<T>(&mut self, result: Result<T>, batch: Option<&[u8]>) -> Result<T> {
        if result.is_ok() {
            self.count += 1;
            (self.tell)(&mut self.store, Told { count: self.count, batch });
        }
        result
    }
}

/// Passes calls on; those behind `told` change something.
macro_rules! passed_on {
    (asked { $($asked:ident($($a:ident: $at:ty),*) -> $ar:ty;)* } told { $($told:ident($($b:ident: $bt:ty),*) -> $br:ty;)* }) => {
        impl<S: Store, F: FnMut(&mut S, Told<'_>) + Send> Store for Acknowledging<S, F> {
            $(fn $asked(&mut self, $($a: $at),*) -> $ar {
                self.store.$asked($($a),*)
            })*
            $(fn $told(&mut self, $($b: $bt),*) -> $br {
                let result = self.store.$told($($b),*);
                self.told(result, None)
            })*
            fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
                let result = self.store.append(seq, at, records);
                self.told(result, Some(records))
            }
            fn reader(&self) -> Result<Box<dyn Reader>> {
                self.store.reader()
            }
        }
    };
}

passed_on! {
    asked {
        load() -> Result<Books>;
        account(id: &AccountId) -> Result<Option<AccountRow>>;
        find_booking(account: AccountNum, booking: &Booking) -> Result<Option<Entry>>;
        tidy() -> ();
    }
    told {
        fold(fold: &Fold, at: WallTime) -> Result<()>;
        register(wanted: &Registration, at: WallTime) -> Result<Registered>;
        create_account(id: &AccountId, plan: Option<&str>, at: WallTime) -> Result<AccountRow>;
        set_account_state(id: &AccountId, state: AccountState) -> Result<()>;
        book(account: &AccountRow, booking: &Booking, at: WallTime) -> Result<Entry>;
        create_keys(rows: &[KeyRow]) -> Result<Vec<KeyNum>>;
        change_key(id: KeyId, change: &KeyChange) -> Result<()>;
        give_back(id: RequestId, at: WallTime) -> Result<Booked>;
        save_limits(states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()>;
    }
}
