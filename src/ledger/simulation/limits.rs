//! Spending limits in the simulation: of a key, of a group of keys, and of an account. They are only raised, so that what is
//! spent on disk never exceeds the highest one that was asked for.

use std::collections::BTreeMap;

use super::judge::Durable;
use crate::ledger::memory::MemoryStore;
use crate::ledger::memory::keys::plain_key;
use crate::ledger::store::{Books, KeyChange, KeyEdit, KeyRow, KeyTerms, Result, SecretRow, no_notes};
use crate::ledger::threads::{BooksThread, Job, Shared};
use crate::policy::credit::{SpendLimit, Spending};
use crate::types::{AccountId, AccountNum, Credits, GroupName, KeyHash, KeyId, KeyNum, WallTime};

/// The limits at the start, in millionths.
const FIRST: i64 = 90;
/// The accounts with a limit: of its key, of its group, and of the account.
const LIMITED: std::ops::RangeInclusive<usize> = 1..=3;

/// The key of an account.
pub(super) fn key_of(account: usize) -> KeyNum {
    KeyNum(u32::try_from(account + 1).expect("few accounts"))
}

fn number(account: usize) -> AccountNum {
    AccountNum(key_of(account).0)
}

fn id(account: usize) -> AccountId {
    format!("a{account}").parse().expect("an id")
}

fn group() -> GroupName {
    "g".parse().expect("a name")
}

fn limit(millionths: i64) -> SpendLimit {
    SpendLimit { credits: Credits::from_millionths(millionths), every: None }
}

/// What is spent on disk, by account, and what may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Spent {
    /// Charges and open holds, less what was given back.
    spent: BTreeMap<AccountNum, i64>,
    /// The highest limit that was asked for.
    most: BTreeMap<AccountNum, i64>,
}

impl Spent {
    pub(super) fn add(&mut self, account: AccountNum, millionths: i64) {
        *self.spent.entry(account).or_default() += millionths;
    }

    /// No limit is exceeded, whenever the power goes.
    pub(super) fn is_within_limits(&self) {
        for (account, most) in &self.most {
            let spent = self.spent.get(account).copied().unwrap_or_default();
            assert!(spent <= *most, "{account:?} has spent {spent} of {most}");
        }
    }

    /// After a start, each cap leaves what its limit does, less what is spent on disk.
    pub(super) fn agrees(&self, shared: &Shared) {
        for account in LIMITED {
            let purse = shared.purses.get(number(account));
            let caps = shared.caps_of(key_of(account), purse.as_ref());
            let all: Vec<_> = caps.key.own.iter().chain(&caps.key.group).chain(&caps.account).collect();
            assert_eq!(all.len(), 1, "account {account} has one limit");
            let spent = self.spent.get(&number(account)).copied().unwrap_or_default();
            let left = all[0].limit().credits.millionths() - spent;
            assert_eq!(all[0].left().millionths(), left, "what is left of the limit of account {account}");
        }
    }
}

/// Creates the keys and the limits.
pub(super) fn set_up(books: &mut MemoryStore, durable: &mut Durable) -> Result<()> {
    let at = WallTime(0);
    books.change_group(&id(2), &group(), Some(limit(FIRST)), &no_notes(), at)?;
    let key = |account: usize| {
        let mut spending = Spending::default();
        spending.set_limit((account == 1).then(|| limit(FIRST)), at);
        KeyRow {
            spending,
            group: (account == 2).then(group),
            secrets: vec![SecretRow { hash: KeyHash::of(&account.to_le_bytes()), until: None }],
            ..plain_key(KeyId(u64::from(key_of(account).0)), number(account), at)
        }
    };
    let numbers = books.create_keys(&LIMITED.map(key).collect::<Vec<_>>(), &no_notes(), at)?;
    assert_eq!(numbers, LIMITED.map(key_of).collect::<Vec<_>>());
    books.limit_accounts(&[(number(3), Some(limit(FIRST)))], at)?;
    durable.spent.most = LIMITED.map(|account| (number(account), FIRST)).collect();
    Ok(())
}

/// Notes that a limit is asked for, and returns the job that raises it. `account`: one of those with a limit.
pub(super) fn raise(account: usize, by: i64, durable: &mut Durable) -> Job {
    let most = durable.spent.most.entry(number(account)).or_default();
    *most += by;
    let wanted = limit(*most);
    Box::new(move |books: &mut BooksThread| match account {
        1 => {
            let terms = KeyTerms { spend_limit: Some(wanted), ..KeyTerms::default() };
            let edit = KeyEdit { version: None, change: KeyChange::Terms(terms) };
            drop(books.change_key(KeyId(2), &edit, &no_notes()));
        }
        2 => drop(books.change_group(&id(2), &group(), Some(wanted), &no_notes())),
        _ => drop(books.limit_accounts(&[(number(3), Some(wanted))])),
    })
}
