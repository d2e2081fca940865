//! Verifies the ledger against its entries: balances, links, entry numbers, and the operator's accounts.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use serde::Serialize;

use super::entry::{Entry, EntryKind, Link, OperatorAccount, OperatorBalances};
use super::store::{AccountRow, BooksReader, Doubt, Position, Result, each_account};
use crate::policy::credit::Split;
use crate::types::{AccountId, BucketName, Credits};

/// Most differences that are listed. Further ones are only counted.
pub const MAX_LISTED: usize = 10_000;

/// Number of entries that are read in one page.
const PAGE: usize = 1_000;
/// Number of successive entries that cannot be read, after which the verification ends with the error.
const MAX_UNREADABLE: u64 = 1_000;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The entries of an account are not numbered from 1 without a gap, up to the number that the account recorded: an
    /// entry is missing, or out of order.
    Number,
    /// An entry cannot be read.
    Unreadable,
    /// The balance after an entry is not the previous balance plus the entry's amount.
    BalanceAfter,
    /// The link does not match: the entry, or the one before it, was changed.
    Link,
    /// An account's balance is not the balance after its last entry.
    Balance,
    /// An account's last entry is not the one whose link the account recorded.
    LastLink,
    /// The list of holds in doubt does not match the entries.
    InDoubt,
    /// The balance of the operator's account `granted`, in millionths, does not match the entries.
    Granted,
    /// The same as [`What::Granted`], for the account `adjusted`.
    Adjusted,
    /// The same as [`What::Granted`], for the account `earned`.
    Earned,
    /// The same as [`What::Granted`], for the account `expired`.
    Expired,
    /// What an account has in a bucket is not the sum of its entries for that bucket.
    Bucket,
    /// The sum over all accounts, in millionths, is not zero.
    Sum,
}

/// A difference between a recorded value and the value computed from the entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The kind of the difference.
    pub what: What,
    /// The account; `None` for the operator's accounts and for an entry that cannot be read.
    pub account: Option<AccountId>,
    /// The number of the entry, or its position if it cannot be read; `None` if the difference is not in an entry.
    pub entry: Option<u64>,
    /// The value that is recorded.
    pub recorded: String,
    /// The value computed from the entries.
    pub computed: String,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Number of accounts.
    pub accounts: u64,
    /// Number of entries.
    pub entries: u64,
    /// Number of differences.
    pub found: u64,
    /// The differences, at most [`MAX_LISTED`]; empty if the ledger is consistent.
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

/// The number, balance and link after the last entry of an account that was checked.
#[derive(Clone, Default)]
struct Chain {
    number: u64,
    balance: Credits,
    link: Link,
    /// The sums by bucket; without those of the default bucket of an account that has no other.
    buckets: Split,
}

/// A hold in doubt, according to the entries.
struct Doubted {
    account: AccountId,
    charged: Credits,
    given_back: bool,
}

/// Reads all entries once and checks them. Memory grows with the number of accounts and holds in doubt, not with the
/// number of entries.
///
/// After an entry that differs, the check continues with the values recorded in that entry, so that each damaged entry
/// is reported and correct entries after it are not.
///
/// # Errors
/// If the store cannot be read.
pub fn verify(reader: &mut dyn BooksReader) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut chains: HashMap<AccountId, Chain> = HashMap::new();
    let mut computed = OperatorBalances::default();
    let mut doubted: HashMap<String, Doubted> = HashMap::new();
    reader.freeze()?; // so that entries and balances are of the same time
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
        let chain = chains.get(&row.id).cloned().unwrap_or_default();
        check_account(&mut verified, &row, &chain);
        ControlFlow::Continue(())
    })?;
    compare_buckets(&mut verified, chains, reader.buckets()?);
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

/// Calls `each` with every entry in order, or with the position of an entry that cannot be read.
fn each_readable(reader: &mut dyn BooksReader, mut each: impl FnMut(Result<&Entry, Position>)) -> Result<()> {
    // If a page cannot be read, its entries are read one by one.
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
    for (bucket, part) in entry.split.parts().filter(|(bucket, _)| !bucket.is_default()) {
        chain.buckets.add(bucket, part);
    }
    (chain.number, chain.balance, chain.link) = (entry.number, entry.balance_after, entry.link);
}

/// Compares what accounts have in buckets with the sums of their entries, except in the default bucket.
fn compare_buckets(
    verified: &mut Verified,
    chains: HashMap<AccountId, Chain>,
    recorded: Vec<(AccountId, BucketName, Credits)>,
) {
    let mut computed: BTreeMap<(AccountId, BucketName), Credits> = BTreeMap::new();
    let mut defaults: HashMap<AccountId, Credits> = HashMap::new();
    for (account, chain) in chains {
        let others = chain.buckets.parts().map(|(_, sum)| sum);
        let default = others.fold(chain.balance, |left, part| left.checked_sub(part).unwrap_or(left));
        defaults.insert(account.clone(), default);
        for (bucket, sum) in chain.buckets.parts().filter(|(_, sum)| !sum.is_zero()) {
            computed.insert((account.clone(), bucket.clone()), sum);
        }
    }
    for (account, bucket, recorded) in recorded {
        if bucket.is_default() {
            // Not all of the default bucket is in lots.
            let most = defaults.get(&account).copied().unwrap_or_default();
            if recorded > most {
                let name = |amount| format!("{bucket}: {amount}");
                verified.differ(What::Bucket, Some(&account), None, name(recorded), name(most));
            }
            continue;
        }
        let computed = computed.remove(&(account.clone(), bucket.clone())).unwrap_or_default();
        if recorded != computed {
            let name = |amount| format!("{bucket}: {amount}");
            verified.differ(What::Bucket, Some(&account), None, name(recorded), name(computed));
        }
    }
    for ((account, bucket), sum) in computed {
        let name = |amount| format!("{bucket}: {amount}");
        verified.differ(What::Bucket, Some(&account), None, name(Credits::ZERO), name(sum));
    }
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
        OperatorAccount::Expired => What::Expired,
    }
}

fn check_account(verified: &mut Verified, row: &AccountRow, chain: &Chain) {
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
