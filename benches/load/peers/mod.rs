//! Starts the gateways under test. Each one does as much of Tollgate's job as it can.

mod engines;
mod envoy;
mod haproxy;
mod nginx;
mod tollgate;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::Result;
use crate::cases::{Case, Entrant, Kind, Setup, Wire};
use crate::client::{self, Response};
use crate::keys::Keys;
use crate::places::Places;
use crate::process::{self, Running};
use crate::upstream::{self, BODY_LENGTH, EVENT_COUNT, EVENTS, EXPORT, EXPORT_LENGTH, Ports};

pub use engines::Engines;
pub use tollgate::{fold, ledger, status};

/// Maximum requests that are sent to check whether a gateway is ready and responds correctly.
pub const PROBES: u64 = TRIES as u64 * STARTS as u64;
/// Maximum requests to a gateway that starts, [`PAUSE`] apart: with a million keys under valgrind, a start takes
/// minutes.
const TRIES: usize = 1_200;
const PAUSE: Duration = Duration::from_millis(250);
/// How often a gateway is started, in case another process took its port first.
const STARTS: usize = 3;

/// A running gateway.
pub struct Peer {
    pub name: &'static str,
    pub kind: Kind,
    pub setup: Setup,
    pub keys: Keys,
    pub port: u16,
    /// The port for the protocol of the case. `port` is for HTTP without TLS.
    pub wire_port: u16,
    pub folder: PathBuf,
    pub process: Running,
    /// What a gateway of a fleet shares with others; ends after it.
    pub engines: Option<Engines>,
}

/// The parameters that a gateway is started with.
struct Site<'a> {
    folder: PathBuf,
    keys: Keys,
    port: u16,
    tls_port: u16,
    upstream: u16,
    ports: Ports,
    /// The authority that issued the upstream's certificate, a PEM file.
    authority: PathBuf,
    case: &'a Case,
    setup: Setup,
    engines: Option<&'a Engines>,
}

type Arguments = Vec<String>;

impl Site<'_> {
    fn write(&self, name: &str, text: &str) -> Result<String> {
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file.to_str().ok_or("a folder's name is not UTF-8")?.to_owned())
    }

    /// Writes a self-signed ECDSA certificate (P-256) and its key, both into one file and into separate files. All
    /// gateways use the same kind of certificate.
    fn certificate(&self) -> Result<()> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        self.write("cert.pem", &pem)?;
        self.write("cert.key", &key)?;
        self.write("both.pem", &format!("{pem}{key}")).map(drop)
    }
}

impl Peer {
    /// Starts an entrant. `under` is a program that runs the entrant, such as valgrind, with its arguments.
    pub fn start(
        entrant: &Entrant,
        case: &Case,
        keys: Keys,
        places: &Places,
        under: &[String],
    ) -> Result<Self> {
        let kind = entrant.kind;
        let program = if entrant.setup.own.is_some() { std::env::current_exe()? } else { kind.program()? };
        let mut told = String::new();
        for _ in 0..STARTS {
            let folder = places.make(entrant.name, entrant.setup.tmpfs)?;
            let (port, ports, setup) = (process::free_port()?, places.upstream, entrant.setup);
            let (upstream, authority) = (ports.plain, places.authority.clone());
            let tls_port = process::free_port()?;
            let tls = matches!(case.wire, Wire::Tls | Wire::TlsAnew);
            let wire_port = if tls { tls_port } else { port };
            let engines = if setup.fleet { Some(Engines::start()?) } else { None };
            let site = Site {
                engines: engines.as_ref(),
                folder: folder.clone(),
                keys,
                port,
                tls_port,
                upstream,
                ports,
                authority,
                case,
                setup,
            };
            if tls {
                site.certificate()?;
            }
            let arguments = match kind {
                Kind::Tollgate => site.tollgate(),
                Kind::HaProxy => site.haproxy(),
                Kind::Nginx => site.nginx(false),
                Kind::NginxLua => site.nginx(true),
                Kind::Envoy => site.envoy(),
                Kind::Tcp => site.tcp(),
            }?;
            let log = File::create(folder.join("log"))?;
            let words: Vec<&str> = under.iter().map(String::as_str).collect();
            let mut command = match words.split_first() {
                Some((first, rest)) => {
                    let mut command = process::command(first.as_ref(), places.gateway);
                    command.args(rest).arg(&program);
                    command
                }
                None => process::command(&program, places.gateway),
            };
            command.args(arguments).current_dir(&folder).stdin(Stdio::null());
            let process = Running::start(command.stdout(log.try_clone()?).stderr(log))?;
            let name = entrant.name;
            let mut peer = Self { name, kind, setup, keys, port, wire_port, folder, process, engines };
            if let Some(response) = peer.first_response(case) {
                peer.check(case, &response)?;
                return Ok(peer);
            }
            told = fs::read_to_string(peer.folder.join("log"))?;
            if !peer.process.has_ended() {
                return Err(format!("{} does not respond in time:\n{told}", entrant.name).into());
            }
        }
        Err(format!("{} does not start:\n{told}", entrant.name).into())
    }

    /// Waits for the first 200 response. Returns `None` if the gateway ends or never sends one.
    fn first_response(&mut self, case: &Case) -> Option<Response> {
        for _ in 0..TRIES {
            if self.process.has_ended() {
                return None;
            }
            match client::ask(self.port, case.path, &Keys::text(0), case.body) {
                Ok(response) if response.status == 200 => return Some(response),
                _ => std::thread::sleep(PAUSE),
            }
        }
        None
    }

    /// Checks that the gateway forwarded the request, and that it refuses an unknown key if it checks keys at all. A
    /// gateway that is fast because it checks nothing is not comparable.
    fn check(&self, case: &Case, response: &Response) -> Result<()> {
        let right = match case.path {
            EXPORT => response.length == EXPORT_LENGTH,
            EVENTS => response.events == EVENT_COUNT,
            _ => response.length == BODY_LENGTH,
        };
        if !right {
            let Response { length, events, .. } = response;
            return Err(format!("{} responds with {length} bytes, {events} events", self.name).into());
        }
        if matches!(self.kind, Kind::Nginx | Kind::Tcp) {
            return Ok(());
        }
        let response = client::ask(self.port, case.path, &Keys::unknown_text(0), case.body)?;
        if response.status != 401 {
            return Err(format!("{} responds with {} to an unknown key", self.name, response.status).into());
        }
        Ok(())
    }

    /// True if each 200 response costs a credit that a ledger counts.
    pub fn charges(&self) -> bool {
        self.kind == Kind::Tollgate && !self.setup.free
    }

    /// True if other entrants' CPU time is compared with this one.
    pub fn is_reference(&self) -> bool {
        self.kind == Kind::HaProxy && self.setup.stored != Some(true)
    }
}

impl Kind {
    /// The path of the installed program, or an error with the reason why it is missing.
    pub fn program(self) -> Result<PathBuf> {
        let find = |name: &str| process::find(name).ok_or_else(|| format!("{name} is not installed").into());
        match self {
            Self::Tollgate => Ok(process::tollgate()),
            Self::HaProxy | Self::Tcp => find("haproxy"),
            Self::Nginx | Self::NginxLua => upstream::program(),
            Self::Envoy => envoy::program()
                .ok_or_else(|| format!("envoy is neither on PATH nor named by {}", envoy::VARIABLE).into()),
        }
    }
}
