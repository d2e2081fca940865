//! Finds ledgers where configurations say that they are.

use std::path::Path;

use super::error::StartError;
use crate::config;
use crate::ledger::Place;
use crate::ledger::postgres::{JournalAt, Server};
use crate::snapshot::{LedgerPlace, PostgresPlace};

/// Where a ledger is.
pub(super) fn at(place: &LedgerPlace) -> Place {
    match place {
        LedgerPlace::Sqlite(path) => Place::Sqlite(path.clone()),
        LedgerPlace::Postgres(place) => {
            let PostgresPlace { config, tls, journal, node } = &**place;
            let server = Server {
                config: config.clone(),
                tls: tls.as_ref().map(|tls| tls.config.clone()),
                node: node.clone(),
            };
            Place::Postgres(Box::new(server), journal.clone().map_or(JournalAt::Shared, JournalAt::Local))
        }
    }
}

/// A ledger that is named by its URL, or by the configuration file of its gateway.
///
/// # Errors
/// All mistakes in the URL or in the file.
pub fn find(text: &str) -> Result<Place, StartError> {
    let is_url = ["sqlite:", "postgres:", "postgresql:", "env:"].iter().any(|start| text.starts_with(start));
    let found = match is_url {
        true => config::ledger_place(text),
        false => config::load(Path::new(text)).map(|loaded| loaded.snapshot.settings.ledger),
    };
    Ok(at(&found.map_err(|report| StartError::Config(Box::new(report)))?))
}
