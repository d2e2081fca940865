//! Tests that changes to the ledger from outside are found: whatever an entry has that was not written.

use fastrand::Rng;
use rusqlite::types::Value;
use rusqlite::{Connection, params};
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{Storage, no_notes};
use tollgate::ledger::verify::{Verified, What, verify};

use tollgate::types::{RequestId, WallTime};

use crate::Call;
use crate::driver::driver;

const ENTRIES: u64 = 120;
/// Number of bits that are flipped, one at a time.
const FLIPS: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
const COLUMNS: [&str; 13] = [
    "number",
    "at",
    "account",
    "kind",
    "amount",
    "balance_after",
    "key",
    "route",
    "outcome",
    "requests",
    "reference",
    "actor",
    "link",
];

/// Creates and closes a ledger with entries of every kind. Returns its folder and its path.
fn books() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut store = sqlite::open(&path).unwrap();
    let mut driver = driver(&mut store);
    let accounts = (0..4).map(|number| (number, Some(1_000_000))).collect();
    driver.run(&Call::Register { accounts, keys: vec![(0, 0)], routes: vec![0, 1] });
    let mut reference = 0;
    while driver.store.books.reader().unwrap().entries(None, ENTRIES - 1, 1).unwrap().is_empty() {
        driver.run(&Call::Holds(vec![(0, 9, Some(4)), (1, 9, Some(0)), (2, 7, None), (3, 5, Some(5))]));
        driver.run(if reference % 3 == 0 { &Call::Recover } else { &Call::Fold });
        let (account, adjustment) = (reference % 4, reference % 2 == 0);
        driver.run(&Call::Book { account, adjustment, amount: 3, reference });
        driver.run(&Call::GiveBack(reference));
        reference += 1;
    }
    let fold = driver.tally.recover();
    driver.fold(fold, WallTime(9));
    drop(store);
    (folder, path)
}

fn verified(store: &Storage) -> Verified {
    verify(&mut *store.books.reader().unwrap()).unwrap()
}

/// The same value with one bit changed; `None` if the value has no bits.
fn flipped(value: Value, random: u64) -> Option<Value> {
    let flip = |bytes: &mut Vec<u8>| {
        let bits = bytes.len() * 8;
        let bit = usize::try_from(random).unwrap_or_default().checked_rem(bits)?;
        bytes[bit / 8] ^= 1 << (bit % 8);
        Some(())
    };
    match value {
        Value::Integer(number) => Some(Value::Integer(number ^ 1 << (random % 64))),
        Value::Text(text) => {
            let mut bytes = text.into_bytes();
            flip(&mut bytes)?;
            Some(Value::Blob(bytes)) // converted to text again when it is written
        }
        Value::Blob(mut bytes) => flip(&mut bytes).map(|()| Value::Blob(bytes)),
        Value::Null | Value::Real(_) => None,
    }
}

#[test]
fn a_flipped_bit_in_any_entry_is_found() {
    let (_folder, path) = books();
    let store = sqlite::open(&path).unwrap();
    assert_eq!(verified(&store).differences, []);
    let tamperer = Connection::open(&path).unwrap();
    tamperer.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let mut random = Rng::with_seed(4);
    let mut flips = 0;
    while flips < FLIPS {
        let (position, column) = (random.u64(1..=ENTRIES), COLUMNS[random.usize(..COLUMNS.len())]);
        let read = format!("SELECT {column} FROM entries WHERE position = ?1");
        let before: Value = tamperer.query_row(&read, [position], |row| row.get(0)).unwrap();
        let Some(after) = flipped(before.clone(), random.u64(..)) else { continue };
        let cast = if matches!(before, Value::Text(_)) { "CAST(?2 AS TEXT)" } else { "?2" };
        let write = format!("UPDATE entries SET {column} = {cast} WHERE position = ?1");
        if tamperer.execute(&write, params![position, after]).is_err() {
            continue; // fails if another entry has this number
        }
        let found = verify(&mut *store.books.reader().unwrap()).unwrap().found;
        assert!(found > 0, "a bit of {column} of entry {position}: {before:?} became {after:?}");
        let write = format!("UPDATE entries SET {column} = ?2 WHERE position = ?1");
        tamperer.execute(&write, params![position, before]).unwrap();
        flips += 1;
    }
    assert_eq!(verified(&store).differences, [], "all were flipped back");
}

/// Changes the ledger with SQL. Returns the kinds of differences that are then found.
fn after(sql: &str) -> Vec<What> {
    let (_folder, path) = books();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let store = sqlite::open(&path).unwrap();
    verified(&store).differences.into_iter().map(|difference| difference.what).collect()
}

#[test]
fn a_missing_entry_is_found_wherever_it_stood() {
    let found = after("DELETE FROM entries WHERE position = 50");
    assert!(found.contains(&What::Number) && found.contains(&What::Link), "{found:?}");
    let found = after("DELETE FROM entries WHERE position = (SELECT max(position) FROM entries)");
    assert!(found.contains(&What::LastLink), "{found:?}");
}

/// Giving a hold back pays what was charged for it, whatever the list of holds in doubt says.
#[test]
fn a_list_of_holds_in_doubt_that_was_changed_is_found_and_pays_nothing() {
    let one = "(SELECT id FROM in_doubt WHERE given_back IS NULL AND amount > 0 LIMIT 1)";
    for sql in [
        format!("UPDATE in_doubt SET amount = amount * 10 WHERE id = {one}"),
        format!("DELETE FROM in_doubt WHERE id = {one}"),
        "UPDATE in_doubt SET given_back = NULL WHERE given_back IS NOT NULL".to_owned(),
        format!(
            "INSERT INTO in_doubt SELECT randomblob(16), account, key, route, 1000, at, NULL FROM in_doubt WHERE id = {one}"
        ),
    ] {
        let found = after(&sql);
        assert!(!found.is_empty() && found.iter().all(|what| *what == What::InDoubt), "{sql}: {found:?}");
    }
    let (_folder, path) = books();
    let tamperer = Connection::open(&path).unwrap();
    let id: [u8; 16] = tamperer.query_row(&format!("SELECT {one}"), [], |row| row.get(0)).unwrap();
    let charged: i64 =
        tamperer.query_row("SELECT amount FROM in_doubt WHERE id = ?1", [id], |row| row.get(0)).unwrap();
    tamperer.execute("UPDATE in_doubt SET amount = amount * 10 WHERE id = ?1", [id]).unwrap();
    drop(tamperer);
    let mut store = sqlite::open(&path).unwrap();
    let given =
        store.books.give_back(RequestId(u128::from_be_bytes(id)), "test", &no_notes(), WallTime(1)).unwrap();
    assert_eq!(given.entry.amount.millionths(), charged);
}

#[test]
fn entries_in_another_order_are_found() {
    let two = "(SELECT max(position) FROM entries WHERE account = 1 AND position < 100)";
    let found = after(&format!(
        "CREATE TEMP TABLE pair AS SELECT {two} AS a, (SELECT max(position) FROM entries WHERE account = 1 AND position < {two}) AS b;
         UPDATE entries SET position = -1 WHERE position = (SELECT a FROM pair);
         UPDATE entries SET position = (SELECT a FROM pair) WHERE position = (SELECT b FROM pair);
         UPDATE entries SET position = (SELECT b FROM pair) WHERE position = -1;"
    ));
    assert!(found.contains(&What::Number), "{found:?}");
}

/// Removing an account's last entry and resetting its balance is still found: the operator's accounts no longer match.
#[test]
fn a_tail_that_was_cut_with_care_is_found_by_the_other_half() {
    let found = after(
        "UPDATE accounts SET (balance, link, entries) =
             (SELECT balance_after, link, number FROM entries WHERE account = 1 AND number <
                 (SELECT max(number) FROM entries WHERE account = 1 AND amount != 0) ORDER BY number DESC LIMIT 1) WHERE num = 1;
         DELETE FROM entries WHERE account = 1 AND number >= (SELECT max(number) FROM entries WHERE account = 1 AND amount != 0);",
    );
    assert!(found.contains(&What::Sum), "{found:?}");
}
