//! What becomes of imported lines.

use serde::Serialize;

/// Most lines of one import. Commands import long files in several parts.
pub const MAX_IMPORTED: usize = 500;

/// What became of imported lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Imported {
    /// Number of lines whose object was created.
    pub imported: u64,
    /// Number of lines whose object was there already: an account with the same terms, or a key with the same hash and
    /// account, whose terms stay as they are.
    pub known: u64,
    /// The lines that were refused. They changed nothing.
    pub refused: Vec<RefusedLine>,
}

/// A line that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedLine {
    /// The number of the line, from 1 on.
    pub line: u64,
    /// Why it was refused.
    pub message: String,
}

impl Imported {
    pub(in crate::control) fn refuse(&mut self, line: u64, why: impl ToString) {
        self.refused.push(RefusedLine { line, message: why.to_string() });
    }
}
