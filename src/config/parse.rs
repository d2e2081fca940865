//! Builds the snapshot, accounts and keys from the raw files. Continues after a mistake, so that
//! all mistakes are reported.

mod accounts;
mod admin;
mod client_tls;
mod context;
mod dialects;
pub(super) mod limits;
mod prices;
mod routes;
mod server;
mod tls;
mod traces;
mod upstream_health;
mod upstreams;
mod usage;
pub(super) mod values;
mod webhooks;

use std::path::PathBuf;

use super::loaded::{LoadedConfig, Watched};
use super::report::Report;
use super::source::Sources;
use crate::snapshot::Snapshot;
use context::{Context, Known};

/// Builds the configuration, or returns all mistakes.
pub(super) fn build(sources: Sources) -> Result<LoadedConfig, Report> {
    let Sources { files, report, cut, patterns } = sources;
    let mut context = Context::new(report, cut);
    if files.is_empty() {
        return Err(context.report);
    }
    let server = server::build(&mut context, &files);
    let (dialects, default_dialect) = dialects::build(&mut context, &files);
    let upstreams = upstreams::build(&mut context, &files);
    let (table, routes) = routes::build(
        &mut context,
        &files,
        &routes::Around {
            server: &server,
            dialects: &dialects,
            default: &default_dialect,
            upstreams: &upstreams,
        },
    );
    let names =
        files.iter().flat_map(|file| &file.routes).map(|route| route.value.name.value.clone()).collect();
    let known = Known { names, routes };
    let plans = prices::plans(&mut context, &files, &known);
    let (accounts, keys) = accounts::build(&mut context, &files, &known, &plans);
    if context.report.errors() > 0 {
        return Err(context.report);
    }
    let secrets: Vec<PathBuf> = context.report.secrets.iter().map(|(path, _)| path.clone()).collect();
    let files = context.report.files.iter().map(|file| &file.path).chain(&secrets).cloned().collect();
    let watched = Watched { secrets, files, patterns };
    let snapshot = Snapshot {
        generation: 0,
        settings: server.settings,
        keys: server.keys,
        dialect: default_dialect,
        table,
        upstreams: upstreams.into_values().flatten().map(|built| built.upstream).collect(),
        routes: known.routes,
        plans,
        listed: Vec::new(),
    };
    let hash = context.report.hash();
    Ok(LoadedConfig { snapshot, accounts, keys, watched, hash, report: context.report })
}
