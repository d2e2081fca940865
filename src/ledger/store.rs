//! Defines the two traits that a ledger's store implements, and the rows that they exchange.
//!
//! [`Journal`] makes batches of records durable, for the commit thread. [`Books`] stores entries, accounts, keys and
//! limit states, for the books thread. They are implemented by books in SQL (SQLite, PostgreSQL) with a
//! journal in files, and in memory, which is the model that tests compare the others with.

mod changes;
mod error;
mod fleet;
mod groups;
mod jobs;
mod lots;
mod notes;
mod payments;
mod reader;
mod registration;
mod repeats;
mod requests;
mod storage;
mod usage;
mod users;
mod webhooks;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use changes::{
    AccountChange, Booked, Booking, Changed, KeyChange, KeyEdit, KeyTerms, NewAccount, OwnedKey,
};
pub use error::{LedgerError, Result};
pub use fleet::{
    Beat, Change, ChangedWhat, Changes, Elsewhere, Hint, LeaseOf, LeaseWanted, Leased, Leases, NodeRow,
    OnHint, OpenAs,
};
pub use groups::{GroupId, GroupRow, MAX_GROUPS};
pub use jobs::{FleetJob, JobFilter, JobPlace, JobRow, SettledJobRow, TakenJobs};
pub use lots::{Begun, DueRefill, LotEnd, MAX_LOTS, Place, RefillBooking, RefillState};
pub use notes::{AnswerRow, AuditRow, Audited, Note, Notes, TokenRow, no_notes};
pub use payments::{AutoTopUp, BegunTopUp, Payer, PaymentReader, PaymentRow, Purchase};
pub use reader::{
    AuditFilter, BooksReader, EachLimit, Position, StoredSecret, each_account, each_entry, each_key,
};

pub use storage::{Readers, Storage};

pub use registration::{NewFileAccount, Registered, Registration};

pub use repeats::RepeatRow;
pub use requests::{ChargedRequest, RequestRow};

pub use webhooks::{
    AfterAttempt, Attempt, DeliveriesOf, DeliveryRow, DueDelivery, EndpointRow, EventKind, EventRow,
    ExpiringKey, Once, RenewalRow, WebhookReader, Webhooks,
};

pub use users::{
    Invited, LinkPurpose, LinkRow, MemberRole, MemberRow, OneTimeCodes, Role, SessionOf, SessionRow,
    UserEdit, UserFilter, UserReader, UserRow,
};

pub use usage::{
    MAX_REFUSALS, MINUTE, RefusalRow, UsageDetail, UsageFilter, UsageRange, UsageRetention, UsageRow,
    UsageStep,
};

use super::entry::{Entry, Link};
use super::record::ExternalId;
use super::tally::{Fold, OpenHold};
use crate::policy::credit::{LotId, SpendLimit, Spending, Wallet};
use crate::policy::key::{KeyState, Scopes};
use crate::policy::outcome::usage::UsagePart;
use crate::types::{AccountId, AccountNum, Credits, GroupName, KeyHash, KeyId, KeyNum, RequestId, WallTime};

/// Where an account or a key is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// In the configuration file.
    File,
    /// In the ledger, created by command, API or dashboard.
    Store,
}

/// The state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// The account may spend.
    Active,
    /// Its keys are refused with `account_suspended`.
    Suspended,
    /// It was deleted: its keys are revoked, and its entries stay.
    Closed,
}

/// An account in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The account's id, chosen by the operator.
    pub id: AccountId,
    /// The account's number in the ledger.
    #[serde(skip)]
    pub num: AccountNum,
    /// A name for people; may be empty.
    pub name: String,
    /// The sum of the account's entries. Open holds are not subtracted.
    pub balance: Credits,
    /// What open jobs of a fleet hold of it.
    #[serde(skip)]
    pub held: Credits,
    /// The plan, if the account was created by command. The plan of an account in the configuration file is only in the
    /// file.
    pub plan: Option<String>,
    /// The state, which commands change.
    pub state: AccountState,
    /// Where the account is defined.
    pub source: Source,
    /// The opening grant that the configuration file contained when the account was first registered.
    pub opening: Option<Credits>,
    /// The number of the account's last entry.
    #[serde(skip)]
    pub entries: u64,
    /// The link of the account's last entry.
    #[serde(skip)]
    pub link: Link,
    /// When the account was created.
    pub created: WallTime,
    /// Grows with each change by the control plane.
    #[serde(skip)]
    pub version: u64,
    /// The credits by lot, if the account has or had lots.
    #[serde(skip)]
    pub wallet: Option<Box<Wallet>>,
    /// What the account's keys have spent, at the last fold, and its limit.
    #[serde(skip)]
    pub spending: Spending,
}

/// A key in the ledger. Of a key in the configuration file, the ledger uses only its number, account, label and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key's id.
    pub id: KeyId,
    /// The key's number in the ledger.
    pub num: KeyNum,
    /// The account that the key belongs to.
    pub account: AccountNum,
    /// Where the key is defined.
    pub source: Source,
    /// The state, which commands change, also for a key of the configuration file.
    pub state: KeyState,
    /// The label, for operators.
    pub label: String,
    /// The environment, such as `live` or `test`; part of the key's prefix.
    pub environment: String,
    /// The key's prefix, first and last characters, by which operators recognise it.
    pub hint: String,
    /// Name patterns of the routes that the key may use; `None` for every route.
    pub scopes: Option<Scopes>,
    /// Networks from which clients may use the key; `None` for any.
    pub allow_from: Option<Vec<IpNet>>,
    /// The time from which on the key is refused; `None` if it does not expire.
    pub expires: Option<WallTime>,
    /// The limits that replace those of the account's plan, as JSON; `None` if the plan's limits apply.
    pub limits: Option<String>,
    /// When the key was created.
    pub created: WallTime,
    /// Grows with each change by the control plane.
    pub version: u64,
    /// When the key was last used, at most a minute ago; `None` if never.
    pub last_used: Option<WallTime>,
    /// What the key has spent, at the last fold, and its limit.
    pub spending: Spending,
    /// The group that the key is in.
    pub group: Option<GroupName>,
    /// The key's secrets: one, or two while a rotation overlaps.
    pub secrets: Vec<SecretRow>,
}

/// A secret of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// The time until which a replaced secret is accepted; `None` for the current secret.
    pub until: Option<WallTime>,
}

/// A hold in doubt: a crash left it open, so it was charged in full. It stays listed after it is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The request's id.
    pub id: RequestId,
    /// The account that was charged.
    pub account: AccountId,
    /// The key of the request.
    pub key: KeyId,
    /// The name of the request's route.
    pub route: String,
    /// The credits held, which were charged.
    pub amount: Credits,
    /// When the record of the hold was committed.
    pub at: WallTime,
    /// When the credits were given back; `None` if they were not.
    pub given_back: Option<WallTime>,
}

/// A batch of records: its number, the time at which it was written, and its records.
pub type JournalRow = (u64, WallTime, Vec<u8>);

/// The state that is read when the ledger is opened. Accounts, keys and limit states are read one by one with a
/// [`BooksReader`], since there may be millions.
#[derive(Debug, Default)]
pub struct LoadedBooks {
    /// Holds that were open at the last fold.
    pub open_holds: Vec<OpenHold>,
    /// Batches up to this one are folded.
    pub folded: u64,
    /// The number of this start, which grows at each start of a ledger and never repeats.
    pub epoch: u32,
    /// The accounts and external ids of settled jobs, at most [`crate::ledger::MAX_SETTLED_JOBS`], the oldest first.
    pub settled_jobs: Vec<(AccountNum, ExternalId)>,
    /// The accounts with ended lots, and when the last one ended.
    pub ended: Vec<(AccountNum, WallTime)>,
    /// True if each request is listed with its charge.
    pub lists_requests: bool,
}

/// The message for a ledger whose sum over all accounts is not zero.
#[must_use]
pub fn unbalanced(off_by: i128) -> String {
    format!(
        "the books do not balance (by {off_by} millionths of a credit), so the file was damaged or changed; \
         `tollgate ledger verify` says where, then restore a backup: see the README"
    )
}

/// The journal of a ledger: batches of records that are not folded yet. All calls are made by one thread.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Journal: Send {
    /// Reads the batches after `folded`, in order. Must be called before the first append.
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>>;
    /// Appends a batch, which is durable when this returns. A batch that failed is appended again, together with the
    /// records added since.
    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()>;
    /// Tells the journal that every batch up to this one is folded and can be deleted.
    fn reset(&mut self, upto: u64);
}

/// The books of a ledger: entries, accounts, keys and limit states. All calls are made by one thread. A call that fails
/// has changed nothing; but until a later change succeeds, its change may still be found after a crash.
#[expect(clippy::missing_errors_doc, reason = "LedgerError says what each call can meet")]
pub trait Books: Send {
    /// Reads the open holds and the last folded batch, and starts a new epoch. Must be the first call.
    fn load(&mut self, at: WallTime) -> Result<LoadedBooks>;
    /// Writes a fold: the entries, balances and open holds that follow from the journal up to `fold.upto`. Refuses
    /// charges of batches that were folded before.
    fn fold(&mut self, fold: &Fold, at: WallTime) -> Result<()>;
    /// Commits a write that changes nothing. After it has succeeded, changes that failed before can no longer be found
    /// after a crash.
    fn confirm(&mut self) -> Result<()>;
    /// Assigns numbers to the accounts, keys and routes of a configuration, and books opening grants of new accounts.
    fn register(&mut self, wanted: &Registration, at: WallTime) -> Result<Registered>;
    /// Creates accounts by command, all or none, and books their opening grants.
    fn create_accounts(
        &mut self,
        new: &[NewAccount],
        notes: &Notes<Vec<AccountRow>>,
        at: WallTime,
    ) -> Result<Vec<AccountRow>>;
    /// Changes an account.
    fn change_account(
        &mut self,
        id: &AccountId,
        change: &AccountChange,
        notes: &Notes<Changed<AccountRow>>,
        at: WallTime,
    ) -> Result<Changed<AccountRow>>;
    /// Finds an account.
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>>;
    /// Finds the account's entry with the same kind and reference as a booking.
    fn find_booking(&mut self, account: AccountNum, booking: &Booking) -> Result<Option<Entry>>;
    /// Adds the entry of a grant or an adjustment, and changes the balance by its amount.
    fn book(
        &mut self,
        account: &AccountRow,
        booking: &Booking,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Entry>;
    /// The credits of an account by lot.
    fn wallet(&mut self, account: AccountNum) -> Result<Wallet>;
    /// Lots that are due to expire and have not ended, the first ones, at most `most`. Without those of refills whose account
    /// is due to be refilled by its plan: that ends them.
    fn due_lots(&mut self, now: WallTime, most: usize) -> Result<Vec<(AccountNum, LotId)>>;
    /// What other gateways of a fleet have leased of an account.
    fn leased_elsewhere(&mut self, _: AccountNum) -> Result<Credits> {
        Ok(Credits::ZERO)
    }
    /// Returns what this gateway has leased of a spending limit that was removed, and that is set again.
    fn end_lease(&mut self, _: LeaseOf) -> Result<()> {
        Ok(())
    }
    /// Makes open jobs of the fleet this gateway's, all or none, each with others of its account that have the same external id,
    /// the oldest first. Also returns those that are this gateway's already. Without those that another gateway has.
    fn take_jobs(&mut self, _: &[RequestId]) -> Result<Vec<TakenJobs>> {
        Ok(Vec::new())
    }
    /// Gives up the claims of idempotency keys that this gateway made and that no fold has stored, after the first fold: what a
    /// crash left of requests that were not forwarded.
    fn release_claims(&mut self) -> Result<()> {
        Ok(())
    }
    /// Jobs of the fleet whose deadline has passed, the first ones, at most `most`, and what each is charged then.
    fn due_jobs(&mut self, _: WallTime, _most: usize) -> Result<Vec<(RequestId, Credits)>> {
        Ok(Vec::new())
    }
    /// The accounts with ended lots, and when the last one ended.
    fn ended_lots(&mut self) -> Result<Vec<(AccountNum, WallTime)>>;
    /// Sets the spending limits of accounts. Returns what was spent before and after the change.
    fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
        at: WallTime,
    ) -> Result<Vec<(AccountNum, Spending, Spending)>>;
    /// Sets the spending limit of a group of keys, which is created if it does not exist; `None` deletes the group. Refuses
    /// to delete one that keys are in, and to create more than [`MAX_GROUPS`]. Returns the group before and after.
    fn change_group(
        &mut self,
        account: &AccountId,
        name: &GroupName,
        limit: Option<SpendLimit>,
        notes: &Notes<Changed<Option<GroupRow>>>,
        at: WallTime,
    ) -> Result<Changed<Option<GroupRow>>>;
    /// Begins the periods of spending limits that are over, of at most `most` keys, groups and accounts.
    fn begin_periods(&mut self, now: WallTime, most: usize) -> Result<Begun>;
    /// Ends lots, and adds an entry for what of them expires, all or none.
    fn end_lots(&mut self, ends: &[LotEnd], at: WallTime) -> Result<()>;
    /// Refills accounts, all or none.
    fn refill(&mut self, refills: &[RefillBooking], at: WallTime) -> Result<()>;
    /// Creates keys, all or none, and returns the numbers assigned to them; `row.num` is ignored.
    fn create_keys(
        &mut self,
        rows: &[KeyRow],
        notes: &Notes<Vec<KeyNum>>,
        at: WallTime,
    ) -> Result<Vec<KeyNum>>;
    /// Changes a key.
    fn change_key(
        &mut self,
        id: KeyId,
        edit: &KeyEdit,
        notes: &Notes<Changed<OwnedKey>>,
        at: WallTime,
    ) -> Result<Changed<OwnedKey>>;
    /// Returns the credits of a hold in doubt, once. A second call returns the result of the first.
    fn give_back(
        &mut self,
        id: RequestId,
        actor: &str,
        notes: &Notes<Booked>,
        at: WallTime,
    ) -> Result<Booked>;
    /// Creates a token of the admin API, or replaces the one with the same name.
    fn put_token(&mut self, token: &TokenRow, notes: &Notes<TokenRow>, at: WallTime) -> Result<()>;
    /// Writes notes that belong to no change of the ledger.
    fn note(&mut self, notes: &[Note], at: WallTime) -> Result<()>;
    /// Deletes the stored answers of requests before a time.
    fn prune_answers(&mut self, before: WallTime) -> Result<()>;
    /// Deletes requests with an idempotency key whose time is over, at most `most`. True if there may be more.
    fn prune_repeats(&mut self, now: WallTime, most: usize) -> Result<bool>;
    /// Deletes what requests before a time were charged, at most `most`. True if there may be more.
    fn prune_requests(&mut self, before: WallTime, most: usize) -> Result<bool>;
    /// Deletes jobs that were settled before a time.
    fn prune_jobs(&mut self, before: WallTime) -> Result<()>;
    /// Saves limit states, given as owner and state. An empty state deletes the saved one.
    fn save_limits(&mut self, states: &[(Vec<u8>, Vec<u8>)], at: WallTime) -> Result<()>;
    /// Counts the entries since the last call as usage, and adds what workers counted. Writes when keys were last used,
    /// and refusals.
    fn count_usage(&mut self, parts: &[UsagePart]) -> Result<()>;
    /// Deletes usage that is older than its retention, at most `most` rows. True if there may be more.
    fn prune_usage(&mut self, keep: &UsageRetention, most: usize) -> Result<bool>;
    /// Lets the store copy its write-ahead log into its file. Called after each fold.
    fn checkpoint(&mut self) {}
    /// The webhooks of the ledger; `None` if the store has none.
    fn webhooks(&mut self) -> Option<&mut dyn Webhooks> {
        None
    }
    /// Opens readers, also on other threads, until the books are dropped.
    fn readers(&self) -> Readers;
    /// Opens a reader for long reads, which do not delay writes.
    fn reader(&self) -> Result<Box<dyn BooksReader>> {
        self.readers().open()
    }
}
