//! Reads a configuration file and the files that it includes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use super::files;
use super::raw::{self, At};
use super::report::{Problem, Report, Severity, SourceFile};
use super::shape;

/// Most syntax errors, and most schema mismatches, that are reported for one file.
const MAX_MISTAKES: usize = 100;
/// Most files of a configuration.
const MAX_FILES: usize = 10_000;

/// The parsed files, without the parts that could not be read, and the mistakes in them.
pub(super) struct Sources {
    pub(super) files: Vec<raw::File>,
    pub(super) report: Report,
    /// Top-level settings from which a value was removed: references to them are not checked.
    pub(super) cut: Vec<String>,
    pub(super) patterns: Vec<String>,
}

/// Reads a file and everything it includes. Never fails: mistakes are in the report.
pub(super) fn read(path: &Path) -> Sources {
    let mut sources =
        Sources { files: Vec::new(), report: Report::default(), cut: Vec::new(), patterns: Vec::new() };
    if let Err(message) = read_one(path, &mut sources) {
        sources.report.add(general(message));
        return sources;
    }
    let includes = sources.files[0].include.clone();
    let folder = path.parent().unwrap_or(Path::new(""));
    for include in &includes {
        read_included(folder, include, &mut sources);
    }
    sources
}

fn general(message: String) -> Problem {
    Problem { severity: Severity::Error, file: None, span: 0..0, message, help: None }
}

/// Lists the files that a pattern of `include` matches, at most one more than [`MAX_FILES`].
pub(super) fn matching(pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
    Ok(glob::glob(pattern)?.filter_map(Result::ok).take(MAX_FILES + 1).collect())
}

fn read_included(folder: &Path, include: &At<String>, sources: &mut Sources) {
    let pattern = folder.join(&include.value).to_string_lossy().into_owned();
    let mut problem = |message: String, help: Option<&str>| {
        let (span, help) = (include.span.0.clone(), help.map(str::to_owned));
        sources.report.add(Problem { severity: Severity::Error, file: Some(0), span, message, help });
    };
    let paths = match matching(&pattern) {
        Ok(paths) => paths,
        Err(error) => return problem(format!("this is not a valid glob pattern: {error}"), None),
    };
    if sources.files.len() + paths.len() > MAX_FILES {
        return problem(format!("more than {MAX_FILES} files make up this configuration"), None);
    }
    if paths.is_empty() && !include.value.contains(['*', '?', '[']) {
        return problem(
            format!("there is no file {}", include.value),
            Some("paths are relative to this file"),
        );
    }
    sources.patterns.push(pattern);
    for path in paths {
        if let Err(message) = read_one(&path, sources) {
            let span = include.span.0.clone();
            sources.report.add(Problem { file: Some(0), span, ..general(message) });
            continue;
        }
        let file = sources.files.len() - 1;
        if let Some(nested) = sources.files[file].include.first() {
            let message = "an included file cannot include other files".to_owned();
            let span = nested.span.0.clone();
            sources.report.add(Problem { file: Some(file), span, ..general(message) });
        }
    }
}

/// Reads and parses one file, and appends it to `sources`.
fn read_one(path: &Path, sources: &mut Sources) -> Result<(), String> {
    let shown = path.display();
    let bytes = files::read(path, files::MAX_CONFIGURATION).map_err(|error| cannot_read(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{shown} is not UTF-8 (byte {at})")
    })?;
    let file = sources.report.files.len();
    sources.report.files.push(SourceFile { path: path.to_owned(), text });
    if files::is_open_to_all(path) {
        let help = Some("remove the write permission of other users: chmod o-w".to_owned());
        let message = "any user of this machine can change this file".to_owned();
        let severity = Severity::Warning;
        sources.report.add(Problem { severity, file: Some(file), span: 0..0, message, help });
    }
    let parsed = parse(file, &mut sources.report, &mut sources.cut);
    sources.files.push(parsed);
    Ok(())
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file {shown}; name one with -c FILE"),
        std::io::ErrorKind::PermissionDenied => format!("no permission to read {shown}"),
        _ => format!("{shown} cannot be read: {error}"),
    }
}

/// Parses the text of a file in the report, and reports its syntax errors and schema mismatches. The text may be
/// long, so it is moved, not copied.
fn parse(file: usize, report: &mut Report, cut: &mut Vec<String>) -> raw::File {
    let text = std::mem::take(&mut report.files[file].text);
    let (mut tree, syntax_errors) = DeTable::parse_recoverable(&text);
    let mistakes = shape::fit(tree.get_mut());
    let parsed = raw::File::deserialize(Deserializer::from(tree));
    report.files[file].text = text;
    for error in syntax_errors.iter().take(MAX_MISTAKES) {
        let span = error.span().unwrap_or_default();
        add(report, file, span, format!("this is not TOML: {}", error.message()), None);
    }
    let has_syntax_errors = !syntax_errors.is_empty();
    if has_syntax_errors {
        cut.extend(["routes", "upstreams", "plans", "dialects"].map(str::to_owned));
    }
    cut.extend(mistakes.sections);
    for mistake in mistakes.list.into_iter().take(MAX_MISTAKES) {
        let follows = mistake.is_about_names || report.has_error_on_line(file, mistake.span.start);
        if !(has_syntax_errors && follows) {
            add(report, file, mistake.span, mistake.message, mistake.help);
        }
    }
    parsed.unwrap_or_else(|error| {
        let message = "this is not a valid Tollgate configuration".to_owned();
        add(report, file, error.span().unwrap_or_default(), message, None);
        raw::File::default()
    })
}

fn add(report: &mut Report, file: usize, span: Range<usize>, message: String, help: Option<String>) {
    report.add(Problem { severity: Severity::Error, file: Some(file), span, message, help });
}
