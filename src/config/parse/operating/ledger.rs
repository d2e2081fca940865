//! Parses `[ledger]`.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use crate::config::parse::client_tls;
use crate::config::parse::context::Context;
use crate::config::raw::{self, At, Place};
use crate::snapshot::{LedgerPlace, PostgresPlace};
use crate::tls::client::ClientTls;

/// Default of `commit_delay`: longest time that a record waits for others to be committed together with it.
const COMMIT_DELAY: Duration = Duration::from_millis(5);
const MAX_COMMIT_DELAY: Duration = Duration::from_secs(1);
/// Bounds of how long requests are listed.
const MIN_REQUESTS_KEPT: Duration = Duration::from_secs(3600);
const MAX_REQUESTS_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// The name of the journal's files, without their endings.
const JOURNAL: &str = "tollgate";
/// The name that a gateway without one has in the database.
const ALONE: &str = "main";
/// Longest name of a gateway, in bytes.
const MAX_NODE: usize = 64;
const EXAMPLE: &str = "a ledger looks like \"sqlite:tollgate.db\" or \"postgres://host/database\"";

/// How long a record waits for its commit, and how long each request is listed with its charge.
pub(in crate::config::parse) fn times(
    context: &mut Context,
    raw: &raw::Ledger,
) -> (Duration, Option<Duration>) {
    let delay = context.duration(raw.commit_delay.as_ref(), COMMIT_DELAY);
    if let Some(place) = raw.commit_delay.as_ref().filter(|_| delay > MAX_COMMIT_DELAY) {
        context.error(&place.span, "commit_delay is at most \"1s\"");
    }
    let kept = context.duration(raw.requests.as_ref(), MIN_REQUESTS_KEPT);
    if let Some(place) =
        raw.requests.as_ref().filter(|_| !(MIN_REQUESTS_KEPT..=MAX_REQUESTS_KEPT).contains(&kept))
    {
        context.error(&place.span, "requests are listed for 1h to 400d");
    }
    (delay, raw.requests.as_ref().map(|_| kept))
}

/// Where the ledger is. After a mistake, a place that is not used.
pub(in crate::config::parse) fn place(context: &mut Context, raw: &raw::Ledger) -> LedgerPlace {
    let default = context.report.files[0].path.parent().map(std::path::Path::to_owned).unwrap_or_default();
    let sqlite = LedgerPlace::Sqlite(default.join("tollgate.db"));
    let Some(url) = &raw.url else {
        only_for_postgres(context, raw);
        return sqlite;
    };
    let Some(text) = context.secret(&url.span, &url.value) else { return sqlite };
    if let Some(path) = text.strip_prefix("sqlite:") {
        if path.is_empty() || path.starts_with(':') {
            context.error(&url.span, EXAMPLE);
        }
        only_for_postgres(context, raw);
        return LedgerPlace::Sqlite(context.folder().join(path));
    }
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        context.error(&url.span, EXAMPLE);
        return sqlite;
    }
    postgres(context, raw, &url.span, &text).map_or(sqlite, |place| LedgerPlace::Postgres(Box::new(place)))
}

fn only_for_postgres(context: &mut Context, raw: &raw::Ledger) {
    let spans = [
        raw.node.as_ref().map(|value| value.span.clone()),
        raw.journal.as_ref().map(|value| value.span.clone()),
        raw.journal_folder.as_ref().map(|value| value.span.clone()),
        raw.tls.as_ref().map(|value| value.span.clone()),
    ];
    for span in spans.into_iter().flatten() {
        context.error(&span, "this setting is for a ledger in PostgreSQL");
    }
}

fn postgres(context: &mut Context, raw: &raw::Ledger, url: &Place, text: &str) -> Option<PostgresPlace> {
    // The modes of libpq that verify the certificate, which Tollgate always does where it uses TLS.
    let text = text
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    let parsed = text.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    });
    let config: tokio_postgres::Config = context.check(url, parsed)?;
    let is_local = |host: &Host| matches!(host, Host::Unix(_));
    let parts = [
        ("host", config.get_hosts().is_empty()),
        ("database", config.get_dbname().is_none_or(str::is_empty)),
        ("user", config.get_user().is_none_or(str::is_empty)),
    ];
    if let Some((part, _)) = parts.iter().find(|(_, is_missing)| *is_missing) {
        let help = "it has the user and the password before the host, then the database: `user:password@host/database`";
        context.error_with(url, format!("the URL of this ledger has no {part}"), help);
        return None;
    }
    if text.contains("sslmode=prefer") {
        let help = "leave it out to use TLS, or say `sslmode=disable`";
        context.error_with(url, "`sslmode=prefer` may go without TLS unnoticed", help);
    }
    let uses_tls = config.get_ssl_mode() != SslMode::Disable && !config.get_hosts().iter().all(is_local);
    let tls = match (uses_tls, &raw.tls) {
        (false, None) => None,
        (true, tls) => Some(client_tls(context, tls.as_ref(), url)?),
        (false, Some(tls)) => {
            context.error(&tls.span, "the connection to this database uses no TLS");
            None
        }
    };
    Some(PostgresPlace { config, tls, node: node(context, raw), journal: journal(context, raw) })
}

/// The name of a gateway of a fleet, which may come from its environment, so that all can have the same file.
fn node(context: &mut Context, raw: &raw::Ledger) -> Option<String> {
    let name = raw.node.as_ref()?;
    let text = context.secret(&name.span, &name.value)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > MAX_NODE || !text.chars().all(is_plain) || text == ALONE {
        context.error(
            &name.span,
            format!(
                "the name of a node is 1 to {MAX_NODE} letters, digits, `-`, `_` or `.`, and not `{ALONE}`"
            ),
        );
        return None;
    }
    Some(text)
}

fn client_tls(context: &mut Context, raw: Option<&At<raw::LedgerTls>>, url: &Place) -> Option<ClientTls> {
    let raw = raw.map(|At { value, span }| {
        let raw::LedgerTls { ca, certificate, private_key } = value.clone();
        At { value: raw::UpstreamTls { ca, certificate, private_key, server_name: None }, span: span.clone() }
    });
    client_tls::build(context, raw.as_ref(), url)
}

/// The path of the journal's files; `None` if the journal is in the database.
fn journal(context: &mut Context, raw: &raw::Ledger) -> Option<PathBuf> {
    let kinds = ["local", "shared"];
    let kind = raw.journal.as_ref();
    if let Some(kind) = kind.filter(|kind| !kinds.contains(&kind.value.as_str())) {
        context.unknown("kind of journal", kind, kinds.into_iter());
    }
    if kind.is_some_and(|kind| kind.value == "shared") {
        if let Some(folder) = &raw.journal_folder {
            context.error(&folder.span, "a journal in the database has no folder");
        }
        return None;
    }
    let folder = raw.journal_folder.as_ref().map_or("", |folder| &folder.value);
    Some(context.folder().join(folder).join(JOURNAL))
}
