//! Tests promise 3 for power cuts: acknowledged batches are read back, whichever blocks of the last write reached the
//! disk. Damage of an acknowledged batch is distinguished from an incomplete last write.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MARK: i64 = 7;

#[derive(Clone, Debug)]
enum Step {
    /// Appends a batch of this many bytes.
    Append(usize),
    /// Folds all batches except this many of the last ones.
    Fold(u64),
    /// Kills the process and starts it again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_usize..20_000).prop_map(Step::Append),
        2 => (0_u64..4).prop_map(Step::Fold),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// A journal, and the batches that reading it must return.
struct World {
    folder: tempfile::TempDir,
    journal: FileJournal,
    rows: BTreeMap<u64, Vec<u8>>,
    last: u64,
    folded: u64,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = FileJournal::open(&folder.path().join("ledger.db"), MARK, None).unwrap();
        assert_eq!(journal.read(0).unwrap(), []);
        Self { folder, journal, rows: BTreeMap::new(), last: 0, folded: 0 }
    }

    fn append(&mut self, length: usize) {
        self.last += 1;
        let records = vec![u8::try_from(self.last % 251).unwrap(); length];
        self.journal.append(self.last, WallTime(1), &records).unwrap();
        self.rows.insert(self.last, records);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append(length) => self.append(length),
            Step::Fold(behind) => {
                self.folded = self.folded.max(self.last.saturating_sub(behind));
                self.journal.reset(self.folded);
                self.rows = self.rows.split_off(&(self.folded + 1));
            }
            Step::Restart => {
                self.reopen(MARK);
                assert_eq!(self.read().unwrap(), self.rows);
            }
        }
    }

    /// Reopens the journal as after a kill: the old value is not dropped, so that its files remain.
    fn reopen(&mut self, mark: i64) {
        let next = FileJournal::open(&self.folder.path().join("ledger.db"), mark, None).unwrap();
        std::mem::forget(std::mem::replace(&mut self.journal, next));
    }

    fn read(&mut self) -> Result<BTreeMap<u64, Vec<u8>>> {
        let rows = self.journal.read(self.folded)?;
        Ok(rows.into_iter().map(|(seq, _, records)| (seq, records)).collect())
    }

    fn files(&self) -> [PathBuf; 2] {
        ["0", "1"].map(|name| self.folder.path().join(format!("ledger.db.journal-{name}")))
    }

    fn contents(&self) -> [Vec<u8>; 2] {
        self.files().map(|file| std::fs::read(file).unwrap_or_default())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_acknowledged_is_read_back_whatever_was_cut(
        steps in steps(),
        length in 1_usize..20_000,
        reached in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.run(step));
        let (known, before) = (world.rows.clone(), world.contents());
        world.append(length);
        // Some of the blocks that the last write changed reached the disk.
        let mut whole = true;
        for ((file, before), after) in world.files().into_iter().zip(before).zip(world.contents()) {
            let mut cut = before.clone();
            let blocks = after.chunks(BLOCK).enumerate().filter(|(at, new)| {
                before.get(at * BLOCK..).is_none_or(|old| !old.starts_with(new))
            });
            let changed = blocks.filter(|(at, _)| at * BLOCK < before.len() || after.len() == before.len());
            for ((at, new), reached) in changed.zip(&reached) {
                match reached {
                    true => cut[at * BLOCK..][..new.len()].copy_from_slice(new),
                    false => whole = false,
                }
            }
            if after.len() > before.len() {
                whole = false; // the file's new length did not reach the disk either
            }
            if !after.is_empty() {
                std::fs::write(file, cut).unwrap();
            }
        }
        world.reopen(MARK);
        let found = world.read().unwrap();
        if whole {
            prop_assert_eq!(&found, &world.rows);
        } else {
            prop_assert!(found == known || found == world.rows, "more or less than what was written");
        }
        // New batches can be appended after those that were found.
        world.last = found.last_key_value().map_or(world.folded, |(seq, _)| *seq);
        world.rows = found;
        world.append(length);
        world.reopen(MARK);
        prop_assert_eq!(world.read().unwrap(), world.rows);
    }

    #[test]
    fn a_damaged_batch_before_the_last_is_said(lengths in prop::collection::vec(1_usize..20_000, 2..12), which in any::<prop::sample::Index>(), bit in any::<u64>()) {
        let mut world = World::new();
        lengths.iter().for_each(|length| world.append(*length));
        let at = which.index(lengths.len() - 1);
        let start: usize = lengths[..at].iter().map(|length| (HEAD + length).next_multiple_of(BLOCK)).sum();
        let [file, _] = world.files();
        let mut bytes = std::fs::read(&file).unwrap();
        prop_assume!(start + HEAD + lengths[at] <= bytes.len() && world.contents()[1].is_empty());
        let bit = usize::try_from(bit % (8 * (HEAD + lengths[at]) as u64)).unwrap();
        bytes[start + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(file, bytes).unwrap();
        world.reopen(MARK);
        let said = world.read().unwrap_err().to_string();
        let missing = format!("batch {} is missing", at + 1);
        prop_assert!(said.contains(&missing) || said.contains("belongs to another ledger"), "{said}");
    }
}

#[test]
fn a_journal_of_another_ledger_is_left_alone() {
    let mut world = World::new();
    world.append(100);
    world.reopen(MARK + 1);
    assert!(
        world
            .read()
            .unwrap_err()
            .to_string()
            .contains("belongs to another ledger; move it to another folder")
    );
    assert_eq!(world.contents()[0].len() % BLOCK, 0);
}

#[test]
fn a_restored_backup_takes_what_follows_on_it_and_refuses_what_does_not() {
    let mut world = World::new();
    (0..9).for_each(|_| world.append(100));
    world.folded = 4; // the backup is folded up to 4; the journal has the five batches after it
    world.reopen(MARK);
    assert_eq!(world.read().unwrap().keys().copied().collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    world.journal.reset(9);
    (0..9).for_each(|_| world.append(100)); // overwrites the earlier batches
    world.reopen(MARK);
    let said = world.read().unwrap_err().to_string();
    assert!(said.contains("batch 5 is missing before batch 10; restore a backup"), "{said}");
}

#[test]
fn a_full_journal_goes_on_once_a_part_of_it_is_folded() {
    let mut world = World::new();
    while world.contents()[1].is_empty() {
        world.append(10_000);
    }
    let first_file = world.last - 1;
    let full = (0..1_000).find_map(|_| {
        world.last += 1;
        let appended = world.journal.append(world.last, WallTime(1), &[0; 10_000]);
        world.rows.insert(world.last, vec![0; 10_000]);
        appended.err()
    });
    assert!(full.unwrap().to_string().contains("is full"));
    world.run(&Step::Fold(world.last - first_file));
    world.journal.append(world.last, WallTime(1), &[0; 10_000]).unwrap();
    world.run(&Step::Restart);
}

#[test]
fn a_closed_ledger_is_one_file_and_a_killed_one_keeps_its_journal() {
    let mut world = World::new();
    world.append(100);
    let (path, folder) = (world.files()[0].clone(), &world.folder.path().join("ledger.db"));
    world.journal = FileJournal::open(folder, MARK, None).unwrap();
    assert!(world.journal.append(2, WallTime(1), b"x").is_err(), "not over what was not read");
    world.journal = FileJournal::open(folder, MARK, None).unwrap();
    world.journal.read(0).unwrap();
    world.journal = FileJournal::open(folder, MARK, None).unwrap();
    assert!(path.exists(), "it holds what is not folded");
    world.journal.read(0).unwrap();
    world.journal.reset(1);
    drop(world.journal);
    assert!(!path.exists());
}
