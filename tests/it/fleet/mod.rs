//! Tests gateways whose ledger is in a PostgreSQL database.

mod database;

use std::sync::Arc;

use tempfile::TempDir;

use crate::engine::Postgres;
use crate::support::{config, missing};

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
