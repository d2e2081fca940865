//! The narrow trait between the ledger and where it is kept, and the rows that cross it.
//!
//! Two implementations: SQLite, and memory, which is the model that tests compare with.

mod reader;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use reader::{EachLimit, Reader, StoredSecret, each_account, each_entry, each_key};

use super::entry::{Entry, EntryKind, Link};
use super::fold::{Fold, Folded, OpenHold};
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, KeyHash, KeyId, KeyNum, RequestId, RouteName, RouteNum, WallTime,
};

/// What can go wrong with the ledger. Messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, locked or understood: refuse to start.
    #[error("{0}")]
    Unusable(String),
    /// The store failed just now; the same call may work later.
    #[error("the ledger failed: {0}")]
    Failed(String),
    /// The file holds what no ledger holds: it stays so.
    #[error("the ledger is damaged ({0}); restore a backup: see the README")]
    Damaged(String),
    /// The request contradicts the books.
    #[error("{0}")]
    Refused(String),
    /// The ledger's thread is gone, because the process is stopping.
    #[error("the ledger is closed")]
    Closed,
}

/// Shorthand for results of the ledger.
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// Where an account or a key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the configuration.
    File,
    /// By command, API or dashboard.
    Store,
}

/// Whether an account may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// It may.
    Active,
    /// Its keys are refused with `account_suspended`.
    Suspended,
}

/// An account as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The operator's name for it.
    pub id: AccountId,
    /// Its number in the ledger.
    #[serde(skip)]
    pub num: AccountNum,
    /// Everything granted less everything charged; holds in flight are still in it.
    pub balance: Credits,
    /// The plan of an account of the store; the file says it for its own.
    pub plan: Option<String>,
    /// Whether it may spend.
    pub state: AccountState,
    /// Where it was made.
    pub source: Source,
    /// The opening grant that the file asked for when the ledger first saw the account.
    pub opening: Option<Credits>,
    /// That of its last entry.
    #[serde(skip)]
    pub link: Link,
}

/// A key as the ledger knows it. Of a file's key, only its number and state are kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its identity.
    pub id: KeyId,
    /// Its number in the ledger.
    pub num: KeyNum,
    /// Whose it is.
    pub account: AccountNum,
    /// Where it was made.
    pub source: Source,
    /// Whether it works; for a file's key, what a command said.
    pub state: KeyState,
    /// What people call it.
    pub label: String,
    /// `live`, `test` and the like; part of the key's prefix.
    pub environment: String,
    /// Prefix, first and last characters, for people to recognise it by.
    pub hint: String,
    /// Patterns of the routes it opens; `None` for every route.
    pub scopes: Option<Vec<String>>,
    /// Networks it may come from.
    pub allow_from: Option<Vec<IpNet>>,
    /// From when on it does not work.
    pub expires: Option<WallTime>,
    /// When it was made.
    pub created: WallTime,
    /// Its secrets: one, or two while a rotation overlaps.
    pub secrets: Vec<SecretRow>,
}

/// A secret of a key: the hash, and until when it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// `None` for the present secret; a replaced one ends here.
    pub until: Option<WallTime>,
}

/// A hold that a crash left open: charged in full, and listed until it is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The request's id.
    pub id: RequestId,
    /// Who was charged.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// For which route.
    pub route: String,
    /// How much.
    pub amount: Credits,
    /// When it was held.
    pub at: WallTime,
    /// When it was given back, if it was.
    pub given_back: Option<WallTime>,
}

/// What a configuration needs numbers for before it can be published.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Accounts of the file, with their opening grants.
    pub accounts: Vec<(AccountId, Option<Credits>)>,
    /// Keys of the file: id, account, label.
    pub keys: Vec<(KeyId, AccountId, String)>,
    /// Names of all routes.
    pub routes: Vec<RouteName>,
}

/// The numbers given, in the order asked for.
#[derive(Clone, Debug, Default)]
pub struct Registered {
    /// The accounts as they now stand.
    pub accounts: Vec<AccountRow>,
    /// Numbers of the keys, and what a command said of their state.
    pub keys: Vec<(KeyNum, KeyState)>,
    /// Numbers of the routes.
    pub routes: Vec<RouteNum>,
}

/// A grant or an adjustment.
#[derive(Clone, Debug)]
pub struct Booking {
    /// Whose balance.
    pub account: AccountId,
    /// [`EntryKind::Grant`] or [`EntryKind::Adjustment`].
    pub kind: EntryKind,
    /// By how much; a grant is positive.
    pub amount: Credits,
    /// A second booking with the same reference is answered with the first.
    pub reference: String,
    /// Who does it.
    pub actor: &'static str,
}

/// What a booking did.
#[derive(Clone, Debug)]
pub struct Booked {
    /// The entry: this one, or the first one with the same reference.
    pub entry: Entry,
    /// Whether it stood there already, so that nothing changed.
    pub repeated: bool,
}

/// A change to a key of the store, or to the state of a file's key.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Switch it off or on, or revoke it.
    State(KeyState),
    /// A new secret; the old one works until `overlap_until`, or stops at once.
    Rotate {
        /// SHA-256 of the new secret.
        hash: KeyHash,
        /// What people recognise it by.
        hint: String,
        /// Until when the old secret works.
        overlap_until: Option<WallTime>,
    },
}

/// A batch of records: its number, when it was written, the records.
pub type JournalRow = (u64, WallTime, Vec<u8>);

/// What is not folded yet when the ledger is opened. Accounts, keys and limit states are read one by
/// one, see [`Reader`]: there may be millions.
#[derive(Debug, Default)]
pub struct Books {
    /// Holds that were open at the last fold.
    pub open_holds: Vec<OpenHold>,
    /// Up to where the journal stands in the entries.
    pub folded: Folded,
    /// Journal rows since, in order.
    pub journal: Vec<JournalRow>,
}

/// Where a ledger is kept. All calls come from one thread. A call that fails has changed nothing; what
/// a crash finds of it, if it comes before any later call succeeded, nobody can say.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Store: Send {
    /// Reads what is not folded yet. Comes first: nothing is appended before.
    fn load(&mut self) -> Result<Books>;
    /// Adds one journal row; durable when this returns.
    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()>;
    /// Turns the journal up to `fold.upto`, or a part of it, into entries and balances; all of it
    /// is then forgotten. A part of another fold than the one that began is refused; a whole one ends it.
    /// Charges of batches that were folded before are refused.
    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()>;
    /// Gives numbers to what a configuration names, and opening grants to new accounts.
    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered>;
    /// Makes an account of the store.
    fn create_account(&mut self, id: &AccountId, plan: Option<&str>, at: WallTime) -> Result<AccountRow>;
    /// Suspends or resumes an account.
    fn set_account_state(&mut self, id: &AccountId, state: AccountState) -> Result<()>;
    /// Finds an account.
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>>;
    /// Finds the entry of the same kind with the same reference.
    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>>;
    /// Adds a grant or an adjustment, and changes the balance by it.
    fn book(&mut self, account: &AccountRow, booking: &Booking, at: WallTime) -> Result<Entry>;
    /// Makes keys, all or none; `row.num` is ignored and given.
    fn create_keys(&mut self, rows: &[KeyRow]) -> Result<Vec<KeyNum>>;
    /// Changes a key.
    fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()>;
    /// Returns a hold in doubt, once. A second time answers with the first.
    fn give_back(&mut self, id: RequestId, at: WallTime) -> Result<Booked>;
    /// Saves limit states; one that is empty is forgotten.
    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()>;
    /// Called when there is nothing to write: housekeeping.
    fn tidy(&mut self) {}
    /// A view for long reads beside the writer.
    fn reader(&self) -> Result<Box<dyn Reader>>;
}
