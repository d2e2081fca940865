//! Reads the ledger while it is being written: whole tables one row at a time, lists page by page.

use std::ops::ControlFlow;
use std::path::Path;

use ipnet::IpNet;

use super::{
    AccountRow, AnswerRow, Audited, Doubt, DueRefill, FleetJob, GroupId, GroupRow, JobFilter, JobRow, KeyRow,
    NodeRow, OwnedKey, PaymentReader, RefusalRow, RepeatRow, RequestRow, Result, TokenRow, UsageFilter,
    UsageRow, UserReader, WebhookReader,
};
use crate::ledger::entry::{Entry, OperatorBalances};
use crate::ledger::record::ExternalId;
use crate::policy::credit::Spending;
use crate::policy::key::{KeyState, Scopes};
use crate::types::{AccountId, AccountNum, BucketName, Credits, KeyHash, KeyId, KeyNum, RequestId, WallTime};

/// Number of rows that are read in one page.
const PAGE: usize = 1_000;

/// The data about a secret that requests need. The secret's key was created by command. Data that only operators read,
/// such as the label, stays on disk.
#[derive(Debug)]
pub struct StoredSecret {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// The time until which a replaced secret is accepted; `None` for the current secret.
    pub until: Option<WallTime>,
    /// The key's id.
    pub id: KeyId,
    /// The key's number in the ledger.
    pub num: KeyNum,
    /// The account that the key belongs to.
    pub account: AccountNum,
    /// The key's state.
    pub state: KeyState,
    /// The time from which on the key is refused; `None` if it does not expire.
    pub expires: Option<WallTime>,
    /// Name patterns of the routes that the key may use; `None` for every route.
    pub scopes: Option<Scopes>,
    /// Networks from which clients may use the key; `None` for any.
    pub allow_from: Option<Vec<IpNet>>,
    /// The limits that replace those of the account's plan, as JSON; `None` if the plan's limits apply.
    pub limits: Option<String>,
}

/// The position of an entry among all entries of a store. Positions grow, and may have gaps.
pub type Position = u64;

/// Which audit entries to read. Fields that are `None` select all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only entries of this account.
    pub account: Option<AccountId>,
    /// Only entries of this object, such as `account/acme`.
    pub object: Option<String>,
    /// Only entries of this actor.
    pub actor: Option<String>,
    /// Only entries before this number.
    pub before: Option<u64>,
}

/// Receives a saved limit state: its owner, the state, and when it was saved.
pub type EachLimit<'a> = dyn FnMut(&[u8], &[u8], WallTime) + 'a;

/// Long reads, on a separate connection.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait BooksReader: Send {
    /// Reads webhooks; `None` if the store has none.
    fn webhooks(&mut self) -> Option<&mut dyn WebhookReader> {
        None
    }
    /// Reads users; `None` if the store has none.
    fn users(&mut self) -> Option<&mut dyn UserReader> {
        None
    }
    /// Payments; `None` if the store has none.
    fn payments(&mut self) -> Option<&mut dyn PaymentReader> {
        None
    }
    /// The gateways of a fleet.
    fn nodes(&mut self) -> Result<Vec<NodeRow>> {
        Ok(Vec::new())
    }
    /// Finds an account.
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>>;
    /// Reads the accounts after an id, in the order of their ids, at most `most`.
    fn accounts(&mut self, after: Option<&AccountId>, most: usize) -> Result<Vec<AccountRow>>;
    /// Finds a key and the id of its account.
    fn key(&mut self, id: KeyId) -> Result<Option<OwnedKey>>;
    /// Reads the keys after a number, of one account or of all, in the order of their numbers, at most `most`.
    fn keys(&mut self, account: Option<&AccountId>, after: KeyNum, most: usize) -> Result<Vec<OwnedKey>>;
    /// The number of keys of an account that are not revoked.
    fn count_keys(&mut self, account: &AccountId) -> Result<u64>;
    /// Reads the keys of an account before a number, the newest first, at most `most`.
    fn newest_keys(
        &mut self,
        account: &AccountId,
        before: Option<KeyNum>,
        most: usize,
    ) -> Result<Vec<OwnedKey>>;
    /// Reads keys as [`BooksReader::keys`] does, but only those that were not used since a time.
    fn idle_keys(
        &mut self,
        account: Option<&AccountId>,
        since: WallTime,
        after: KeyNum,
        most: usize,
    ) -> Result<Vec<OwnedKey>>;
    /// Counts the accounts, and the secrets of keys that were created by command.
    fn counts(&mut self) -> Result<(usize, usize)>;
    /// Calls `each` for every secret of keys that were created by command; the secrets of one key come in succession.
    /// Only for the start: the write-ahead log cannot be restarted during the read.
    fn each_secret(&mut self, each: &mut dyn FnMut(StoredSecret)) -> Result<()>;
    /// Calls `each` for every key with a spending limit, or in a group.
    fn each_cap(&mut self, each: &mut dyn FnMut(KeyNum, Spending, Option<GroupId>)) -> Result<()>;
    /// Calls `each` for every group of keys, of one account or of all, in the order of their names.
    fn each_group(&mut self, account: Option<AccountNum>, each: &mut dyn FnMut(GroupRow)) -> Result<()>;
    /// Calls `each` for every saved limit state. Only for the start, like [`BooksReader::each_secret`].
    fn each_limit(&mut self, each: &mut EachLimit<'_>) -> Result<()>;
    /// Makes all later reads see the ledger as it is now. Only for short series of reads: the write-ahead log cannot be
    /// restarted until the reader is dropped.
    fn freeze(&mut self) -> Result<()>;
    /// Reads the entries after a position, of one account or of all, in order, at most `most`.
    fn entries(
        &mut self,
        account: Option<&AccountId>,
        after: Position,
        most: usize,
    ) -> Result<Vec<(Position, Entry)>>;
    /// Reads the entries of an account before a number, newest first, at most `most`.
    fn latest_entries(&mut self, account: &AccountId, before: Option<u64>, most: usize)
    -> Result<Vec<Entry>>;
    /// Reads audit entries, newest first, at most `most`.
    fn audit(&mut self, filter: &AuditFilter, most: usize) -> Result<Vec<Audited>>;
    /// Calls `each` for the usage that a filter selects, in no order.
    fn usage(&mut self, filter: &UsageFilter, each: &mut dyn FnMut(UsageRow)) -> Result<()>;
    /// Reads the refusals of an account before a number, newest first, at most `most`.
    fn refusals(&mut self, account: &AccountId, before: Option<u64>, most: usize) -> Result<Vec<RefusalRow>>;
    /// Reads the jobs that a filter selects, in the order of [`super::JobPlace`], at most `most`.
    fn jobs(&mut self, filter: &JobFilter, most: usize) -> Result<Vec<JobRow>>;
    /// What became of the fleet's job with an external id, of one account or of all. Only where gateways share jobs: one that is
    /// alone has them in memory.
    fn find_job(&mut self, _: Option<AccountNum>, _: &ExternalId) -> Result<FleetJob> {
        Ok(FleetJob::Unknown)
    }
    /// The credits of all accounts by bucket, without those that are in no lot.
    fn buckets(&mut self) -> Result<Vec<(AccountId, BucketName, Credits)>>;
    /// Accounts whose refill is due, at most `most`.
    fn due_refills(&mut self, now: WallTime, most: usize) -> Result<Vec<DueRefill>>;
    /// Finds the request with this hash of account and idempotency key.
    fn repeat(&mut self, id: &KeyHash) -> Result<Option<RepeatRow>>;
    /// The requests with an idempotency key that have no answer, at most `most`: in progress, or ended by a crash.
    fn unanswered(&mut self, most: usize) -> Result<Vec<RepeatRow>>;
    /// Since when requests are listed; `None` if they are not.
    fn listed_since(&mut self) -> Result<Option<WallTime>>;
    /// Reads what requests were charged, in the order of time and id: those after a place and before a time, at most `most`.
    fn requests(
        &mut self,
        after: (WallTime, RequestId),
        until: WallTime,
        most: usize,
    ) -> Result<Vec<RequestRow>>;
    /// Finds the stored answer with this id.
    fn answer(&mut self, id: &KeyHash) -> Result<Option<AnswerRow>>;
    /// Reads all tokens of the admin API, in the order of their names.
    fn tokens(&mut self) -> Result<Vec<TokenRow>>;
    /// Reads the balances of the operator's accounts.
    fn operator_accounts(&mut self) -> Result<OperatorBalances>;
    /// Reads the holds in doubt, including those given back.
    fn in_doubt(&mut self) -> Result<Vec<Doubt>>;
    /// The number and the sum of the holds in doubt that were not given back.
    fn open_doubts(&mut self) -> Result<(u64, Credits)>;
    /// Writes a copy of the whole ledger to a new file.
    fn backup(&mut self, to: &Path) -> Result<()>;
}

/// Calls `each` for every entry of one account, or of all, in order, page by page. No read transaction is open between
/// two pages, however long `each` takes. Stops when `each` returns `Break`.
///
/// # Errors
/// If the store cannot be read.
pub fn each_entry(
    reader: &mut dyn BooksReader,
    account: Option<&AccountId>,
    mut each: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<()> {
    let mut after = 0;
    loop {
        let page = reader.entries(account, after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        for (_, entry) in page {
            if each(entry).is_break() {
                return Ok(());
            }
        }
    }
}

/// Calls `each` for every account, in the order of their ids, page by page like [`each_entry`].
///
/// # Errors
/// If the store cannot be read.
pub fn each_account(
    reader: &mut dyn BooksReader,
    mut each: impl FnMut(AccountRow) -> ControlFlow<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = reader.accounts(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id.clone());
        for row in page {
            if each(row).is_break() {
                return Ok(());
            }
        }
    }
}

/// Calls `each` for every key of one account, or of all, in the order of their numbers, page by page like
/// [`each_entry`].
///
/// # Errors
/// If the store cannot be read.
pub fn each_key(
    reader: &mut dyn BooksReader,
    account: Option<&AccountId>,
    mut each: impl FnMut(KeyRow, AccountId) -> ControlFlow<()>,
) -> Result<()> {
    let mut after = KeyNum(0);
    loop {
        let page = reader.keys(account, after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.num;
        for (row, owner) in page {
            if each(row, owner).is_break() {
                return Ok(());
            }
        }
    }
}
