//! Writes one fold: adds entries for the charges, changes balances, and stores which holds are open.

pub(super) mod jobs;
pub(in crate::ledger) mod repeats;
pub(super) mod requests;
pub(in crate::ledger) mod shared_jobs;

use super::db::{Connection, Transaction, params};
use super::posting::{NewEntry, Posting};
use super::rows::id_blob;
use crate::ledger::entry::EntryKind;
use crate::ledger::store::{LedgerError, Place, Result};
use crate::ledger::tally::{ChargeKey, ChargeSum, Fold, OpenHold};
use crate::types::{Credits, RequestId, WallTime};

/// True if a fold was written.
pub(super) fn is_folded(connection: &Connection, fold: &Fold) -> Result<bool> {
    let sql = "SELECT folded FROM nodes WHERE num = ?1";
    Ok(connection.one(sql, params![connection.node()], |row| row.get::<u64>(0))? >= fold.upto)
}

pub(in crate::ledger) fn fold(tx: &Transaction<'_>, fold: &Fold, at: WallTime) -> Result<()> {
    let folded: u64 =
        tx.one("SELECT folded FROM nodes WHERE num = ?1", params![tx.node()], |row| row.get(0))?;
    if !fold.charges.is_empty() && fold.upto <= folded {
        return Err(LedgerError::Failed("these batches stand in the entries already".to_owned()));
    }
    tx.run("UPDATE nodes SET folded = ?2 WHERE num = ?1", params![tx.node(), fold.upto])?;
    let mut posting = Posting::start(tx)?;
    let charged = fold.charges.iter().map(|(of, _)| (of.account, of.key));
    posting.read_ahead(charged.chain(fold.doubts.iter().map(|hold| (hold.account, hold.key))))?;
    for (key, sum) in &fold.charges {
        write_charges(&mut posting, *key, *sum, at)?;
    }
    store_holds(tx, &fold.closed, &fold.opened)?;
    shared_jobs::share(tx, &fold.shared)?;
    jobs::write(tx, &fold.jobs)?;
    repeats::write(tx, &fold.claims)?;
    requests::write(tx, &fold.requests)?;
    for hold in &fold.doubts {
        charge_in_doubt(tx, &mut posting, hold, at)?;
    }
    posting.finish()
}

fn write_charges(posting: &mut Posting<'_>, of: ChargeKey, sum: ChargeSum, at: WallTime) -> Result<()> {
    let amount = Credits::ZERO.checked_sub(sum.amount);
    let amount = amount.ok_or_else(|| LedgerError::Failed("a charge overflows".to_owned()))?;
    let both = [(EntryKind::Charge, amount, sum.requests), (EntryKind::Release, Credits::ZERO, sum.released)];
    for (kind, amount, requests) in both.into_iter().filter(|(.., requests)| *requests > 0) {
        let new = NewEntry {
            key: Some(of.key),
            route: Some(of.route),
            outcome: Some(of.outcome),
            requests,
            place: Place::Any(of.held),
            ..NewEntry::booking(kind, amount, None, "requests")
        };
        posting.add(of.account, at, &new)?;
    }
    Ok(())
}

/// Deletes stored holds that are settled, and stores those that are open after the fold.
fn store_holds(tx: &Transaction<'_>, closed: &[RequestId], opened: &[OpenHold]) -> Result<()> {
    for id in closed {
        tx.run("DELETE FROM open_holds WHERE id = ?1", params![id_blob(*id)])?;
    }
    opened.iter().try_for_each(|hold| write_hold(tx, hold, tx.node()))
}

/// Stores an open hold of a gateway.
fn write_hold(tx: &Transaction<'_>, hold: &OpenHold, node: i64) -> Result<()> {
    let insert = "INSERT INTO open_holds
                      (id, account, key, route, amount, at, external_id, deadline, charge_at_deadline, node)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                  ON CONFLICT (id) DO UPDATE SET account = excluded.account, key = excluded.key,
                      route = excluded.route, amount = excluded.amount, at = excluded.at,
                      external_id = excluded.external_id, deadline = excluded.deadline,
                      charge_at_deadline = excluded.charge_at_deadline, node = excluded.node";
    let kept = hold.kept.as_deref();
    let values = params![
        id_blob(hold.id),
        hold.account.0,
        hold.key.0,
        hold.route.0,
        hold.amount.millionths(),
        hold.at.0,
        kept.map(|kept| kept.external_id.as_str()),
        kept.map(|kept| kept.deadline.0),
        kept.map(|kept| kept.charge_at_deadline.millionths()),
        node,
    ];
    tx.run(insert, values)
}

/// Charges in full a hold that a crash left open, and adds it to the list of holds in doubt.
fn charge_in_doubt(
    tx: &Transaction<'_>,
    posting: &mut Posting<'_>,
    hold: &OpenHold,
    at: WallTime,
) -> Result<()> {
    let insert = "INSERT INTO in_doubt (id, account, key, route, amount, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (id, amount) = (id_blob(hold.id), hold.amount.millionths());
    let values = params![id, hold.account.0, hold.key.0, hold.route.0, amount, hold.at.0];
    tx.run(insert, values)?;
    let (amount, reference) = (Credits::from_millionths(-amount), hold.id.to_string());
    let new = NewEntry {
        key: Some(hold.key),
        route: Some(hold.route),
        requests: 1,
        place: Place::Any(Some(hold.at)),
        ..NewEntry::booking(EntryKind::InDoubt, amount, Some(&reference), "recovery")
    };
    posting.add(hold.account, at, &new)?;
    Ok(())
}
