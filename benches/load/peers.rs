//! Gateways under test, each doing as much of Tollgate's job as it can.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tollgate::types::KeyHash;

use crate::process::{self, Running};
use crate::upstream::BODY_LENGTH;
use crate::{ACCOUNTS, KEYS, Result, client};

/// What every account of Tollgate begins with, in whole credits: never spent in one bench.
pub const GRANT: u64 = 1_000_000_000;
/// Most requests that are sent to see whether a peer is ready and right.
pub const PROBES: u64 = TRIES as u64 * STARTS as u64 + 1;
/// The one route.
pub const PATH: &str = "/people/enrich";
/// How often, this far apart, a starting peer is asked.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// How often a peer is started, in case another process took its port first.
const STARTS: usize = 3;
/// A key that nobody has.
const UNKNOWN_KEY: &str = "ak_live_nobody";

/// Keys of the clients.
pub struct Keys(Vec<String>);

impl Keys {
    pub fn make() -> Self {
        Self((0..KEYS).map(|number| format!("ak_live_{number:032x}")).collect())
    }

    /// Those below [`ACCOUNTS`] belong to different accounts.
    pub fn text(&self, number: usize) -> &str {
        &self.0[number]
    }

    pub fn lines(&self) -> String {
        self.0.join("\n") + "\n"
    }

    /// Each key's SHA-256 in hex, with the number of its account.
    fn hashes(&self) -> impl Iterator<Item = (String, usize)> {
        let hash =
            |(number, key): (usize, &String)| (KeyHash::of(key.as_bytes()).to_hex(), number % ACCOUNTS);
        self.0.iter().enumerate().map(hash)
    }
}

/// Which gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tollgate,
    HaProxy,
    Nginx,
}

/// A gateway that runs.
pub struct Peer {
    pub port: u16,
    kind: Kind,
    process: Running,
}

/// What a gateway is started with.
struct Site<'a> {
    folder: PathBuf,
    keys: &'a Keys,
    port: u16,
    upstream: u16,
    core: Option<usize>,
}

impl Peer {
    /// Starts all that are installed and says which are not.
    pub fn start_all(folder: &Path, keys: &Keys, upstream: u16, core: Option<usize>) -> Result<Vec<Self>> {
        let mut peers = Vec::new();
        for kind in [Kind::Tollgate, Kind::HaProxy, Kind::Nginx] {
            match kind.program() {
                Some(program) => peers.push(Self::start(kind, &program, folder, keys, upstream, core)?),
                None => println!("{} is not installed: left out", kind.name()),
            }
        }
        Ok(peers)
    }

    fn start(
        kind: Kind,
        program: &Path,
        folder: &Path,
        keys: &Keys,
        upstream: u16,
        core: Option<usize>,
    ) -> Result<Self> {
        let mut told = String::new();
        for start in 0..STARTS {
            let folder = folder.join(format!("{}-{start}", kind.name()));
            fs::create_dir(&folder)?;
            let site = Site { folder, keys, port: process::free_port()?, upstream, core };
            let arguments = match kind {
                Kind::Tollgate => site.tollgate(),
                Kind::HaProxy => site.haproxy(),
                Kind::Nginx => site.nginx(),
            }?;
            let log = File::create(site.folder.join("log"))?;
            let mut command = process::command(program, site.core);
            command.args(arguments).current_dir(&site.folder).stdin(Stdio::null());
            let process = Running::start(command.stdout(log.try_clone()?).stderr(log))?;
            let mut peer = Self { port: site.port, kind, process };
            if peer.becomes_ready(keys) {
                return Ok(peer);
            }
            told = fs::read_to_string(site.folder.join("log"))?;
        }
        Err(format!("{} does not start:\n{told}", kind.name()).into())
    }

    fn becomes_ready(&mut self, keys: &Keys) -> bool {
        for _ in 0..TRIES {
            if self.process.has_ended() {
                return false;
            }
            if client::get(self.port, PATH, keys.text(0)).is_ok_and(|(status, _)| status == 200) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }

    /// Whether it forwards, and refuses an unknown key where it knows keys at all: a fast gateway
    /// that checks nothing would be no news.
    pub fn check(&self, keys: &Keys) -> Result<()> {
        let (status, body) = client::get(self.port, PATH, keys.text(1))?;
        if status != 200 || body.len() != BODY_LENGTH {
            return Err(format!("{} answers {status} with {} bytes", self.name(), body.len()).into());
        }
        let (status, _) = client::get(self.port, PATH, UNKNOWN_KEY)?;
        let expected = if self.kind == Kind::Nginx { 200 } else { 401 };
        if status != expected {
            return Err(format!("{} answers {status} to an unknown key", self.name()).into());
        }
        Ok(())
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn is_tollgate(&self) -> bool {
        self.kind == Kind::Tollgate
    }

    /// What CPU is compared with.
    pub fn is_reference(&self) -> bool {
        self.kind == Kind::HaProxy
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tollgate => "tollgate",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Tollgate => Some(PathBuf::from(env!("CARGO_BIN_EXE_tollgate"))),
            other => process::find(other.name()),
        }
    }
}

type Arguments = [String; 3];

impl Site<'_> {
    fn write(&self, name: &str, text: &str) -> Result<String> {
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file.to_str().ok_or("a folder's name is not UTF-8")?.to_owned())
    }

    /// Everything on but the request log: hash, scopes, a limit, credits in a ledger on disk.
    fn tollgate(&self) -> Result<Arguments> {
        let (port, upstream) = (self.port, self.upstream);
        let mut text = format!(
            r#"
[server]
listen = ["127.0.0.1:{port}"]
threads = 1
[admin]
listen = "127.0.0.1:0"
[ledger]
url = "sqlite:ledger.db"
[log]
requests = false
[upstreams.people]
servers = ["http://127.0.0.1:{upstream}"]
[[routes]]
name = "people.enrich"
path = "{PATH}"
upstream = "people"
credits = 1
[plans.load]
limits = [{{ name = "rate", requests = 4000000000, window = "1s" }}]
"#
        );
        for account in 0..ACCOUNTS {
            write!(text, "[accounts.a{account}]\nplan = \"load\"\ncredits = {GRANT}\n")?;
        }
        for (number, (hash, account)) in self.keys.hashes().enumerate() {
            write!(
                text,
                "[[accounts.a{account}.keys]]\nlabel = \"k{number}\"\nsha256 = \"{hash}\"\nscopes = [\"people.*\"]\n"
            )?;
        }
        Ok(["serve".into(), "-c".into(), self.write("config.toml", &text)?])
    }

    /// SHA-256 and map, a rate counter by key with a rule that never refuses, and a counter by
    /// account in place of credits; nothing is kept on disk.
    fn haproxy(&self) -> Result<Arguments> {
        let mut map = String::new();
        for (hash, account) in self.keys.hashes() {
            writeln!(map, "{} a{account}", hash.to_ascii_uppercase())?;
        }
        let (port, upstream, map) = (self.port, self.upstream, self.write("keys.map", &map)?);
        let text = format!(
            r"
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
backend by_key
    stick-table type binary len 32 size 100k expire 120s store http_req_rate(60s)
backend by_account
    stick-table type string len 32 size 10k expire 1h store gpc0
frontend gate
    bind 127.0.0.1:{port}
    http-request deny deny_status 404 unless {{ path {PATH} }}
    http-request deny deny_status 401 unless {{ req.hdr(x-api-key) -m found }}
    http-request set-var(txn.hash) req.hdr(x-api-key),sha2(256)
    http-request set-var(txn.account) var(txn.hash),hex,map_str({map})
    http-request deny deny_status 401 unless {{ var(txn.account) -m found }}
    http-request track-sc0 var(txn.hash) table by_key
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 2000000000 }}
    http-request track-sc1 var(txn.account) table by_account
    http-request sc-inc-gpc0(1)
    http-request deny deny_status 403 if {{ sc_get_gpc0(1) gt 2000000000 }}
    http-request del-header x-api-key
    http-request set-header x-tollgate-account %[var(txn.account)]
    default_backend people
backend people
    server people 127.0.0.1:{upstream}
"
        );
        Ok(["-db".into(), "-f".into(), self.write("haproxy.cfg", &text)?])
    }

    /// Plain proxying: it has no keys, limits by key or credits without modules.
    fn nginx(&self) -> Result<Arguments> {
        let (port, upstream, folder) = (self.port, self.upstream, self.folder.display());
        let text = format!(
            r#"
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream people {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://people;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"#
        );
        let file = self.write("nginx.conf", &text)?;
        Ok(["-c".into(), file, "-q".into()])
    }
}
