//! Journal → entries, balances and open holds: what one fold, or a part of it, writes.

use rusqlite::{Transaction, params};

use super::posting::{NewEntry, Posting};
use super::rows::{failed, hold_params, id_blob};
use crate::ledger::entry::EntryKind;
use crate::ledger::fold::{Charges, Fold, OpenHold};
use crate::ledger::store::{LedgerError, Result};
use crate::types::{Credits, RequestId, WallTime};

pub(super) fn fold(tx: &Transaction<'_>, fold: &Fold, at: WallTime) -> Result<()> {
    mark(tx, fold)?;
    let mut posting = Posting::begin(tx)?;
    charges(&mut posting, &fold.charges, at)?;
    holds(tx, &fold.closed, &fold.opened)?;
    for hold in &fold.doubts {
        doubt(tx, &mut posting, hold, at)?;
    }
    posting.finish()
}

/// How far the entries are: a batch is never folded twice, and one fold ends before another begins.
fn mark(tx: &Transaction<'_>, fold: &Fold) -> Result<()> {
    let folded: u64 = tx.query_row("SELECT folded FROM journal", [], |row| row.get(0)).map_err(failed)?;
    if !fold.charges.is_empty() && fold.upto <= folded {
        return Err(LedgerError::Failed("these batches stand in the entries already".to_owned()));
    }
    match fold.through {
        Some((account, route)) => {
            let part = "UPDATE journal SET part_upto = ?1, part_account = ?2, part_route = ?3
                        WHERE part_upto IS NULL OR part_upto = ?1";
            if tx.execute(part, params![fold.upto, account.0, route.0]).map_err(failed)? == 0 {
                return Err(LedgerError::Failed("another fold is not finished".to_owned()));
            }
        }
        None => {
            let whole =
                "UPDATE journal SET folded = ?1, part_upto = NULL, part_account = NULL, part_route = NULL";
            tx.execute(whole, [fold.upto]).map_err(failed)?;
            tx.execute("DELETE FROM old_journal WHERE seq <= ?1", [fold.upto]).map_err(failed)?;
        }
    }
    Ok(())
}

fn charges(posting: &mut Posting<'_>, charges: &Charges, at: WallTime) -> Result<()> {
    for &((account, route), sum) in charges {
        let (route, reference, actor) = (Some(route), None, "requests");
        if sum.requests > 0 {
            let amount = Credits::ZERO.checked_sub(sum.amount);
            let amount = amount.ok_or_else(|| LedgerError::Failed("a charge overflows".to_owned()))?;
            let (kind, requests) = (EntryKind::Charge, sum.requests);
            posting.add(account, at, &NewEntry { kind, amount, route, requests, reference, actor })?;
        }
        if sum.released > 0 {
            let (kind, amount, requests) = (EntryKind::Release, Credits::ZERO, sum.released);
            posting.add(account, at, &NewEntry { kind, amount, route, requests, reference, actor })?;
        }
    }
    Ok(())
}

/// Holds that are open beyond the fold are remembered.
fn holds(tx: &Transaction<'_>, closed: &[RequestId], opened: &[OpenHold]) -> Result<()> {
    for id in closed {
        let mut delete = tx.prepare_cached("DELETE FROM open_holds WHERE id = ?1").map_err(failed)?;
        delete.execute([id_blob(*id)]).map_err(failed)?;
    }
    for hold in opened {
        let insert =
            "INSERT INTO open_holds (id, account, key, route, amount, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = tx.prepare_cached(insert).map_err(failed)?;
        insert.execute(hold_params!(hold)).map_err(failed)?;
    }
    Ok(())
}

/// A hold that a crash left open is charged in full, and listed.
fn doubt(tx: &Transaction<'_>, posting: &mut Posting<'_>, hold: &OpenHold, at: WallTime) -> Result<()> {
    let insert = "INSERT INTO in_doubt (id, account, key, route, amount, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = tx.prepare_cached(insert).map_err(failed)?;
    insert.execute(hold_params!(hold)).map_err(failed)?;
    let amount = Credits::from_millionths(-hold.amount.millionths());
    let (reference, kind) = (hold.id.to_string(), EntryKind::InDoubt);
    let (route, reference) = (Some(hold.route), Some(reference.as_str()));
    let new = NewEntry { kind, amount, route, requests: 1, reference, actor: "recovery" };
    posting.add(hold.account, at, &new)?;
    Ok(())
}
