//! Raw files → snapshot, accounts and keys. Goes on after a mistake, so that all are reported.

mod accounts;
mod dialects;
mod limits;
mod prices;
mod routes;
mod server;
mod tls;
mod upstreams;
pub(super) mod values;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::raw::{self, At, Place};
use super::report::{Problem, Report, Severity};
use super::source::Sources;
use super::{Loaded, Watched};
use crate::snapshot::{Route, Snapshot};

/// Where problems go, and which file is being looked at.
struct Context {
    report: Report,
    /// Sections out of which something was cut already; see [`Sources::cut`].
    cut: Vec<String>,
    file: usize,
}

impl Context {
    fn add(&mut self, severity: Severity, place: &Place, message: impl Into<String>, help: Option<String>) {
        let (file, span) = (Some(self.file), place.0.clone());
        self.report.add(Problem { severity, file, span, message: message.into(), help });
    }

    fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.add(Severity::Error, place, message, None);
    }

    fn error_with(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, place, message, Some(help.into()));
    }

    /// The value, or an error at its place.
    fn check<T, E: std::fmt::Display>(&mut self, place: &Place, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.error(place, error.to_string())).ok()
    }

    /// A name that must be one of the known: an error with the nearest one if it is not.
    fn unknown<'a>(&mut self, what: &str, name: &At<String>, known: impl Iterator<Item = &'a str>) {
        let help = super::source::suggest(&name.value, known);
        self.add(Severity::Error, &name.span, format!("there is no {what} `{}`", name.value), help);
    }

    /// Whether a mistake in a section makes judging references to it pointless.
    fn is_cut(&self, section: &str) -> bool {
        self.cut.iter().any(|cut| cut == section)
    }

    fn not_yet<T>(&mut self, setting: &str, value: Option<&At<T>>) {
        if let Some(value) = value {
            self.error(&value.span, format!("{setting} is not supported yet"));
        }
    }

    /// The bytes of the file at a place.
    fn text(&self, place: &Place) -> &str {
        self.report.files.get(self.file).and_then(|file| file.text.get(place.0.clone())).unwrap_or_default()
    }

    fn folder(&self) -> PathBuf {
        let path = self.report.files.get(self.file).map(|file| file.path.clone());
        path.and_then(|path| path.parent().map(std::path::Path::to_owned)).unwrap_or_default()
    }
}

/// Something of one of the files.
struct InFile<T> {
    file: usize,
    item: T,
}

/// A section that may stand in several files, each name once.
fn named<'a, T>(
    context: &mut Context,
    files: &'a [raw::File],
    what: &str,
    section: impl Fn(&'a raw::File) -> &'a BTreeMap<At<String>, At<T>>,
) -> Vec<(&'a At<String>, InFile<&'a At<T>>)> {
    let mut found: HashMap<&str, usize> = HashMap::new();
    let mut items = Vec::new();
    for (file, raw) in files.iter().enumerate() {
        context.file = file;
        for (name, item) in section(raw) {
            match found.insert(&name.value, file) {
                None => items.push((name, InFile { file, item })),
                Some(other) => {
                    let path = context.report.files[other].path.display().to_string();
                    context
                        .error(&name.span, format!("{what} `{}` is already defined in {path}", name.value));
                }
            }
        }
    }
    items
}

/// A section that may stand in one file only; its default where it stands in none.
fn single<'a, T: Default + Clone + 'a>(
    context: &mut Context,
    files: &'a [raw::File],
    name: &str,
    section: impl Fn(&'a raw::File) -> Option<&'a At<T>>,
) -> T {
    let mut found: Option<(usize, &At<T>)> = None;
    for (file, raw) in files.iter().enumerate() {
        let Some(item) = section(raw) else { continue };
        if let Some((other, _)) = found {
            context.file = file;
            let path = context.report.files[other].path.display().to_string();
            context.error(&item.span, format!("[{name}] is already defined in {path}"));
        } else {
            found = Some((file, item));
        }
    }
    context.file = found.map_or(0, |(file, _)| file);
    found.map(|(_, item)| item.value.clone()).unwrap_or_default()
}

/// What later sections refer to.
struct Known {
    /// Names of all routes, also of those with mistakes.
    names: Vec<String>,
    /// Routes without mistakes.
    routes: Vec<Arc<Route>>,
}

impl Known {
    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(String::as_str)
    }
}

/// Builds everything, or says all that is wrong.
pub(super) fn build(sources: Sources) -> Result<Loaded, Report> {
    let Sources { files, report, cut, patterns } = sources;
    let mut context = Context { report, cut, file: 0 };
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
        settings: server.settings,
        keys: server.keys,
        dialect: default_dialect,
        table,
        routes: known.routes,
        plans,
        listed: Vec::new(),
    };
    let hash = context.report.hash();
    Ok(Loaded { snapshot, accounts, keys, watched, hash, report: context.report })
}
