//! Problems of a configuration and their places in its files, as text and as JSON.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::mask::{mask, mask_line, secret_places};
use crate::types::KeyHash;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path that it was read from.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, but an operator should look at it.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// Index of the file in [`Report::files`]; `None` if the problem concerns no file.
    pub file: Option<usize>,
    /// Range of bytes in the file.
    pub span: Range<usize>,
    /// Describes the problem.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

/// All problems of a configuration. Its text and its JSON contain no raw key and no hash: quoted lines are masked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The files that problems point into.
    pub files: Vec<SourceFile>,
    /// Files that secrets were read from, with the hash of their content (zeros if a file could not be read).
    pub secrets: Vec<(PathBuf, KeyHash)>,
    problems: Vec<Problem>,
    /// Byte ranges of the secrets in each file; found when a line is quoted for the first time.
    secret_places: OnceLock<Vec<Vec<Range<usize>>>>,
}

/// A problem as JSON: lines and columns count from 1, columns in characters.
#[derive(Debug, Serialize)]
pub struct ProblemJson {
    severity: Severity,
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    help: Option<String>,
}

/// Computes the hash over the configuration files and the files that secrets were read from.
#[derive(Default)]
pub(super) struct Content(Sha256);

impl Content {
    pub(super) fn file(&mut self, path: &Path, text: &[u8]) {
        let path = path.as_os_str().as_encoded_bytes();
        for part in [&path.len().to_le_bytes()[..], path, &text.len().to_le_bytes(), text] {
            self.0.update(part);
        }
    }

    pub(super) fn finish(mut self, secrets: impl Iterator<Item = KeyHash>) -> KeyHash {
        secrets.for_each(|secret| self.0.update(secret.0));
        KeyHash(self.0.finalize().into())
    }
}

impl Report {
    /// A report with one error that concerns no file.
    #[must_use]
    pub fn of(message: String) -> Self {
        let mut report = Self::default();
        report.problems.push(Problem {
            severity: Severity::Error,
            file: None,
            span: 0..0,
            message,
            help: None,
        });
        report
    }

    /// Adds a problem, unless an equal one was added before.
    pub fn add(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// All problems, in the order of the files and the lines.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let mut sorted: Vec<&Problem> = self.problems.iter().collect();
        sorted.sort_by_key(|problem| (problem.file, problem.span.start));
        sorted.into_iter()
    }

    /// SHA-256 over the configuration files and the files that secrets were read from, to detect changes.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        let mut content = Content::default();
        for file in &self.files {
            content.file(&file.path, file.text.as_bytes());
        }
        content.finish(self.secrets.iter().map(|(_, secret)| *secret))
    }

    /// The number of errors: any error makes the configuration invalid.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// True if the line of this byte position already has an error.
    #[must_use]
    pub fn has_error_on_line(&self, file: usize, at: usize) -> bool {
        let line = |at| self.position(file, at).map(|(line, _)| line);
        self.problems.iter().any(|problem| {
            problem.severity == Severity::Error
                && problem.file == Some(file)
                && line(problem.span.start) == line(at)
        })
    }

    /// Line and column of a byte position, both counted from 1; the column in characters.
    fn position(&self, file: usize, at: usize) -> Option<(usize, usize)> {
        let text = &self.files.get(file)?.text;
        let before = text.get(..at.min(text.len()))?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    }

    /// All problems as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<ProblemJson> {
        let json = |problem: &Problem| {
            let place = problem.file.and_then(|file| self.position(file, problem.span.start));
            let path = problem.file.and_then(|file| self.files.get(file));
            ProblemJson {
                severity: problem.severity,
                file: path.map(|file| file.path.display().to_string()),
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                message: mask(&problem.message),
                help: problem.help.as_deref().map(mask),
            }
        };
        self.problems().map(json).collect()
    }

    fn render(&self, problem: &Problem) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = mask(&problem.message);
        let mut group =
            level.primary_title(&message).elements(std::iter::empty::<annotate_snippets::Padding>());
        let quoted = problem.file.and_then(|file| self.quote(file, &problem.span));
        if let Some(quoted) = &quoted {
            let snippet = Snippet::source(&quoted.text)
                .line_start(quoted.line)
                .path(&quoted.path)
                .annotation(AnnotationKind::Primary.span(quoted.span.clone()));
            group = group.element(snippet);
        }
        let help = problem.help.as_deref().map(mask);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help));
        }
        Renderer::plain().render(&[group])
    }

    /// Quotes the line on which a span begins: with its secrets masked, and the span adjusted to the masked text.
    fn quote(&self, file: usize, span: &Range<usize>) -> Option<Quoted> {
        let source = self.files.get(file)?;
        let start = span.start.min(source.text.len());
        let line_start = source.text.get(..start)?.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = source.text.get(line_start..)?;
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        let within = start - line_start..span.end.clamp(start, line_start + line.len()) - line_start;
        let of_file = |file: &SourceFile| secret_places(&file.text);
        let secrets =
            self.secret_places.get_or_init(|| self.files.iter().map(of_file).collect()).get(file)?;
        let clamp = |end: usize| end.clamp(line_start, line_start + line.len()) - line_start;
        let secrets: Vec<_> = secrets.iter().map(|place| clamp(place.start)..clamp(place.end)).collect();
        let (text, span) = mask_line(line, within, &secrets);
        let (line, _) = self.position(file, start)?;
        Some(Quoted { path: source.path.display().to_string(), text, line, span })
    }
}

struct Quoted {
    path: String,
    text: String,
    line: usize,
    span: Range<usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems() {
            writeln!(out, "{}\n", self.render(problem))?;
        }
        match self.errors() {
            0 => Ok(()),
            1 => write!(out, "1 error"),
            errors => write!(out, "{errors} errors"),
        }
    }
}

impl std::error::Error for Report {}
