//! Folders, cores and the upstream's port that gateways run with.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use crate::Result;
use crate::spread::spread;
use crate::upstream::{Ports, Upstream};

/// The folder of Linux's file system in memory.
const TMPFS: &str = "/dev/shm";

/// Folders, cores, and the upstream's port.
pub struct Places {
    disk: TempDir,
    tmpfs: Option<TempDir>,
    made: Cell<usize>,
    pub upstream: Ports,
    /// The upstream's certificate, a PEM file.
    pub authority: PathBuf,
    /// The core of the gateway; the next field is the core of the load and the upstream.
    pub gateway: Option<usize>,
    pub load: Option<usize>,
    /// Median time of fdatasync in µs, on disk and on tmpfs.
    pub fdatasync: (f64, Option<f64>),
}

impl Places {
    pub fn find(upstream: &Upstream, cores: Option<(usize, usize)>) -> Result<Self> {
        let disk = tempfile::tempdir()?;
        let tmpfs = Path::new(TMPFS).is_dir().then(|| tempfile::tempdir_in(TMPFS)).transpose()?;
        let in_memory = tmpfs.as_ref().map(|folder| fdatasync(folder.path())).transpose()?;
        let fdatasync = (fdatasync(disk.path())?, in_memory);
        let (gateway, load) = cores.unzip();
        let (authority, upstream, made) = (upstream.certificate.clone(), upstream.ports, Cell::new(0));
        Ok(Self { disk, tmpfs, made, upstream, authority, gateway, load, fdatasync })
    }

    pub fn has_tmpfs(&self) -> bool {
        self.tmpfs.is_some()
    }

    pub fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Creates a folder, on tmpfs if `tmpfs` is true.
    pub fn make(&self, name: &str, tmpfs: bool) -> Result<PathBuf> {
        let root = if tmpfs { self.tmpfs.as_ref().ok_or("there is no tmpfs")? } else { &self.disk };
        let folder = root.path().join(format!("{name}-{}", self.made.replace(self.made.get() + 1)));
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// Median time in µs of a small write with fdatasync in a ledger's folder.
fn fdatasync(folder: &Path) -> Result<f64> {
    const WRITES: usize = 50;
    const BLOCK: [u8; 4096] = [7; 4096];
    let name = folder.join("fdatasync");
    let mut file = File::create(&name)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let start = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(name)?;
    Ok(spread(times).1)
}
