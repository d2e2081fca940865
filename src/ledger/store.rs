//! The two narrow traits behind which a ledger is stored, and the rows that cross them.
//!
//! [`Journal`] makes batches of records durable, for the commit thread. [`Books`] has entries, accounts, keys and limit
//! states, for the books thread. Two implementations: SQLite with a journal in files, and memory, which is the model
//! that tests compare with.

mod reader;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use reader::{BooksReader, EachLimit, Position, StoredSecret, each_account, each_entry, each_key};

use super::entry::{Entry, EntryKind, Link};
use super::tally::{Fold, OpenHold};
use crate::policy::key::KeyState;
use crate::types::{
    AccountId, AccountNum, Credits, KeyHash, KeyId, KeyNum, RequestId, RouteName, RouteNum, WallTime,
};

/// Why the ledger fails. Messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened, locked or understood: the gateway does not start.
    #[error("{0}")]
    Unusable(String),
    /// The store failed just now; the same call may work later.
    #[error("the ledger failed: {0}")]
    Failed(String),
    /// The file holds something that no ledger holds: trying again does not help.
    #[error("the ledger is damaged ({0}); restore a backup: see the README")]
    Damaged(String),
    /// The command contradicts the books.
    #[error("{0}")]
    Refused(String),
    /// The ledger's thread is gone, because the process is stopping.
    #[error("the ledger is closed")]
    Closed,
}

/// Shorthand for results of the ledger.
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// Where an account or a key is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the configuration file.
    File,
    /// In the ledger, by command, API or dashboard.
    Store,
}

/// Whether an account may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// It may spend.
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
    /// Everything granted less everything charged; open holds are still in it.
    pub balance: Credits,
    /// The plan; for accounts of the ledger only, since the file has that of its own.
    pub plan: Option<String>,
    /// Whether it may spend.
    pub state: AccountState,
    /// Where it is defined.
    pub source: Source,
    /// The opening grant that the file asked for when the ledger first saw the account.
    pub opening: Option<Credits>,
    /// The number of its last entry.
    #[serde(skip)]
    pub entries: u64,
    /// The link of its last entry.
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

/// What the books say when the ledger is opened. Accounts, keys and limit states are read one by one, see [`BooksReader`]:
/// there may be millions.
#[derive(Debug, Default)]
pub struct LoadedBooks {
    /// Holds that were open at the last fold.
    pub open_holds: Vec<OpenHold>,
    /// Batches up to this one are folded.
    pub folded: u64,
    /// Grows at each start: no two starts of a ledger have the same.
    pub epoch: u32,
}

/// A ledger's storage: its two halves, each for one thread.
pub struct Storage {
    /// Entries, accounts, keys and limit states.
    pub books: Box<dyn Books>,
    /// Records that are not folded yet.
    pub journal: Box<dyn Journal>,
}

/// The message for books whose sum over all accounts is not zero.
#[must_use]
pub fn unbalanced(off_by: i128) -> String {
    format!(
        "the books do not balance (by {off_by} millionths of a credit), so the file was damaged or changed; \
         `tollgate ledger verify` says where, then restore a backup: see the README"
    )
}

/// The journal of a ledger: batches of records that are not folded yet. All calls come from one thread.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Journal: Send {
    /// Reads the batches after `folded`, in order. The first call: nothing is appended before.
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>>;
    /// Appends a batch; durable when this returns. A batch that failed is appended again, with the records since.
    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()>;
    /// Every batch up to this one is folded, and can be forgotten.
    fn reset(&mut self, upto: u64);
}

/// The books of a ledger. All calls come from one thread. A call that fails has changed nothing; but until a later
/// change succeeds, a crash may find the change all the same.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Books: Send {
    /// Reads what is not folded yet, and starts a new epoch. The first call.
    fn load(&mut self, at: WallTime) -> Result<LoadedBooks>;
    /// Turns the journal up to `fold.upto` into entries and balances. Charges of batches that were folded before are
    /// refused.
    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()>;
    /// Changes nothing: when it succeeds, it is certain that changes which failed before did not happen.
    fn confirm(&mut self) -> Result<()>;
    /// Gives numbers to what a configuration names, and opening grants to new accounts.
    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered>;
    /// Creates an account of the ledger.
    fn create_account(&mut self, id: &AccountId, plan: Option<&str>, at: WallTime) -> Result<AccountRow>;
    /// Suspends or resumes an account.
    fn set_account_state(&mut self, id: &AccountId, state: AccountState) -> Result<()>;
    /// Finds an account.
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>>;
    /// Finds the entry of the same kind with the same reference.
    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>>;
    /// Adds a grant or an adjustment, and changes the balance by it.
    fn book(&mut self, account: &AccountRow, booking: &Booking, at: WallTime) -> Result<Entry>;
    /// Creates keys, all or none; `row.num` is ignored and assigned.
    fn create_keys(&mut self, rows: &[KeyRow]) -> Result<Vec<KeyNum>>;
    /// Changes a key.
    fn change_key(&mut self, id: KeyId, change: &KeyChange) -> Result<()>;
    /// Gives a hold in doubt back, once. A second time returns the first result.
    fn give_back(&mut self, id: RequestId, at: WallTime) -> Result<Booked>;
    /// Saves limit states; one that is empty is forgotten.
    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()>;
    /// Called after a fold: lets the store copy its log into its file.
    fn checkpoint(&mut self) {}
    /// A view for long reads beside the writer.
    fn reader(&self) -> Result<Box<dyn BooksReader>>;
}
