//! Folds that are written in parts, and cut.

use proptest::prelude::*;
use tollgate::ledger::fold::Fold;
use tollgate::ledger::memory::MemoryStore;
use tollgate::ledger::sqlite::SqliteStore;
use tollgate::ledger::store::Store;
use tollgate::ledger::verify::verify;
use tollgate::types::{AccountNum, RouteNum, WallTime};

use crate::{ALL, Call, Driver, PART, driver, start};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Promise 1 within a fold: cut after any of its parts, and by any number of crashes, each
    /// request is charged once.
    #[test]
    fn a_fold_that_is_cut_charges_each_request_once(
        batches in prop::collection::vec(prop::collection::vec((0_u8..4, 1_i64..100, prop::option::of(0_i64..100)), 1..8), 1..8),
        cuts in prop::collection::vec(0_usize..4, 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut store = SqliteStore::open(&path).unwrap();
        let opening = 1_000_000;
        let accounts = (0..4).map(|number| (number, Some(opening))).collect();
        driver(&mut store).run(&Call::Register { accounts, keys: vec![(0, 0)], routes: vec![0, 1] });
        let (mut ids, mut left) = (0, [opening; 4]);
        let mut rest = batches.chunks(batches.len().div_ceil(cuts.len().max(1)));
        for cut in cuts.iter().copied().chain([0]) {
            let mut tally = start(&mut store, WallTime(3));
            for batch in rest.next().unwrap_or_default() {
                let mut driver = Driver { seq: tally.upto(), ids, tally, ..driver(&mut store) };
                driver.hold(batch, WallTime(1));
                (ids, tally) = (driver.ids, driver.tally);
                for (account, amount, charge) in batch {
                    // What is open when it is cut is in doubt, and charged in full.
                    left[usize::from(*account)] -= charge.map_or(*amount, |charge| charge.min(*amount));
                }
            }
            let mut fold = Some(tally.fold());
            for _ in 0..cut {
                let Some(whole) = fold else { break };
                let part = whole.part(PART);
                store.fold(&part, WallTime(2)).unwrap();
                fold = whole.written(&part);
            }
            drop(store);
            store = SqliteStore::open(&path).unwrap();
        }
        start(&mut store, WallTime(3));
        let mut reader = store.reader().unwrap();
        let balances: Vec<i64> = reader.accounts(None, ALL).unwrap().iter().map(|row| row.balance.millionths()).collect();
        prop_assert_eq!(balances, left);
        prop_assert_eq!(verify(&mut *reader).unwrap().differences, []);
        drop((reader, store));
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        prop_assert!(!files.into_iter().any(|name| name.to_string_lossy().contains("journal")), "all is folded");
    }
}

/// The mark of a fold's parts knows one fold: another one that began would be charged anew.
#[test]
fn a_fold_that_began_is_finished_before_another_begins() {
    let folder = tempfile::tempdir().unwrap();
    let mut sqlite = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
    let mut memory = MemoryStore::default();
    let stores: [&mut dyn Store; 2] = [&mut sqlite, &mut memory];
    for store in stores {
        let part = |upto| Fold { upto, through: Some((AccountNum(1), RouteNum(1))), ..Fold::default() };
        store.fold(&part(1), WallTime(1)).unwrap();
        store.fold(&part(1), WallTime(1)).unwrap();
        assert!(store.fold(&part(2), WallTime(1)).unwrap_err().to_string().contains("another fold"));
        store.fold(&Fold { through: None, ..part(2) }, WallTime(1)).unwrap();
        store.fold(&part(3), WallTime(1)).unwrap();
    }
}

/// As after a restored backup: part of a fold is in the books, and the journal that had the rest is gone.
#[test]
fn a_part_of_a_fold_without_its_journal_hides_nothing_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let balances = |store: &mut SqliteStore| -> Vec<i64> {
        let rows = store.reader().unwrap().accounts(None, ALL).unwrap();
        rows.iter().map(|row| row.balance.millionths()).collect()
    };
    let mut store = SqliteStore::open(&path).unwrap();
    let accounts = (0..4).map(|number| (number, Some(100))).collect();
    let mut first = driver(&mut store);
    first.run(&Call::Register { accounts, keys: vec![(0, 0)], routes: vec![0] });
    for batch in 0..3 {
        first.hold(&[0, 1, 2, 3].map(|account| (account, 1, Some(1))), WallTime(batch));
    }
    let part = first.tally.fold().part(PART);
    store.fold(&part, WallTime(1)).unwrap();
    drop(store);
    for name in ["ledger.db.journal-0", "ledger.db.journal-1"] {
        let _ = std::fs::remove_file(folder.path().join(name)); // there may be one only
    }
    let mut store = SqliteStore::open(&path).unwrap();
    let tally = start(&mut store, WallTime(3));
    assert_eq!(balances(&mut store), [97, 97, 100, 100]);
    let mut second = Driver { seq: tally.upto(), ids: 100, tally, ..driver(&mut store) };
    second.hold(&[0, 1, 2, 3].map(|account| (account, 1, Some(1))), WallTime(9));
    drop(store);
    let mut store = SqliteStore::open(&path).unwrap();
    start(&mut store, WallTime(3));
    assert_eq!(balances(&mut store), [96, 96, 99, 99]);
}
