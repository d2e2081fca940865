//! Shared by the parsers of all sections: reports problems, keeps track of the current file, and finds sections that
//! may be in several files.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::config::raw::{self, At, Place};
use crate::config::report::{Problem, Report, Severity};
use crate::config::shape::suggest;
use crate::snapshot::Route;
use crate::tls::client::system_authorities;

/// Collects problems while the sections of the files are checked.
pub(super) struct Context {
    pub(super) report: Report,
    /// Sections from which a value was removed; see `Sources::cut`.
    pub(super) cut: Vec<String>,
    pub(super) file: usize,
    /// The certificate authorities that the system trusts, once they were read.
    system_authorities: Option<Result<Vec<CertificateDer<'static>>, String>>,
}

impl Context {
    pub(super) fn new(report: Report, cut: Vec<String>) -> Self {
        Self { report, cut, file: 0, system_authorities: None }
    }

    /// The certificate authorities that the system trusts. They are read once.
    pub(super) fn system_authorities(&mut self) -> Result<Vec<CertificateDer<'static>>, String> {
        self.system_authorities.get_or_insert_with(system_authorities).clone()
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        place: &Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let (file, span) = (Some(self.file), place.0.clone());
        self.report.add(Problem { severity, file, span, message: message.into(), help });
    }

    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.add(Severity::Error, place, message, None);
    }

    pub(super) fn error_with(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, place, message, Some(help.into()));
    }

    /// Returns the value, or reports the error at this place.
    pub(super) fn check<T, E: std::fmt::Display>(
        &mut self,
        place: &Place,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.error(place, error.to_string())).ok()
    }

    /// Reports an unknown name, and suggests the closest known one.
    pub(super) fn unknown<'a>(
        &mut self,
        what: &str,
        name: &At<String>,
        known: impl Iterator<Item = &'a str>,
    ) {
        let help = suggest(&name.value, known);
        self.add(Severity::Error, &name.span, format!("there is no {what} `{}`", name.value), help);
    }

    /// True if a section has a mistake, so that references to it are not checked.
    pub(super) fn is_cut(&self, section: &str) -> bool {
        self.cut.iter().any(|cut| cut == section)
    }

    /// The text of the current file at a place.
    pub(super) fn text(&self, place: &Place) -> &str {
        self.report.files.get(self.file).and_then(|file| file.text.get(place.0.clone())).unwrap_or_default()
    }

    pub(super) fn folder(&self) -> PathBuf {
        let path = self.report.files.get(self.file).map(|file| file.path.clone());
        path.and_then(|path| path.parent().map(std::path::Path::to_owned)).unwrap_or_default()
    }
}

/// An item, and the index of the file that contains it.
pub(super) struct InFile<T> {
    pub(super) file: usize,
    pub(super) item: T,
}

/// Collects the items of a section that may be in several files. A name that is defined twice is an error.
pub(super) fn named<'a, T>(
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

/// Finds a section that may be in one file only; returns its default if no file has it.
pub(super) fn single<'a, T: Default + Clone + 'a>(
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

/// The routes, to which later sections refer.
pub(super) struct Known {
    /// Names of all routes, including those with mistakes.
    pub(super) names: Vec<String>,
    /// Routes without mistakes.
    pub(super) routes: Vec<Arc<Route>>,
}

impl Known {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(String::as_str)
    }
}
