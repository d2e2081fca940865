//! Builds the snapshot, accounts and keys from the raw files. Continues after a mistake, so that
//! all mistakes are reported.

mod accounts;
mod charges;
mod client_tls;
mod context;
mod dialects;
mod jobs;
pub(super) mod limits;
mod operating;
mod plans;
mod prices;
mod routes;
mod server;
mod tls;
mod upstream_health;
mod upstreams;
pub(super) mod values;

use std::path::PathBuf;
use std::sync::Arc;

use super::loaded::{LoadedConfig, Watched};
use super::mask::mask;
use super::raw::{self, At, Place};
use super::report::{Report, SourceFile};
use super::source::Sources;
use crate::snapshot::{LedgerPlace, Snapshot};
use context::{Context, Known};

/// Longest configuration whose text is kept, to show what a reload changes, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// Builds the configuration, or returns all mistakes.
pub(super) fn build(sources: Sources) -> Result<LoadedConfig, Report> {
    let Sources { files, report, cut, patterns } = sources;
    let mut context = Context::new(report, cut);
    if files.is_empty() {
        return Err(context.report);
    }
    let mut server = server::build(&mut context, &files);
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
    let callbacks = jobs::callbacks(&mut context, &files, &table, &server.settings, &upstreams);
    let names =
        files.iter().flat_map(|file| &file.routes).map(|route| route.value.name.value.clone()).collect();
    let known = Known { names, routes };
    let buckets = plans::buckets(&mut context, &files);
    let plans = plans::build_all(&mut context, &files, &known, &buckets);
    server.settings.dashboard = operating::dashboard::build(&mut context, &files, &plans).map(Arc::new);
    let dashboard = server.settings.dashboard.as_deref();
    server.settings.stripe =
        operating::payments::stripe(&mut context, &files, &buckets, dashboard).map(Arc::new);
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
        callbacks,
        upstreams: upstreams.into_values().flatten().map(|built| built.upstream).collect(),
        routes: known.routes,
        plans,
        buckets,
        listed: Vec::new(),
    };
    let hash = context.report.hash();
    let text = text_of(&context.report);
    Ok(LoadedConfig { snapshot, accounts, keys, watched, hash, text, report: context.report })
}

/// Where a ledger is whose URL was not read from a file.
///
/// # Errors
/// All mistakes in the URL.
pub fn ledger_place(url: &str) -> Result<LedgerPlace, Report> {
    let file = SourceFile { path: PathBuf::from("./URL"), text: url.to_owned() };
    let mut report = Report::default();
    report.files.push(file);
    let mut context = Context::new(report, Vec::new());
    let url = At { value: url.to_owned(), span: Place(0..url.len()) };
    let place =
        operating::ledger::place(&mut context, &raw::Ledger { url: Some(url), ..raw::Ledger::default() });
    if context.report.errors() > 0 { Err(context.report) } else { Ok(place) }
}

/// The text of all files without secrets, if it is not long.
fn text_of(report: &Report) -> Option<Arc<str>> {
    let length: usize = report.files.iter().map(|file| file.text.len()).sum();
    let named = |file: &SourceFile| format!("# {}\n{}", file.path.display(), mask(&file.text));
    (length <= MAX_TEXT).then(|| report.files.iter().map(named).collect::<Vec<_>>().join("\n").into())
}
