//! Pages of lists.

use serde::Serialize;
use utoipa::ToSchema;

/// Rows of one page, if the caller does not say how many.
pub const DEFAULT_LIMIT: usize = 50;
/// Most rows of one page.
pub const MAX_LIMIT: usize = 1_000;

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows of this page.
    pub data: Vec<T>,
    /// Where the next page begins; null on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of at most `most` rows from a list in which one more was read, if there is one. `cursor`: the
    /// position of a row.
    pub(in crate::control) fn of(mut rows: Vec<T>, most: usize, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = rows.len() > most;
        rows.truncate(most);
        let next_cursor = rows.last().filter(|_| has_more).map(cursor);
        Self { data: rows, next_cursor }
    }

    /// The same page with other rows.
    pub(in crate::control) fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(change).collect(), next_cursor: self.next_cursor }
    }
}
