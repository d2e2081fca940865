//! Runs the program under test as a separate process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Upstream;

/// The environment variable with the admin token of a configuration without one.
const ADMIN_TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";
const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
/// How long an expected event may take before a test fails: a start under valgrind takes 20 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process whose standard output is kept; killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, out) = (Arc::clone(&lines), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for the first line that contains this text.
    pub fn line_with(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.lines().iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(start.elapsed() < PATIENCE, "no line with {text:?} in {:?}", self.lines());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before saying {text:?}: {:?}", self.lines());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        kill(signal, self.id());
    }

    /// Waits for the end of the process. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
pub fn kill(signal: &str, id: u32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status().unwrap();
    assert!(status.success());
}

/// Runs a command of the program.
pub fn cli(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A running gateway in its own folder.
pub struct Gateway {
    pub folder: Arc<tempfile::TempDir>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    process: Process,
}

impl Gateway {
    /// Starts a gateway in front of an upstream, whose address replaces `{upstream}` in the configuration.
    pub fn start(config: &str, upstream: &Upstream) -> Self {
        Self::start_by(&[], config, upstream)
    }

    /// Starts a gateway in a folder that has a configuration.
    pub fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        Self::restart_by(&[], folder)
    }

    /// As [`Gateway::start`], through a program that finally becomes the gateway in its own process (exec).
    pub fn start_by(prefix: &[&str], config: &str, upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = config.replace("{upstream}", &upstream.address.to_string());
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        Self::restart_by(prefix, Arc::new(folder))
    }

    /// As [`Gateway::start_in`], through such a program.
    pub fn restart_by(prefix: &[&str], folder: Arc<tempfile::TempDir>) -> Self {
        Self::start_command(folder, |_| {
            let words = [prefix, &[BINARY, "serve"]].concat();
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).env(ADMIN_TOKEN, "of-these-tests");
            command
        })
    }

    /// The address of the dashboard, which the configuration must have.
    pub fn dashboard(&self) -> SocketAddr {
        let start = Instant::now();
        loop {
            let lines = self.process.lines();
            if let Some(line) = lines.iter().find(|line| line.contains("serving the dashboard")) {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                return line["address"].as_str().unwrap().parse().unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "no dashboard: {lines:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a gateway that has its own `/etc/hosts`, the file `hosts` in its folder, in a mount namespace. `None` if
    /// that is not allowed here.
    pub fn with_hosts(folder: Arc<tempfile::TempDir>, hosts: &str) -> Option<Self> {
        std::fs::write(folder.path().join("hosts"), hosts).unwrap();
        let probe = Command::new("unshare").args(["-m", "true"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            super::missing("a mount namespace", "run as root");
            return None;
        }
        let script = format!("mount --bind {}/hosts /etc/hosts && exec \"$@\"", folder.path().display());
        Some(Self::restart_by(&["unshare", "-m", "sh", "-c", &script, "sh"], folder))
    }

    /// Starts a gateway that takes over from a running one.
    pub fn upgrade(running: &Self) -> Self {
        Self::start_command(Arc::clone(&running.folder), |_| {
            let mut command = Command::new(BINARY);
            command.args(["serve", "--upgrade"]).env(ADMIN_TOKEN, "of-these-tests");
            command
        })
    }

    /// As [`Gateway::start_in`], with any command that runs a gateway.
    pub fn start_command(folder: Arc<tempfile::TempDir>, command: impl FnOnce(&Path) -> Command) -> Self {
        let mut command = command(folder.path());
        command.current_dir(folder.path());
        let mut process = Process::start(&mut command);
        let address = |line: String| -> SocketAddr {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            line["address"].as_str().unwrap().parse().unwrap()
        };
        let public = address(process.line_with("serving clients"));
        let admin = address(process.line_with("serving operators"));
        Self { folder, public, admin, process }
    }

    /// The address of the listener with TLS.
    pub fn tls(&self) -> SocketAddr {
        let lines = self.lines();
        let line = lines.iter().find(|line| line.contains("\"tls\":true")).expect("an address with TLS");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    pub fn config(&self) -> String {
        std::fs::read_to_string(self.config_path()).unwrap()
    }

    /// Replaces the configuration file as editors do: another file is renamed over it.
    pub fn write_config(&self, text: &str) {
        let next = self.folder.path().join(".next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.config_path()).unwrap();
    }

    pub fn cli(&self, arguments: &[&str]) -> Output {
        cli(self.folder.path(), arguments)
    }

    /// Runs a command that must succeed. Returns its JSON output.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.cli(&[arguments, &["--output", "json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|_| {
            let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
            serde_json::Value::Array(rows.collect())
        })
    }

    /// The rows of a list, even if it is empty or has one row.
    pub fn rows(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.cli(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Credits that an account can spend, as text.
    pub fn available(&self, account: &str) -> String {
        self.json(&["account", "show", account])["available"].to_string()
    }

    pub fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    pub fn line_with(&mut self, text: &str) -> String {
        self.process.line_with(text)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: &str) {
        kill(signal, self.id());
    }

    /// Stops the gateway cleanly. Returns the exit code and the folder.
    pub fn stop(mut self) -> (Option<i32>, Arc<tempfile::TempDir>) {
        self.signal("TERM");
        (self.process.wait(), Arc::clone(&self.folder))
    }

    /// Waits for the end of the gateway. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait()
    }

    /// Ends the gateway with SIGKILL, as a crash would.
    pub fn crash(mut self) -> Arc<tempfile::TempDir> {
        self.signal("KILL");
        self.process.wait();
        Arc::clone(&self.folder)
    }
}
