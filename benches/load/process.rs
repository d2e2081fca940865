//! Starts the bench's processes, pinned to a core, and ends them when the bench ends.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// Folders with server programs that a user's PATH may lack.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How long a process may take to end. Valgrind writes its results first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Finds an installed program.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The cores of the gateway and of the load; `None` with a single core or without `taskset`.
pub fn cores() -> Option<(usize, usize)> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    find("taskset").filter(|_| count >= 2).map(|_| (0, 1))
}

/// Builds a command that runs a program on a core. If setpriv is installed, the kernel kills the program when the bench
/// itself is killed. In all other cases the guard [`Running`] ends it.
pub fn command(program: &Path, core: Option<usize>) -> Command {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if let Some(setpriv) = find("setpriv") {
        words.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    if let Some((core, taskset)) = core.zip(find("taskset")) {
        words.extend([taskset.into(), "-c".into(), core.to_string().into()]);
    }
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// A process that is ended when this value is dropped.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        let child =
            command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub fn stop(&mut self) -> Result<()> {
        if self.ends_within(PATIENCE) { Ok(()) } else { Err("a process does not end when asked to".into()) }
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        if let Some(id) = i32::try_from(self.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM); // fails if the process has already ended
        }
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.has_ended()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

/// How long a process may take to end at the end of the bench before it is killed. An instrumented process writes its
/// profile then.
const LAST_WORDS: Duration = Duration::from_secs(3);

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ends_within(LAST_WORDS) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The Tollgate binary that is measured: the one that `TOLLGATE_BENCH_BINARY` names, or else cargo's build.
pub fn tollgate() -> PathBuf {
    std::env::var_os("TOLLGATE_BENCH_BINARY").unwrap_or(env!("CARGO_BIN_EXE_tollgate").into()).into()
}

/// A port that is free at the moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
