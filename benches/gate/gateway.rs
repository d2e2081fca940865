//! Starts the real binary (`TOLLGATE_BENCH_BINARY`, or else cargo's build), runs its commands, and measures it from
//! outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tollgate::types::KeyHash;

/// A valid key of the configuration.
pub const KEY: &str = "bench-key-that-works";

/// A running gateway in its own folder.
pub struct Gateway {
    child: Child,
    pub folder: TempDir,
    pub address: SocketAddr,
}

/// The path of the binary under test.
pub fn binary() -> String {
    std::env::var("TOLLGATE_BENCH_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tollgate").to_owned())
}

/// The kind of listener that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Plain,
    Tls,
}

impl Gateway {
    /// Starts a gateway. `server` is added to the settings of `[server]`, `auth` to those of `[auth]`.
    pub fn start(upstream: SocketAddr, door: Door, server: &str, auth: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tls = match door {
            Door::Plain => "",
            Door::Tls => "[server.tls]\ncertificate = \"cert.pem\"\nprivate_key = \"cert.key\"\n",
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let hash = KeyHash::of(KEY.as_bytes()).to_hex();
        let text = format!(
            r#"
[server]
listen = ["127.0.0.1:0"]
{server}
{tls}
[auth]
{auth}
[admin]
listen = "127.0.0.1:0"
[ledger]
url = "sqlite:ledger.db"
[log]
requests = false
[upstreams.api]
servers = ["http://{upstream}"]
response_timeout = "60s"
[[routes]]
name = "one"
path = "/{{*rest}}"
upstream = "api"
[accounts.acme]
[[accounts.acme.keys]]
label = "bench"
sha256 = "{hash}"
"#
        );
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a written file");
        };
        write("cert.pem", &certificate.pem());
        write("cert.key", &key.serialize_pem());
        write("config.toml", &text);
        let mut child = Command::new(binary())
            .args(["serve"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a started gateway");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("serving clients"));
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("a gateway that serves")).expect("a line of JSON");
        let address = line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {}); // so that the gateway never blocks on it
        Self { child, folder, address }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        let number = line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok());
        number.expect("a number") * 1024.0
    }

    /// Number of open file descriptors of the gateway.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Number of client connections that the gateway has not closed.
    pub fn clients(&self) -> usize {
        /// States in `/proc/net/tcp` of open connections: ESTABLISHED, and CLOSE_WAIT (only the client has closed).
        const OPEN: [&str; 2] = ["01", "08"];
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.filter(|line| line[1].ends_with(&port) && OPEN.contains(&line[3])).count()
    }

    /// Runs a command that must succeed. Returns its JSON output.
    pub fn command(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments = [arguments, &["--output", "json"]].concat();
        let output = Command::new(binary())
            .current_dir(self.folder.path())
            .args(&arguments)
            .output()
            .expect("a command");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
