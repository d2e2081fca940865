//! Tests folds that a crash interrupts.

use proptest::prelude::*;
use tollgate::ledger::sqlite;
use tollgate::ledger::verify::verify;
use tollgate::types::WallTime;

use crate::driver::{Driver, driver, start};
use crate::{ALL, Call};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Promise 1: however often the process is killed before or after a fold, each request is charged once.
    #[test]
    fn interrupted_folds_charge_each_request_once(
        batches in prop::collection::vec(prop::collection::vec((0_u8..4, 1_i64..100, prop::option::of(0_i64..100)), 1..8), 1..8),
        kills in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let mut storage = sqlite::open(&path).unwrap();
        let opening = 1_000_000;
        let accounts = (0..4).map(|number| (number, Some(opening))).collect();
        driver(&mut storage).run(&Call::Register { accounts, keys: vec![(0, 0)], routes: vec![0, 1] });
        let (mut ids, mut left) = (0, [opening; 4]);
        let mut rest = batches.chunks(batches.len().div_ceil(kills.len().max(1)));
        for folds_first in kills.iter().copied().chain([true]) {
            let mut tally = start(&mut storage, WallTime(3));
            for batch in rest.next().unwrap_or_default() {
                let mut driver = Driver { seq: tally.upto(), ids, tally, ..driver(&mut storage) };
                driver.hold(batch, WallTime(1));
                (ids, tally) = (driver.ids, driver.tally);
                for (account, amount, charge) in batch {
                    // A hold that is open at a kill is in doubt, and charged in full.
                    left[usize::from(*account)] -= charge.map_or(*amount, |charge| charge.min(*amount));
                }
            }
            if folds_first {
                storage.books.fold(&tally.fold(), WallTime(2)).unwrap(); // and the journal is not reset before the kill
            }
            drop(storage);
            storage = sqlite::open(&path).unwrap();
        }
        start(&mut storage, WallTime(3));
        let mut reader = storage.books.reader().unwrap();
        let balances: Vec<i64> = reader.accounts(None, ALL).unwrap().iter().map(|row| row.balance.millionths()).collect();
        prop_assert_eq!(balances, left);
        prop_assert_eq!(verify(&mut *reader).unwrap().differences, []);
        drop((reader, storage));
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        prop_assert!(!files.into_iter().any(|name| name.to_string_lossy().contains("journal")), "all is folded");
    }
}
