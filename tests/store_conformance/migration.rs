//! Tests that a ledger of version 0.1, killed while requests were in flight, is migrated exactly. The fixture was made
//! by that version's own program. The expected figures are those that the program printed after its own recovery.

use std::path::Path;

use rusqlite::Connection;
use tollgate::ledger::sqlite;
use tollgate::ledger::store::{Storage, no_notes};
use tollgate::ledger::verify::verify;
use tollgate::types::WallTime;

use crate::ALL;
use crate::driver::start;

/// The fixture's sums as version 0.1 computed them: by account, kind and route, in millionths, with numbers of
/// requests.
const SUMS: [(&str, &str, &str, i64, u64); 13] = [
    ("acme", "charge", "fixed", -26_000_000, 26),
    ("acme", "charge", "priced", -78_500_000, 37),
    ("acme", "grant", "", 1_012_345_678, 0),
    ("acme", "in_doubt", "priced", -5_000_000, 1),
    ("acme", "release", "fixed", 0, 4),
    ("acme", "release", "priced", 0, 8),
    ("beta", "adjustment", "", -3_500_000, 0),
    ("beta", "charge", "fixed", -38_000_000, 38),
    ("beta", "charge", "priced", -51_250_000, 25),
    ("beta", "grant", "", 500_500_000, 0),
    ("beta", "in_doubt", "priced", -5_000_000, 1),
    ("beta", "release", "fixed", 0, 7),
    ("beta", "release", "priced", 0, 5),
];

/// Writes the fixture as the files of a ledger. Returns the path of the ledger.
fn files(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("ledger.db");
    let sql = include_str!("../fixtures/ledger-0.1/ledger.sql");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let journal = include_bytes!("../fixtures/ledger-0.1/journal-0");
    std::fs::write(folder.join("ledger.db.journal-0"), journal).unwrap();
    path
}

/// Account, kind, route, millionths and requests.
type Sum = (String, String, String, i64, u64);

/// Balances, sums, and holds in doubt that are still open.
fn figures(storage: &mut Storage) -> (Vec<(String, i64)>, Vec<Sum>, usize) {
    start(storage, WallTime(0));
    let mut reader = storage.books.reader().unwrap();
    assert_eq!(verify(&mut *reader).unwrap().differences, []);
    let rows = reader.accounts(None, ALL).unwrap();
    let balances = rows.iter().map(|row| (row.id.to_string(), row.balance.millionths())).collect();
    let mut sums = std::collections::BTreeMap::new();
    for (_, entry) in reader.entries(None, 0, ALL).unwrap() {
        let route = entry.route.unwrap_or_default();
        let sum: &mut (i64, u64) =
            sums.entry((entry.account.to_string(), entry.kind.name().to_owned(), route)).or_default();
        (sum.0, sum.1) = (sum.0 + entry.amount.millionths(), sum.1 + entry.requests);
    }
    let sums = sums
        .into_iter()
        .map(|((account, kind, route), (amount, requests))| (account, kind, route, amount, requests));
    let doubts = reader.in_doubt().unwrap().into_iter().filter(|doubt| doubt.given_back.is_none()).count();
    (balances, sums.collect(), doubts)
}

#[test]
fn a_killed_ledger_of_an_earlier_version_is_migrated_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = files(folder.path());
    let mut storage = sqlite::open(&path).unwrap();
    let (balances, sums, doubts) = figures(&mut storage);
    let expected = [("acme".to_owned(), 902_845_678), ("beta".to_owned(), 402_750_000)];
    assert_eq!((balances, doubts), (expected.to_vec(), 2));
    let mut expected: Vec<_> = SUMS
        .iter()
        .map(|(account, kind, route, amount, requests)| {
            ((*account).to_owned(), (*kind).to_owned(), (*route).to_owned(), *amount, *requests)
        })
        .collect();
    expected.sort();
    assert_eq!(sums, expected);
    let (id, amount) = ("req_fqdhttdg6tvsx0000001r".parse().unwrap(), 5_000_000);
    let given = storage.books.give_back(id, "test", &no_notes(), WallTime(1)).unwrap();
    assert_eq!(given.entry.amount.millionths(), amount, "by the id that version 0.1 printed");
    assert!(id.is_of_proxy(b"proxy-1"), "and it is found by the proxy's");
    drop(storage);
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ledger.db", "ledger.db.lock"], "the old journal is gone");
}

/// Version 0.1 wrote a large fold in parts. Charges that the mark of a part covers are not written twice.
#[test]
fn charges_that_a_part_of_a_fold_wrote_are_not_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = files(folder.path());
    // Simulates a fold up to the last batch that wrote only its first charge, acme's on the route `priced`, as an entry
    // of one millionth. Whatever that fold wrote, the rest of it must not change acme's charges on that route.
    let connection = Connection::open(&path).unwrap();
    let route: u32 =
        connection.query_row("SELECT num FROM routes WHERE name = 'priced'", [], |row| row.get(0)).unwrap();
    let mark = "UPDATE journal SET part_upto = 1000000, part_account = 1, part_route = ?1";
    connection.execute(mark, [route]).unwrap();
    let before: i64 = connection
        .query_row("SELECT sum(requests) FROM entries WHERE account = 1 AND route = ?1", [route], |row| {
            row.get(0)
        })
        .unwrap();
    drop(connection);
    let mut storage = sqlite::open(&path).unwrap();
    let (_, sums, _) = figures(&mut storage);
    let requests = |account: &str, route: &str| -> u64 {
        let own = sums.iter().filter(|(of, kind, on, ..)| of == account && on == route && kind != "in_doubt");
        own.map(|(.., requests)| requests).sum()
    };
    assert_eq!(requests("acme", "priced"), u64::try_from(before).unwrap());
    assert_eq!((requests("acme", "fixed"), requests("beta", "fixed")), (30, 45), "the rest is written");
}
