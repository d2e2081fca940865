//! Starts the real binary, runs its commands, and measures it from outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// A running gateway in a folder with `config.toml`.
pub struct Gateway<'a> {
    child: Child,
    folder: &'a Path,
    pub public: SocketAddr,
    /// Time from the start of the process to the log line with its address.
    pub start: Duration,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

impl<'a> Gateway<'a> {
    pub fn start(folder: &'a Path) -> Self {
        let begun = Instant::now();
        let mut child = Command::new(BINARY)
            .args(["serve"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a started gateway");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("serving clients"));
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("a gateway that serves")).expect("a line of JSON");
        let start = begun.elapsed();
        let public = line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {}); // so that the gateway never blocks on it
        Self { child, folder, public, start }
    }

    /// Resident memory now, and its highest so far.
    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
            let number = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
            number.expect("a number") * 1024
        };
        Memory { resident: value("VmRSS:"), peak: value("VmHWM:") }
    }

    /// Memory after the pause `settle`, in which the allocator returns unused memory.
    pub fn settled(&self, settle: Duration) -> Memory {
        std::thread::sleep(settle);
        self.memory()
    }

    /// Ends the gateway with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a killed gateway");
    }

    /// Runs a command that must succeed. Returns how long it took, from the start of its process.
    pub fn command(&self, arguments: &[&str]) -> Duration {
        let begun = Instant::now();
        let output =
            Command::new(BINARY).current_dir(self.folder).args(arguments).output().expect("a command");
        let took = begun.elapsed();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        took
    }

    /// The median time of several runs of a command.
    pub fn median(&self, runs: usize, arguments: impl Fn(usize) -> Vec<String>) -> Duration {
        let run = |at| {
            let arguments = arguments(at);
            self.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let mut times: Vec<Duration> = (0..runs).map(run).collect();
        times.sort_unstable();
        times[runs / 2]
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status(); // a clean stop
        let _ = self.child.wait();
    }
}
