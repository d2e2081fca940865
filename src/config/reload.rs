//! Detects changes of configuration files.
//!
//! Polls name, inode and modification time of every configuration file five times a second, instead of using inotify.
//! Polling also detects what file watchers miss: a rename over the file, a swapped symlink, a replaced folder, a
//! container's mount, and a new file that matches an `include`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Watched;

/// Polling interval. A poll costs some microseconds per file.
pub const EVERY: Duration = Duration::from_millis(200);

/// The result of polling the files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Look(Vec<(PathBuf, Option<Stamp>)>);

/// Metadata of a file, which differs whenever the file's content may have changed: the change time of an inode cannot
/// be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?; // follows symlinks to the file that would be read
    Some(Stamp {
        device: data.dev(),
        inode: data.ino(),
        length: data.len(),
        changed: (data.ctime(), data.ctime_nsec()),
        modified: (data.mtime(), data.mtime_nsec()),
    })
}

impl Look {
    /// Polls the main file, the files that it includes, and the files that secrets are read from.
    #[must_use]
    pub fn at(main: &Path, watched: &Watched) -> Self {
        let mut paths = vec![main.to_owned()];
        paths.extend(watched.files.iter().cloned());
        for pattern in &watched.patterns {
            paths.extend(glob::glob(pattern).into_iter().flatten().filter_map(Result::ok));
        }
        paths.sort();
        paths.dedup();
        Self(paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect())
    }

    /// True if a file changed within the last 100 ms. File timestamps are coarse, so a further change could leave the
    /// same stamp: the content must be compared.
    #[must_use]
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        const TICK: i64 = 100;
        let recent = |stamp: &Stamp| {
            now_ms.saturating_sub(stamp.changed.0.saturating_mul(1000) + stamp.changed.1 / 1_000_000) < TICK
        };
        self.0.iter().any(|(_, stamp)| stamp.as_ref().is_some_and(recent))
    }
}
