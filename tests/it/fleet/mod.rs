//! Tests gateways whose ledger is in a PostgreSQL database: one alone, and fleets.

mod changes;
mod database;
mod engines;
mod faults;
mod jobs;
mod leases;
mod limits;
mod repeats;
mod spending;
mod upkeep;

use std::sync::Arc;

use tempfile::TempDir;

use crate::engine::Postgres;
use crate::support::{Gateway, Upstream, config, missing};

/// A server with an empty database, and a configuration with its ledger there; `None` if PostgreSQL is not installed.
fn ledger(settings: &str) -> Option<(Postgres, String)> {
    let Some(server) = Postgres::start() else {
        missing("PostgreSQL", "Debian's package postgresql");
        return None;
    };
    let url = format!("{}?sslmode=disable", server.database("ledger"));
    let text = config("").replace("url = \"sqlite:ledger.db\"\n", &format!("url = \"{url}\"\n{settings}"));
    Some((server, text))
}

/// A folder of another machine, with the same configuration.
fn another_machine(folder: &TempDir) -> Arc<TempDir> {
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("config.toml"), other.path().join("config.toml")).unwrap();
    Arc::new(other)
}

/// The names of the gateways of a fleet.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three gateways with one ledger, in front of one upstream.
struct Fleet {
    gateways: Vec<Gateway>,
    upstream: Upstream,
    /// Ends after the gateways.
    server: Postgres,
}

impl Fleet {
    /// Starts a fleet. `change` changes its configuration; `journal`: `local` or `shared`.
    fn start(journal: &str, change: impl Fn(String) -> String) -> Option<Self> {
        Self::start_by(&[], journal, change)
    }

    /// As [`Fleet::start`], through a program.
    fn start_by(prefix: &[&str], journal: &str, change: impl Fn(String) -> String) -> Option<Self> {
        let (server, text) = ledger(&format!("node = \"NAME\"\njournal = \"{journal}\"\n"))?;
        let (text, upstream) = (change(text), Upstream::start());
        let gateways = NAMES.map(|name| Gateway::start_by(prefix, &text.replace("NAME", name), &upstream));
        Some(Self { gateways: gateways.into(), upstream, server })
    }

    /// Stops all gateways, which then have charged everything and returned all leases.
    fn stop(&mut self) {
        for gateway in self.gateways.drain(..) {
            assert_eq!(gateway.stop().0, Some(0));
        }
    }

    /// Stops all gateways, which then have charged everything, and starts them again.
    fn restart(&mut self) {
        let stopped: Vec<_> = self.gateways.drain(..).map(Gateway::stop).collect();
        for (code, folder) in stopped {
            assert_eq!(code, Some(0));
            self.gateways.push(Gateway::start_in(folder));
        }
    }
}
