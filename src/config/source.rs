//! Reads files and their includes, and finds every mistake of shape.
//!
//! serde stops at the first mistake. So what it objects to is cut out of the parsed tree and it
//! is asked again, until it has nothing left to say: each round yields one error with its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::files;
use super::raw::{self, At};
use super::report::{Problem, Report, Severity, SourceFile};

/// Most mistakes of shape that are looked for in one file.
const MAX_MISTAKES: usize = 100;
/// Most files that are included.
const MAX_FILES: usize = 10_000;

/// Files as far as they could be read, and what is wrong with them.
pub(super) struct Sources {
    pub(super) files: Vec<raw::File>,
    pub(super) report: Report,
    /// Top-level sections out of which something was cut: what refers to them is not judged.
    pub(super) cut: Vec<String>,
    pub(super) patterns: Vec<String>,
}

/// Reads a file and everything it includes. Never fails: what is wrong stands in the report.
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
        take_in(folder, include, &mut sources);
    }
    sources
}

fn general(message: String) -> Problem {
    Problem { severity: Severity::Error, file: None, span: 0..0, message, help: None }
}

/// The files that a pattern of `include` stands for now.
pub(super) fn matching(pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
    Ok(glob::glob(pattern)?.filter_map(Result::ok).take(MAX_FILES + 1).collect())
}

fn take_in(folder: &Path, include: &At<String>, sources: &mut Sources) {
    let pattern = folder.join(&include.value).to_string_lossy().into_owned();
    let mut problem = |message: String, help: Option<&str>| {
        let (span, help) = (include.span.0.clone(), help.map(str::to_owned));
        sources.report.add(Problem { severity: Severity::Error, file: Some(0), span, message, help });
    };
    let paths = match matching(&pattern) {
        Ok(paths) => paths,
        Err(error) => return problem(format!("this is not a valid glob pattern: {error}"), None),
    };
    if paths.len() > MAX_FILES {
        return problem(format!("more than {MAX_FILES} files match"), None);
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
            let message = "an included file includes nothing itself".to_owned();
            let span = nested.span.0.clone();
            sources.report.add(Problem { file: Some(file), span, ..general(message) });
        }
    }
}

/// Reads one file to the end of `sources`.
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
        let help = Some("take that right from all others: chmod o-w".to_owned());
        let message = "anybody on this machine may change this file".to_owned();
        let severity = Severity::Warning;
        sources.report.add(Problem { severity, file: Some(file), span: 0..0, message, help });
    }
    let parsed = shape(file, &mut sources.report, &mut sources.cut);
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

/// Parses the text of a file of the report, or collects every mistake of syntax and shape.
fn shape(file: usize, report: &mut Report, cut: &mut Vec<String>) -> raw::File {
    let text = std::mem::take(&mut report.files[file].text);
    // A sound file, however long, is parsed once and nothing of it is copied.
    let sound = Deserializer::parse(&text).ok().and_then(|sound| raw::File::deserialize(sound).ok());
    report.files[file].text = text;
    sound.unwrap_or_else(|| mistakes_of(file, report, cut))
}

fn mistakes_of(file: usize, report: &mut Report, cut: &mut Vec<String>) -> raw::File {
    let text = report.files[file].text.clone();
    let (mut tree, mistakes) = DeTable::parse_recoverable(&text);
    for mistake in &mistakes {
        let span = mistake.span().unwrap_or_default();
        add(report, file, span, format!("this is not TOML: {}", mistake.message()), None);
    }
    let has_syntax_errors = !mistakes.is_empty();
    if has_syntax_errors {
        cut.extend(["routes", "upstreams", "plans", "dialects"].map(str::to_owned));
    }
    for _ in 0..MAX_MISTAKES {
        let error = match raw::File::deserialize(Deserializer::from(tree.clone())) {
            Ok(parsed) => return parsed,
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        // What is no TOML leaves names in the wrong place and settings out: only types are judged then.
        let follows = ["unknown field", "missing field"].iter().any(|what| error.message().starts_with(what));
        if !(has_syntax_errors && (follows || report.has_error_on_line(file, span.start))) {
            let (message, help) = reword(error.message());
            add(report, file, span.clone(), message, help);
        }
        match prune(tree.get_mut(), &span) {
            Some(section) => cut.push(section),
            None => break,
        }
    }
    raw::File::default()
}

fn add(report: &mut Report, file: usize, span: Range<usize>, message: String, help: Option<String>) {
    report.add(Problem { severity: Severity::Error, file: Some(file), span, message, help });
}

/// Says in our words what serde says, and finds the name that was meant.
fn reword(message: &str) -> (String, Option<String>) {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((unknown, known))) = (message.starts_with("unknown field"), names.split_first()) {
        return (format!("unknown setting `{unknown}`"), suggest(unknown, known.iter().copied()));
    }
    if let (true, Some(missing)) = (message.starts_with("missing field"), names.first()) {
        return (format!("the setting `{missing}` is missing"), None);
    }
    let message = message
        .replace("expected a sequence", "expected a list [ … ]")
        .replace("expected struct", "expected a table for")
        .replace("invalid type: ", "wrong type: ")
        .replace("a map", "a table");
    // Types say what was found; a string's content may be a secret, and the line is quoted anyway.
    let message = match (message.find("string \""), message.rfind("\", expected")) {
        (Some(from), Some(to)) if from < to => format!("{}a string{}", &message[..from], &message[to + 1..]),
        _ => message,
    };
    (message, None)
}

/// The known name that is nearest to what was written, or all of them if they are few.
pub(super) fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    let distance = |name: &&&str| strsim::damerau_levenshtein(wrong, name);
    let nearest = known.iter().min_by_key(distance)?;
    if strsim::damerau_levenshtein(wrong, nearest) <= 1 + nearest.len() / 3 {
        return Some(format!("did you mean `{nearest}`?"));
    }
    match known.len() {
        0 => None,
        1..=12 => Some(format!("known here: {}", known.join(", "))),
        _ => None,
    }
}

/// Cuts out what stands at a place, and answers which top-level section it was in.
fn prune(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let hit = |key: &Range<usize>, value: &Range<usize>| key == span || value == span;
    let found = table.iter().find(|(key, value)| hit(&key.span(), &value.span()) && !is_parent(value, span));
    if let Some((key, _)) = found {
        let name = key.get_ref().to_string();
        table.remove(name.as_str());
        return Some(name);
    }
    table
        .iter_mut()
        .find_map(|(key, value)| prune_value(value.get_mut(), span).then(|| key.get_ref().to_string()))
}

/// Whether an array of tables shares its place with its first element: then that one is meant.
fn is_parent(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_ref() {
        DeValue::Array(array) => array.iter().any(|element| element.span() == *span),
        _ => false,
    }
}

fn prune_value(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => prune(table, span).is_some(),
        DeValue::Array(array) => {
            if array.iter().any(|element| element.span() == *span) {
                let mut kept = DeArray::new();
                for element in array.iter().filter(|element| element.span() != *span) {
                    kept.push(element.clone());
                }
                *array = kept;
                return true;
            }
            array.iter_mut().any(|element| prune_value(element.get_mut(), span))
        }
        _ => false,
    }
}
