//! Recomputes the books from the entries: balances, links, numbers, and the operator's accounts.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::Serialize;

use super::entry::{Entry, EntryKind, Link, OperatorAccount, OperatorBalances};
use super::store::{AccountRow, BooksReader, Doubt, Position, Result, each_account};
use crate::types::{AccountId, Credits};

/// Differences that are listed; more are counted.
pub const MAX_LISTED: usize = 10_000;

/// Entries that are read at once.
const PAGE: usize = 1_000;
/// Entries in a row that cannot be read, after which it ends with the error.
const MAX_UNREADABLE: u64 = 1_000;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An account's entries are numbered without a gap: one is missing, or out of order.
    Number,
    /// An entry that cannot be read.
    Unreadable,
    /// The balance after an entry is not the balance before it plus its amount.
    BalanceAfter,
    /// An entry, or the one before it, was changed.
    Link,
    /// An account's balance is not the one after its last entry.
    Balance,
    /// An account's last entry is not the one that was written last.
    LastLink,
    /// The list of holds in doubt is not what the entries say.
    InDoubt,
    /// The operator's account is not the other half of the entries, in millionths.
    Granted,
    /// As [`What::Granted`].
    Adjusted,
    /// As [`What::Granted`].
    Earned,
    /// The sum over all accounts, in millionths, is not zero.
    Sum,
}

/// A difference between the books and the entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its kind.
    pub what: What,
    /// The account; `None` for the operator's.
    pub account: Option<AccountId>,
    /// The number of the entry, or its position if it cannot be read.
    pub entry: Option<u64>,
    /// What the books say.
    pub recorded: String,
    /// What the entries add up to.
    pub computed: String,
}

/// What was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Accounts.
    pub accounts: u64,
    /// Entries.
    pub entries: u64,
    /// How many differences there are.
    pub found: u64,
    /// The differences, at most [`MAX_LISTED`]; empty if all is well.
    pub differences: Vec<Difference>,
}

impl Verified {
    fn differ(
        &mut self,
        what: What,
        account: Option<&AccountId>,
        entry: Option<u64>,
        recorded: impl ToString,
        computed: impl ToString,
    ) {
        self.found += 1;
        if self.differences.len() < MAX_LISTED {
            let (recorded, computed) = (recorded.to_string(), computed.to_string());
            self.differences.push(Difference { what, account: account.cloned(), entry, recorded, computed });
        }
    }
}

/// The entries of one account so far.
#[derive(Clone, Copy, Default)]
struct Chain {
    number: u64,
    balance: Credits,
    link: Link,
}

/// A hold in doubt, according to the entries.
struct Doubted {
    account: AccountId,
    charged: Credits,
    given_back: bool,
}

/// Walks all entries once; memory grows with accounts and holds in doubt, not with entries.
///
/// After an entry that differs it continues with that entry's values, so that each damaged entry is found and those after
/// it are not.
///
/// # Errors
/// If the store cannot be read.
pub fn verify(reader: &mut dyn BooksReader) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut chains: HashMap<AccountId, Chain> = HashMap::new();
    let mut computed = OperatorBalances::default();
    let mut doubted: HashMap<String, Doubted> = HashMap::new();
    reader.freeze()?; // entries and balances of one moment
    each_readable(reader, |read| {
        verified.entries += 1;
        let entry = match read {
            Ok(entry) => entry,
            Err(position) => {
                return verified.differ(What::Unreadable, None, Some(position), "?", "an entry");
            }
        };
        computed.book(entry.kind, entry.amount);
        note_doubt(&mut doubted, entry);
        match chains.get_mut(&entry.account) {
            Some(chain) => check(&mut verified, entry, chain),
            None => {
                let mut chain = Chain::default();
                check(&mut verified, entry, &mut chain);
                chains.insert(entry.account.clone(), chain);
            }
        }
    })?;
    let mut total: i128 = 0;
    each_account(reader, |row| {
        verified.accounts += 1;
        total += i128::from(row.balance.millionths());
        check_account(&mut verified, &row, chains.remove(&row.id).unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    compare_doubts(&mut verified, doubted, reader.in_doubt()?);
    let mut recorded = reader.operator_accounts()?;
    for account in OperatorAccount::ALL {
        let (recorded, computed) = (*recorded.of(account), *computed.of(account));
        if recorded != computed {
            verified.differ(what(account), None, None, recorded, computed);
        }
    }
    if total + recorded.sum() != 0 {
        verified.differ(What::Sum, None, None, total + recorded.sum(), 0);
    }
    Ok(verified)
}

/// Calls `each` with every entry in order; with the position of one that cannot be read.
fn each_readable(reader: &mut dyn BooksReader, mut each: impl FnMut(Result<&Entry, Position>)) -> Result<()> {
    // Reads one by one while a page cannot be read.
    let (mut after, mut singly_until, mut unreadable) = (0, 0, 0);
    loop {
        let most = if after < singly_until { 1 } else { PAGE };
        match reader.entries(None, after, most) {
            Err(_) if most > 1 => singly_until = after + PAGE as u64,
            Ok(page) => {
                let Some((last, _)) = page.last() else { return Ok(()) };
                (after, unreadable) = (*last, 0);
                page.iter().for_each(|(_, entry)| each(Ok(entry)));
            }
            Err(error) if unreadable == MAX_UNREADABLE => return Err(error),
            Err(_) => {
                (after, unreadable) = (after + 1, unreadable + 1);
                each(Err(after));
            }
        }
    }
}

fn check(verified: &mut Verified, entry: &Entry, chain: &mut Chain) {
    let (at, account) = (Some(entry.number), Some(&entry.account));
    if entry.number != chain.number + 1 {
        verified.differ(What::Number, account, at, entry.number, chain.number + 1);
    }
    let computed = chain.balance.checked_add(entry.amount);
    if computed != Some(entry.balance_after) {
        let computed = computed.map_or_else(|| "an overflow".to_owned(), |sum| sum.to_string());
        verified.differ(What::BalanceAfter, account, at, entry.balance_after, computed);
    }
    let link = entry.link_after(&chain.link);
    if link != entry.link {
        verified.differ(What::Link, account, at, entry.link, link);
    }
    *chain = Chain { number: entry.number, balance: entry.balance_after, link: entry.link };
}

fn note_doubt(doubted: &mut HashMap<String, Doubted>, entry: &Entry) {
    let Some(reference) = &entry.reference else { return };
    if entry.kind == EntryKind::InDoubt {
        let charged = Credits::ZERO.checked_sub(entry.amount).unwrap_or_default();
        let doubt = Doubted { account: entry.account.clone(), charged, given_back: false };
        doubted.insert(reference.clone(), doubt);
    } else if entry.kind == EntryKind::GivenBack
        && let Some(doubt) = doubted.get_mut(reference)
    {
        doubt.given_back = true;
    }
}

fn compare_doubts(verified: &mut Verified, mut doubted: HashMap<String, Doubted>, listed: Vec<Doubt>) {
    let tell = |account: &AccountId, amount: Credits, given_back: bool| {
        let state = if given_back { "given back" } else { "open" };
        format!("{account}: {amount}, {state}")
    };
    for Doubt { id, account, amount, given_back, .. } in listed {
        let recorded = tell(&account, amount, given_back.is_some());
        let entries = doubted.remove(&id.to_string());
        let computed = entries.map(|doubt| tell(&doubt.account, doubt.charged, doubt.given_back));
        if computed.as_ref() != Some(&recorded) {
            let computed = computed.unwrap_or_else(|| "no entry".to_owned());
            verified.differ(What::InDoubt, Some(&account), None, format!("{id} {recorded}"), computed);
        }
    }
    for (id, doubt) in doubted {
        let computed = tell(&doubt.account, doubt.charged, doubt.given_back);
        verified.differ(What::InDoubt, Some(&doubt.account), None, format!("{id} is not listed"), computed);
    }
}

fn what(account: OperatorAccount) -> What {
    match account {
        OperatorAccount::Granted => What::Granted,
        OperatorAccount::Adjusted => What::Adjusted,
        OperatorAccount::Earned => What::Earned,
    }
}

fn check_account(verified: &mut Verified, row: &AccountRow, chain: Chain) {
    let account = Some(&row.id);
    if row.entries != chain.number {
        verified.differ(What::Number, account, None, row.entries, chain.number);
    }
    if row.balance != chain.balance {
        verified.differ(What::Balance, account, None, row.balance, chain.balance);
    }
    if row.link != chain.link {
        verified.differ(What::LastLink, account, None, row.link, chain.link);
    }
}
