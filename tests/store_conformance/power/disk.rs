//! Models a disk that loses its power: data that was written and not synced is there completely, in part, or not at
//! all.
//!
//! The model is as strict as POSIX allows. A file's name is durable once its folder was synced; its bytes and its
//! length are durable once the file itself was synced. Before that, any of its sectors may be on the disk, in any
//! order.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

/// An operation of a process on the files of one folder.
#[derive(Clone, Debug)]
pub enum Event {
    Create(String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Sync(String),
    SyncFolder,
    Unlink(String),
    /// This many calls of the store have returned: their changes must be durable.
    Acknowledge(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A folder: its files by number, and their names.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Names that were created or removed and are not durable yet, in order, as file systems journal them.
    pending_names: Vec<(String, Option<usize>)>,
}

impl Disk {
    /// Reads a folder as it is now. All of it counts as durable.
    pub fn of(folder: &Path) -> Self {
        let mut disk = Self::default();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let durable = std::fs::read(entry.path()).unwrap();
            disk.names.insert(entry.file_name().into_string().unwrap(), disk.files.len());
            disk.files.push(File { durable, pending: Vec::new() });
        }
        disk.durable_names.clone_from(&disk.names);
        disk
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) if !self.names.contains_key(name) => {
                self.files.push(File::default());
                let number = self.files.len() - 1;
                self.names.insert(name.clone(), number);
                self.pending_names.push((name.clone(), Some(number)));
            }
            Event::Write(name, at, bytes) => self.change(name, Change::Write(*at, bytes.clone())),
            Event::Truncate(name, length) => self.change(name, Change::Truncate(*length)),
            Event::Sync(name) => {
                let File { durable, pending } = &mut self.files[self.names[name]];
                pending.drain(..).for_each(|change| change.apply(durable));
            }
            Event::SyncFolder => {
                self.durable_names.clone_from(&self.names);
                self.pending_names.clear();
            }
            Event::Unlink(name) => {
                if self.names.remove(name).is_some() {
                    self.pending_names.push((name.clone(), None));
                }
            }
            Event::Create(_) | Event::Acknowledge(_) => {}
        }
    }

    fn change(&mut self, name: &str, change: Change) {
        self.files[self.names[name]].pending.push(change);
    }

    /// Writes what the folder may contain once the power is back.
    pub fn cut(&self, random: &mut Rng, folder: &Path) {
        let mut names = self.durable_names.clone();
        let kept = random.usize(..=self.pending_names.len());
        for (name, file) in &self.pending_names[..kept] {
            match file {
                Some(number) => drop(names.insert(name.clone(), *number)),
                None => drop(names.remove(name)),
            }
        }
        for (name, number) in names {
            let File { durable, pending } = &self.files[number];
            let mut bytes = durable.clone();
            // All pending changes, none of them, or a random share.
            let share = [0.0, 1.0, 0.5, 0.9][random.usize(..4)];
            for change in pending {
                change.apply_in_part(&mut bytes, random, share);
            }
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

impl Change {
    fn apply(self, to: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => to.resize(length, 0),
            Self::Write(at, bytes) => put(to, at, &bytes),
        }
    }

    fn apply_in_part(&self, to: &mut Vec<u8>, random: &mut Rng, share: f64) {
        match self {
            Self::Truncate(length) if random.f64() < share => to.resize(*length, 0),
            Self::Truncate(_) => {}
            Self::Write(at, bytes) => {
                // Splits at the sectors of the disk, not at the start of the write.
                let (mut from, end) = (*at, at + bytes.len());
                while from < end {
                    let upto = (from / SECTOR * SECTOR + SECTOR).min(end);
                    if random.f64() < share {
                        put(to, from, &bytes[from - at..upto - at]);
                    }
                    from = upto;
                }
            }
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}
