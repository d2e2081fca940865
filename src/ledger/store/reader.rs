//! Reads beside the writer: whole tables one row at a time, lists page by page.

use std::ops::ControlFlow;
use std::path::Path;

use ipnet::IpNet;

use super::{AccountRow, Doubt, KeyRow, Result};
use crate::ledger::entry::{Entry, OperatorBalances};
use crate::policy::key::KeyState;
use crate::types::{AccountId, AccountNum, KeyHash, KeyId, KeyNum, WallTime};

/// Rows that are read at once.
const PAGE: usize = 1_000;

/// What requests need of a secret that was made by command. What only operators read, such as a label, stays on disk.
#[derive(Debug)]
pub struct StoredSecret {
    /// SHA-256 of the secret.
    pub hash: KeyHash,
    /// `None` for the present secret; a replaced one ends here.
    pub until: Option<WallTime>,
    /// The key's identity.
    pub id: KeyId,
    /// Its number in the ledger.
    pub num: KeyNum,
    /// Whose it is.
    pub account: AccountNum,
    /// Whether it works.
    pub state: KeyState,
    /// From when on it does not.
    pub expires: Option<WallTime>,
    /// Patterns of the routes it opens; `None` for every route.
    pub scopes: Option<Vec<String>>,
    /// Networks it may come from.
    pub allow_from: Option<Vec<IpNet>>,
}

/// The position of an entry among all entries of a store: grows, and may have gaps.
pub type Position = u64;

/// Takes a saved limit state: owner, state, when saved.
pub type EachLimit<'a> = dyn FnMut(&[u8], &[u8], WallTime) + 'a;

/// Long reads, on a connection of their own.
#[expect(clippy::missing_errors_doc, reason = "they fail where the store cannot be read")]
pub trait BooksReader: Send {
    /// One account.
    fn account(&mut self, id: &AccountId) -> Result<Option<AccountRow>>;
    /// The next accounts after one, in the order of their ids; at most `most`.
    fn accounts(&mut self, after: Option<&AccountId>, most: usize) -> Result<Vec<AccountRow>>;
    /// One key, and whose it is.
    fn key(&mut self, id: KeyId) -> Result<Option<(KeyRow, AccountId)>>;
    /// The next keys after one, of an account or of all, in the order of their numbers; at most `most`.
    fn keys(
        &mut self,
        account: Option<&AccountId>,
        after: KeyNum,
        most: usize,
    ) -> Result<Vec<(KeyRow, AccountId)>>;
    /// How many accounts there are, and how many secrets that were made by command.
    fn counts(&mut self) -> Result<(usize, usize)>;
    /// Every secret that was made by command, those of one key together. For the start: while it
    /// lasts, the log cannot be started over.
    fn each_secret(&mut self, each: &mut dyn FnMut(StoredSecret)) -> Result<()>;
    /// Every saved limit state. For the start, too.
    fn each_limit(&mut self, each: &mut EachLimit<'_>) -> Result<()>;
    /// From here on, all reads see the ledger as it is now. For reads that are soon over: while a
    /// view is frozen, the log cannot be started over.
    fn freeze(&mut self) -> Result<()>;
    /// The next entries after a position, of an account or of all, in order; at most `most`.
    fn entries(
        &mut self,
        account: Option<&AccountId>,
        after: Position,
        most: usize,
    ) -> Result<Vec<(Position, Entry)>>;
    /// The balances of the operator's accounts.
    fn operator_accounts(&mut self) -> Result<OperatorBalances>;
    /// Holds in doubt, also those given back.
    fn in_doubt(&mut self) -> Result<Vec<Doubt>>;
    /// Writes a copy of the whole ledger to a new file.
    fn backup(&mut self, to: &Path) -> Result<()>;
}

/// Calls `each` for every entry of an account, or of all, in order, page by page: between two pages
/// nothing is held, however long `each` takes. Ends early where `each` says so.
///
/// # Errors
/// Where the store cannot be read.
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
/// Where the store cannot be read.
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

/// Calls `each` for every key of an account, or of all, page by page like [`each_entry`].
///
/// # Errors
/// Where the store cannot be read.
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
