//! Migrates the journal of versions before 0.2: folds it completely, by the rules of those versions, and starts an
//! empty one.
//!
//! Those versions wrote a large fold in parts, and recorded up to which account and route the charges were written. A
//! crash between two parts left such a record; the charges that it covers are not written twice.

use std::path::Path;

use super::journal_files::{FileJournal, OLD_MAGIC};
use crate::ledger::record::Record;
use crate::ledger::sql::db::{Connection, params};
use crate::ledger::sql::{folding, read};
use crate::ledger::store::{JournalRow, LedgerError, Result};
use crate::ledger::tally::{Fold, OpenHold, Tally};
use crate::policy::limit::take_array;
use crate::types::{AccountNum, Credits, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// The batch, and the account and route, up to which an interrupted fold was written.
type Part = (u64, (AccountNum, RouteNum));

/// Folds the journal of an earlier version, if this file was just migrated from one.
///
/// # Errors
/// If the journal is damaged, or the entries cannot be written. Nothing has changed then.
pub(super) fn fold_old_journal(connection: &mut Connection, ledger: &Path, mark: i64) -> Result<()> {
    let Some((folded, part)) = old_state(connection)? else { return Ok(()) };
    let open = read::open_holds(connection)?;
    let mut journal = FileJournal::open(ledger, mark, None)?;
    let mut rows = old_rows(connection)?;
    rows.extend(journal.read_version(OLD_MAGIC, folded)?);
    for (_, _, records) in &mut rows {
        *records = convert(records).ok_or_else(|| contradicts(&"it contains an invalid record"))?;
    }
    let at = rows.iter().map(|(_, at, _)| *at).chain(open.iter().map(|hold| hold.at)).max();
    let mut fold = tally(&open, folded, &rows)?.recover();
    if let Some((upto, through)) = part {
        fold.upto = fold.upto.max(upto);
        let rows: Vec<JournalRow> = rows.into_iter().filter(|(seq, ..)| *seq <= upto).collect();
        remove_written(&mut fold, &tally(&open, folded, &rows)?.fold(), through);
    }
    connection.transaction(|tx| {
        folding::fold(tx, &fold, at.unwrap_or_default())?;
        tx.batch("DROP TABLE old_state; DROP TABLE old_journal")
    })?;
    journal.remove_files();
    Ok(())
}

fn old_state(connection: &Connection) -> Result<Option<(u64, Option<Part>)>> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'old_state'";
    if !connection.exists(exists, params![])? {
        return Ok(None);
    }
    let sql = "SELECT folded, part_upto, part_account, part_route FROM old_state";
    let state = connection.one(sql, params![], |row| {
        let part = match row.get(1)? {
            Some(upto) => Some((upto, (AccountNum(row.get(2)?), RouteNum(row.get(3)?)))),
            None => None,
        };
        Ok((row.get(0)?, part))
    });
    state.map(Some)
}

/// Reads the batches of a version that stored them in a table.
fn old_rows(connection: &Connection) -> Result<Vec<JournalRow>> {
    let sql = "SELECT seq, at, records FROM old_journal ORDER BY seq";
    connection.all(sql, params![], |row| Ok((row.get(0)?, WallTime(row.get(1)?), row.get(2)?)))
}

fn tally(open: &[OpenHold], folded: u64, rows: &[JournalRow]) -> Result<Tally> {
    let mut tally = Tally::new(open.to_vec(), folded);
    for (seq, at, records) in rows {
        tally.apply(*seq, *at, records).map_err(|error| contradicts(&error))?;
    }
    Ok(tally)
}

fn contradicts(error: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Unusable(format!("the ledger contradicts itself: {error}"))
}

/// Removes from a fold the charges that an interrupted earlier fold has written, which are those up to `through`.
fn remove_written(fold: &mut Fold, earlier: &Fold, through: (AccountNum, RouteNum)) {
    for (key, written) in &earlier.charges {
        if (key.account, key.route) > through {
            continue;
        }
        if let Some((_, sum)) = fold.charges.iter_mut().find(|(other, _)| other == key) {
            sum.amount = sum.amount.checked_sub(written.amount).unwrap_or_default();
            sum.requests -= written.requests.min(sum.requests);
            sum.released -= written.released.min(sum.released);
        }
    }
    fold.charges.retain(|(_, sum)| sum.requests > 0 || sum.released > 0);
}

/// Converts the records of an earlier version, which had no length and no outcome; `None` if they are invalid.
fn convert(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let (bytes, mut converted) = (&mut bytes, Vec::new());
    while !bytes.is_empty() {
        let [kind] = take_array(bytes)?;
        let id = RequestId(u128::from_le_bytes(take_array(bytes)?));
        let record = match kind {
            b'H' => Record::Hold {
                id,
                account: AccountNum(u32::from_le_bytes(take_array(bytes)?)),
                key: KeyNum(u32::from_le_bytes(take_array(bytes)?)),
                route: RouteNum(u32::from_le_bytes(take_array(bytes)?)),
                amount: Credits::from_millionths(i64::from_le_bytes(take_array(bytes)?)),
            },
            b'S' => {
                let charge = Credits::from_millionths(i64::from_le_bytes(take_array(bytes)?));
                Record::Settle { id, charge, outcome: StatusClass::None }
            }
            _ => return None,
        };
        record.write(&mut converted);
    }
    Some(converted)
}
