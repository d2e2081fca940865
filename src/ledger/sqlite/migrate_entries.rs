//! Migrates the entries of versions before 0.2, which numbered them over all accounts: writes each anew, in order,
//! numbered and chained per account. If the ledger contradicts itself, it is left unchanged.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::ledger::entry::{EntryKind, Link};
use crate::ledger::sql::db::{Row, Transaction, params};
use crate::ledger::sql::posting::{NewEntry, Posting, operator_accounts};
use crate::ledger::sql::rows::{account_id, credits, entry_kind, link};
use crate::ledger::store::{LedgerError, Result};
use crate::types::{AccountId, AccountNum, Credits, RequestId, RouteNum, WallTime};

/// SQL that gives an empty link to the entries of a version without links, so that one migration serves all versions.
pub(super) const UNCHAINED: &str =
    "INSERT INTO entries SELECT id, at, account, kind, amount, balance_after, route, requests, reference, actor,
         zeroblob(32) FROM old_entries;
     DROP TABLE old_entries;";

const OLD: &str = "SELECT e.id, e.at, e.account, e.kind, e.amount, e.balance_after, e.route, e.requests, e.reference,
                       e.actor, e.link, a.id, r.name
                   FROM old_entries e JOIN accounts a ON a.num = e.account LEFT JOIN routes r ON r.num = e.route
                   ORDER BY e.id";
const SET_ASIDE: &str = "CREATE TEMP TABLE old_balances AS SELECT num, balance, link FROM accounts;
     UPDATE accounts SET balance = 0, link = zeroblob(32);
     UPDATE operator_accounts SET balance = '0';";
const DIFFERENT: &str =
    "SELECT count(*) FROM accounts JOIN old_balances o USING (num) WHERE o.balance != accounts.balance";
const LAST_LINKS: &str = "SELECT num, link FROM old_balances";

/// An entry of an earlier version.
struct OldEntry {
    id: u64,
    at: WallTime,
    account: AccountNum,
    kind: EntryKind,
    amount: Credits,
    balance_after: Credits,
    route: Option<RouteNum>,
    requests: u64,
    reference: Option<String>,
    actor: String,
    link: Link,
    account_id: AccountId,
    route_name: Option<String>,
}

impl OldEntry {
    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            at: WallTime(row.get(1)?),
            account: AccountNum(row.get(2)?),
            kind: entry_kind(row, 3)?,
            amount: credits(row, 4)?,
            balance_after: credits(row, 5)?,
            route: row.get::<Option<u32>>(6)?.map(RouteNum),
            requests: row.get(7)?,
            reference: row.get(8)?,
            actor: row.get(9)?,
            link: link(row, 10)?,
            account_id: account_id(row, 11)?,
            route_name: row.get(12)?,
        })
    }

    /// The link that the entry must have, as version 4 computed it.
    fn expected_link(&self, before: &Link) -> Link {
        let Self { id, at, account_id, amount, balance_after, requests, actor, .. } = self;
        let (kind, route) = (self.kind.name(), self.route_name.as_deref().unwrap_or_default());
        let reference = self.reference.as_deref().unwrap_or_default();
        let text = format!(
            "{before}\t{id}\t{at}\t{account_id}\t{kind}\t{amount}\t{balance_after}\t{route}\t{requests}\t{actor}\t{reference}"
        );
        Link(Sha256::digest(text).into())
    }

    /// The reference as this version writes it: request ids are formatted with other digits.
    fn new_reference(&self) -> Option<String> {
        let reference = self.reference.clone()?;
        match self.kind {
            EntryKind::InDoubt | EntryKind::GivenBack => {
                Some(reference.parse::<RequestId>().map_or(reference, |id| id.to_string()))
            }
            _ => Some(reference),
        }
    }
}

/// Moves `old_entries` into `entries`. Fails if a balance would change or, if `is_chained`, if a link is wrong.
pub(super) fn move_entries(tx: &Transaction<'_>, is_chained: bool) -> Result<()> {
    let count = |sql| tx.one(sql, params![], |row| row.get::<u64>(0));
    let entries = count("SELECT count(*) FROM old_entries")?;
    if entries > 0 {
        tracing::info!(entries, "migrating the ledger; with millions of entries this takes a while");
    }
    let operator_before = operator_accounts(tx)?;
    tx.batch(SET_ASIDE)?;
    let mut last_links: HashMap<AccountNum, Link> = HashMap::new();
    let mut posting = Posting::untold(tx)?;
    tx.each(OLD, params![], |row| {
        let old = OldEntry::read(row)?;
        let last = last_links.entry(old.account).or_default();
        if is_chained && old.expected_link(last) != old.link {
            return Err(refused(&format!("entry {} is not linked to the entry before it", old.id)));
        }
        *last = old.link;
        move_entry(&mut posting, &old)
    })?;
    posting.finish()?;
    if is_chained {
        check_last_links(tx, &last_links)?;
        if operator_accounts(tx)? != operator_before {
            return Err(refused("the operator's accounts are not what the entries add up to"));
        }
    }
    let different = count(DIFFERENT)?;
    tx.batch("DROP TABLE old_balances; DROP TABLE old_entries")?;
    if different > 0 {
        return Err(refused(&format!(
            "the balances of {different} accounts are not what their entries add up to"
        )));
    }
    Ok(())
}

fn move_entry(posting: &mut Posting<'_>, old: &OldEntry) -> Result<()> {
    let reference = old.new_reference();
    let new = NewEntry {
        route: old.route,
        requests: old.requests,
        ..NewEntry::booking(old.kind, old.amount, reference.as_deref(), &old.actor)
    };
    let entry = posting.add(old.account, old.at, &new)?;
    if entry.balance_after != old.balance_after {
        return Err(refused(&format!("entry {} does not match the entries before it", old.id)));
    }
    Ok(())
}

/// Checks that the last entry of each account is the one whose link the account recorded.
fn check_last_links(tx: &Transaction<'_>, last_links: &HashMap<AccountNum, Link>) -> Result<()> {
    tx.each(LAST_LINKS, params![], |row| {
        let (account, recorded) = (AccountNum(row.get(0)?), link(row, 1)?);
        if last_links.get(&account).copied().unwrap_or_default() != recorded {
            return Err(refused(&format!("the last entries of account {} are missing", account.0)));
        }
        Ok(())
    })
}

fn refused(why: &str) -> LedgerError {
    LedgerError::Failed(format!(
        "{why}, so this version cannot migrate the ledger; restore a backup, or use the older version"
    ))
}
