//! A disk that loses its power: what was written and not synced is there, or not, or in part.
//!
//! As strict as POSIX allows: a file's name is durable once its folder was synced, its bytes and its
//! length once it was synced itself; before that any of its sectors may be on the disk, in any order.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// What a process asked of the files in one folder.
#[derive(Clone, Debug)]
pub enum Event {
    Create(String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Sync(String),
    SyncFolder,
    Unlink(String),
    /// So many calls of the store returned: what they did is safe.
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

/// The folder: files by number, and their names.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Creations and removals, in order, as file systems journal them.
    pending_names: Vec<(String, Option<usize>)>,
}

impl Disk {
    /// As a folder is now, all of it durable.
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

    /// What is in the folder once the power is back.
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
            // All of it, none of it, or as it happens.
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
                // Sectors of the disk, not of the write.
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
