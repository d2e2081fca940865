//! A PostgreSQL server of Debian's packages, with a folder and a port of its own. It ends with its value.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time in which a server must start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who runs the server if the tests are run by root, as which it refuses to run.
const USER: &str = "nobody";

/// A server that was started.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

/// Where the server's programs are; `None` if it is not installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
    found.retain(|programs| programs.join("postgres").exists() && programs.join("initdb").exists());
    found.sort();
    found.pop()
}

impl Postgres {
    /// True if its programs are installed.
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// Starts a server with an empty database; `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::getuid().is_root() {
            let owned = Command::new("chown").arg(USER).arg(folder.path()).status().unwrap();
            assert!(owned.success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut postgres = Self { folder, programs, port, server: None };
        let data = postgres.data();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=tollgate", "--no-sync", "--encoding=UTF8", "--pgdata"]);
        let made = initdb.arg(&data).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.run();
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the server, run by whom it may be run. It ends with the test that started it, also if that is killed.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if rustix::process::getuid().is_root() {
            command.args(["--reuid", USER, "--clear-groups"]);
        }
        command.arg("--").arg(self.programs.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs the server, and waits until it answers.
    pub fn run(&mut self) {
        let port = self.port.to_string();
        let started = Instant::now();
        self.server = Some(self.spawn());
        let is_ready = |programs: &Path| {
            let mut asked = Command::new(programs.join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap().success()
        };
        while !is_ready(&self.programs) {
            assert!(started.elapsed() < PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
            // It ends at once while children of a killed server live.
            if self.server.as_mut().is_some_and(|server| server.try_wait().unwrap().is_some()) {
                self.server = Some(self.spawn());
            }
        }
    }

    fn spawn(&self) -> Child {
        let mut server = self.command("postgres");
        server.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", "", "-D"]).arg(self.data());
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        server.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops the server's processes, or lets them go on.
    pub fn pause(&self, is_paused: bool) {
        let signal = if is_paused { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let server = self.server.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        for id in children.chain([i32::try_from(server).unwrap()]) {
            let id = rustix::process::Pid::from_raw(id).unwrap();
            let _ = rustix::process::kill_process(id, signal); // or it has ended
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Makes an empty database. Returns its URL.
    pub fn database(&self, name: &str) -> String {
        self.run_sql(&format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tollgate@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs a query of the server's superuser. Returns the value that it finds.
    pub fn ask(&self, sql: &str) -> String {
        let found = Command::new("psql")
            .args(["-q", "-t", "-A", "-c", sql])
            .arg(self.url("postgres"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&found.stdout).trim().to_owned()
    }

    /// Runs a statement of the server's superuser.
    pub fn run_sql(&self, sql: &str) {
        self.run_sql_in("postgres", sql);
    }

    /// Runs statements of the superuser in a database.
    pub fn run_sql_in(&self, database: &str, sql: &str) {
        let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-c", sql];
        let done = Command::new("psql").args(arguments).arg(self.url(database)).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill(); // its folder is deleted
    }
}
