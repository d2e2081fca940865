//! Configures Tollgate with every feature on. The request log is off, except in the case that measures it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Arguments, Site};
use crate::cases::{Back, Kind, Wire};
use crate::process::{self, Running};
use crate::upstream::{NAME, Ports};
use crate::{Result, own};

const LEDGER: &str = "ledger.db";
/// How long Tollgate may take to create a ledger.
const PATIENCE: Duration = Duration::from_secs(20);

impl Site<'_> {
    /// Writes a configuration with hashed keys, scopes, a limit, and credits in a ledger on disk.
    pub(super) fn tollgate(&self) -> Result<Arguments> {
        let (port, path, servers) = (self.port, self.case.path, self.tollgate_servers());
        let log = self.setup.log;
        let price = if self.setup.free { "" } else { "credits = 1" };
        let traces = match self.setup.traced {
            true => "[traces]\notlp = \"http://127.0.0.1:9\"\nsample = \"1%\"",
            false => "",
        };
        let limit = match self.setup.limited {
            true => "requests = 1, window = \"24h\"",
            false => "requests = 4000000000, window = \"1s\"",
        };
        let tls = match self.case.wire {
            Wire::Tls | Wire::TlsAnew => format!(
                "[server.tls]\nlisten = [\"127.0.0.1:{}\"]\ncertificate = \"cert.pem\"\nprivate_key = \"cert.key\"",
                self.tls_port
            ),
            Wire::Plain | Wire::Http2 => String::new(),
        };
        let ledger = match self.engines {
            None => format!("[ledger]\nurl = \"sqlite:{LEDGER}\""),
            Some(engines) => engines.settings(),
        };
        let mut text = format!(
            r#"
[server]
listen = ["127.0.0.1:{port}"]
threads = 1
{tls}
[admin]
listen = "127.0.0.1:0"
{ledger}
[auth]
failed_keys_per_minute = 0
[log]
requests = {log}
{traces}
[upstreams.people]
{servers}
[[routes]]
name = "people.enrich"
path = "{path}"
upstream = "people"
{price}
[plans.load]
limits = [{{ name = "rate", {limit} }}]
"#
        );
        if self.setup.stored.is_none() {
            text += &self.keys.in_toml()?;
        }
        let path = self.write("config.toml", &text)?;
        if let Some(ledger) = self.setup.own {
            return Ok(vec![own::ARGUMENT.into(), ledger.into(), path]);
        }
        let arguments = vec!["serve".into(), "-c".into(), path];
        if self.setup.stored.is_some() {
            self.fill(&arguments)?;
        }
        Ok(arguments)
    }

    fn tollgate_servers(&self) -> String {
        let Ports { plain, tls, more: [second, third] } = self.ports;
        match self.setup.back {
            Back::One => format!("servers = [\"http://127.0.0.1:{plain}\"]"),
            Back::Tls => format!(
                "servers = [\"https://127.0.0.1:{tls}\"]\ntls = {{ ca = \"{}\", server_name = \"{NAME}\" }}",
                self.authority.display()
            ),
            Back::Three => {
                let list = [plain, second, third].map(|port| format!("\"http://127.0.0.1:{port}\""));
                format!("servers = [{}]", list.join(", "))
            }
        }
    }

    /// Lets Tollgate create its ledger, then writes accounts and keys into it.
    fn fill(&self, arguments: &[String]) -> Result<()> {
        let ledger = ledger(&self.folder);
        let mut command = process::command(&Kind::Tollgate.program()?, None);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Running::start(command.current_dir(&self.folder))?;
        let start = Instant::now();
        while status(&self.folder).is_err() {
            if process.has_ended() || start.elapsed() > PATIENCE {
                return Err("tollgate makes no ledger".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        process.stop()?;
        self.keys.into_ledger(&ledger)
    }
}

/// The path of the ledger in a folder.
pub fn ledger(folder: &Path) -> std::path::PathBuf {
    folder.join(LEDGER)
}

/// The counters of the gateway in a folder, from `tollgate status`.
pub fn status(folder: &Path) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&ask(folder, &["status"])?)?)
}

/// Makes the gateway in a folder bring its entries up to date, as every command does that reads entries.
pub fn fold(folder: &Path) -> Result<()> {
    ask(folder, &["ledger", "in-doubt"]).map(drop)
}

fn ask(folder: &Path, words: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(process::tollgate());
    command.args(words).args(["-c", "config.toml", "--output", "json"]);
    let output = command.current_dir(folder).output()?;
    if !output.status.success() {
        return Err(format!("tollgate {} fails", words.join(" ")).into());
    }
    Ok(output.stdout)
}
