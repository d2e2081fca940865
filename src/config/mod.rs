//! Reads configuration files into a snapshot with its accounts and keys, or reports all their mistakes.

mod files;
mod limits;
mod loaded;
mod locate;
mod mask;
mod parse;
pub mod raw;
pub mod reload;
mod report;
mod shape;
mod source;

use std::path::Path;

pub use limits::{parse_limits, parse_stored_limits};
pub use loaded::{FileAccount, FileKey, LoadedConfig, Watched};
pub use locate::{Defined, locate};
pub use mask::mask;
pub use parse::ledger_place;
pub use parse::values::duration as parse_duration;
pub use report::{Problem, ProblemJson, Report, Severity, SourceFile};

use crate::types::KeyHash;

/// Computes [`LoadedConfig::hash`] for the files as they are now, without parsing them: takes milliseconds for a file of a
/// hundred thousand keys. `None` if a configuration file cannot be read.
#[must_use]
pub fn hash_of(path: &Path, watched: &Watched) -> Option<KeyHash> {
    let mut content = report::Content::default();
    content.file(path, &files::read(path, files::MAX_CONFIGURATION).ok()?);
    for included in watched.patterns.iter().flat_map(|pattern| source::matching(pattern).unwrap_or_default())
    {
        content.file(&included, &files::read(&included, files::MAX_CONFIGURATION).ok()?);
    }
    Some(content.finish(
        watched.secrets.iter().map(|path| parse::values::held(&files::read(path, files::MAX_SECRET))),
    ))
}

/// Reads, checks and resolves a configuration.
///
/// # Errors
/// All mistakes, each with its place in a file.
pub fn load(path: &Path) -> Result<LoadedConfig, Report> {
    let sources = source::read(path);
    parse::build(sources)
}
