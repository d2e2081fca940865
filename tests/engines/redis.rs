//! A Redis server of Debian's packages, or a cluster of three, with a folder and ports of its own. It ends with its value.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time in which a server must start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that was started.
#[derive(Debug)]
pub struct Redis {
    folder: tempfile::TempDir,
    port: u16,
    more: Vec<String>,
    server: Option<Child>,
}

fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_536 {
            return port; // the bus of a cluster has the port that is higher by 10,000
        }
    }
}

impl Redis {
    /// True if its programs are installed.
    pub fn is_installed() -> bool {
        Command::new("redis-server").arg("--version").output().is_ok()
    }

    /// Starts a server that keeps nothing on disk; `None` if it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_one(Vec::new())
    }

    /// Starts a server that also speaks TLS, with clients that show a certificate of the same authority: with these files, in PEM.
    /// Returns the URL for TLS, too.
    pub fn start_tls([authority, certificate, key]: [&Path; 3]) -> Option<(Self, String)> {
        let files = [("ca-cert", authority), ("cert", certificate), ("key", key)];
        let tls_port = free_port();
        let files =
            files.iter().flat_map(|(name, path)| [format!("--tls-{name}-file"), path.display().to_string()]);
        let more = ["--tls-port".to_owned(), tls_port.to_string()].into_iter().chain(files).collect();
        let server = Self::start_one(more);
        Some((server?, format!("rediss://localhost:{tls_port}")))
    }

    /// Starts a cluster of three servers; `None` if it is not installed.
    pub fn start_cluster() -> Option<Vec<Self>> {
        let cluster = || vec!["--cluster-enabled".to_owned(), "yes".to_owned()];
        let servers: Option<Vec<Self>> = (0..3).map(|_| Self::start_one(cluster())).collect();
        let servers = servers?;
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
        let created = create.args(["--cluster-replicas", "0", "--cluster-yes"]).output().unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let started = Instant::now();
        while !servers.iter().all(|server| server.command(&["cluster", "info"]).contains("cluster_state:ok"))
        {
            assert!(started.elapsed() < PATIENCE, "the cluster does not form");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(servers)
    }

    fn start_one(more: Vec<String>) -> Option<Self> {
        if !Self::is_installed() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut redis = Self { folder, port: free_port(), more, server: None };
        redis.run();
        Some(redis)
    }

    /// Runs the server, and waits until it answers. It has forgotten everything.
    pub fn run(&mut self) {
        let mut server = Command::new("setpriv"); // it ends with the test that started it, also if that is killed
        server.args(["--pdeathsig", "KILL", "--", "redis-server", "--bind", "127.0.0.1", "--save", ""]);
        server
            .args(["--appendonly", "no", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path());
        server.args(&self.more);
        self.server = Some(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        while self.command(&["ping"]).trim() != "PONG" {
            assert!(started.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command with `redis-cli`. Returns what it printed.
    pub fn command(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let ran = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops the server, or lets it go on.
    pub fn pause(&self, is_paused: bool) {
        let signal = if is_paused { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let server = self.server.as_ref().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(server), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill(); // its folder is deleted
    }
}
