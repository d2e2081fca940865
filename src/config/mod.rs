//! From files to a snapshot and the accounts and keys beside it, or to all that is wrong.

mod files;
mod mask;
mod parse;
pub mod raw;
pub mod reload;
mod report;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

pub use mask::mask;
pub use parse::values::duration as parse_duration;
pub use report::{Problem, ProblemJson, Report, Severity, SourceFile};

use crate::policy::limit::Limit;
use crate::snapshot::Snapshot;
use crate::types::{AccountId, Credits, KeyHash, WallTime};

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Everything but accounts and keys; routes are not numbered yet.
    pub snapshot: Snapshot,
    /// Accounts that stand in the files.
    pub accounts: Vec<FileAccount>,
    /// Keys that stand in the files.
    pub keys: Vec<FileKey>,
    /// Files and folders that were read, to be watched.
    pub watched: Watched,
    /// SHA-256 over all files, to tell whether anything changed.
    pub hash: KeyHash,
    /// Warnings only.
    pub report: Report,
}

/// What a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Files that secrets were read from.
    pub secrets: Vec<PathBuf>,
    /// These, and the files themselves.
    pub files: Vec<PathBuf>,
    /// Patterns of `include`.
    pub patterns: Vec<String>,
}

/// An account of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccount {
    /// The operator's name for it.
    pub id: AccountId,
    /// The name of its plan.
    pub plan: Option<String>,
    /// The opening grant.
    pub credits: Option<Credits>,
    /// Where the customer wants to be told.
    pub webhooks: Vec<String>,
}

/// A key of a file.
#[derive(Clone, Debug)]
pub struct FileKey {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// Whose it is.
    pub account: AccountId,
    /// What people call it.
    pub label: String,
    /// Patterns of the routes it opens; `None` for every route.
    pub scopes: Option<Vec<String>>,
    /// From when on it does not work.
    pub expires: Option<WallTime>,
    /// Networks it may come from.
    pub allow_from: Option<Vec<IpNet>>,
    /// In place of the plan's.
    pub limits: Option<Arc<[Limit]>>,
}

/// What [`Loaded::hash`] would be now, without parsing anything: tells in milliseconds whether a file of
/// a hundred thousand keys changed. None where something cannot be read.
#[must_use]
pub fn hash_of(path: &Path, watched: &Watched) -> Option<KeyHash> {
    let mut content = report::Content::default();
    content.file(path, &files::read(path, files::MAX_CONFIGURATION).ok()?);
    for included in watched.patterns.iter().flat_map(|pattern| source::matching(pattern).unwrap_or_default())
    {
        content.file(&included, &files::read(&included, files::MAX_CONFIGURATION).ok()?);
    }
    Some(content.finish(
        watched.secrets.iter().map(|path| parse::values::held(&files::read_text(path, files::MAX_SECRET))),
    ))
}

/// Reads, checks and resolves a configuration.
///
/// # Errors
/// All that is wrong with it, each at its place.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let sources = source::read(path);
    parse::build(sources)
}
