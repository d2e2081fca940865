//! Tests that files of older versions are migrated, or left unchanged.

use super::*;
use crate::ledger::sqlite;
use crate::ledger::verify::verify;
use crate::types::WallTime;

/// Creates a file as version 3 wrote it, with one account and three entries. `balance` is the last balance.
fn old_file(path: &Path, balance: i64) {
    let connection = Connection::sqlite(rusqlite::Connection::open(path).unwrap());
    migrate_upto(&connection, 0, 3).unwrap();
    connection
        .raw()
        .unwrap()
        .execute_batch(&format!(
            "INSERT INTO accounts (num, id, balance, source, opening, created) VALUES (1, 'acme', {balance}, 'file', 100, 1);
             INSERT INTO routes (num, name) VALUES (1, 'people.enrich');
             INSERT INTO entries (at, account, kind, amount, balance_after, route, requests, reference, actor) VALUES
                 (1, 1, 'grant', 100, 100, NULL, 0, 'opening', 'file'),
                 (2, 1, 'charge', -30, 70, 1, 3, NULL, 'requests'),
                 (3, 1, 'adjustment', -5, {balance}, NULL, 0, 'typo', 'command');"
        ))
        .unwrap();
}

#[test]
fn entries_of_an_older_version_are_carried_over_and_chained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    old_file(&path, 65);
    let mut store = sqlite::open(&path).unwrap();
    let folded = store.books.load(WallTime(0)).unwrap().folded;
    assert_eq!(store.journal.read(folded).unwrap(), []);
    let mut reader = store.books.reader().unwrap();
    let verified = verify(&mut *reader).unwrap();
    assert_eq!((verified.entries, verified.differences), (3, vec![]));
    assert_eq!(reader.accounts(None, 9).unwrap()[0].balance.millionths(), 65);
    let operator = reader.operator_accounts().unwrap();
    assert_eq!((operator.granted, operator.adjusted, operator.earned), (-100, 5, 30));
    let references: Vec<_> = reader
        .entries(None, 0, 9)
        .unwrap()
        .into_iter()
        .map(|(_, entry)| (entry.at, entry.reference))
        .collect();
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(
        references,
        [(WallTime(1), said("opening")), (WallTime(2), None), (WallTime(3), said("typo"))]
    );
}

/// Only the account's balance records this difference, so the migration must not overwrite it.
#[test]
fn a_balance_that_no_entry_explains_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    old_file(&path, 65);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE accounts SET balance = 64", []).unwrap();
    let error = sqlite::open(&path).map(drop).unwrap_err().to_string();
    assert!(error.contains("the balances of 1 accounts"), "{error}");
    let balance: i64 = connection.query_row("SELECT balance FROM accounts", [], |row| row.get(0)).unwrap();
    assert_eq!(balance, 64);
}

#[test]
fn books_that_contradict_themselves_are_left_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    old_file(&path, 66);
    for _ in 0..2 {
        let error = sqlite::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("entry 3 does not match") && error.contains("restore a backup"), "{error}");
    }
    let connection = rusqlite::Connection::open(&path).unwrap();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let entries: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
    assert_eq!((version, entries), (3, 3));
}
