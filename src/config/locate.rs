//! Finds the place in the configuration files that defines an account or a key, so that a refused change can name it.

use std::path::Path;

use super::source;
use crate::types::{AccountId, KeyHash};

/// What a configuration file defines.
#[derive(Clone, Debug)]
pub enum Defined {
    /// The account with this id.
    Account(AccountId),
    /// The key with this hash.
    Key(KeyHash),
}

/// The file and line that define an account or a key, such as `config.toml:12`. `None` if the files as they are now do
/// not define it. Reads and parses all files: do not call it where time matters.
#[must_use]
pub fn locate(path: &Path, wanted: &Defined) -> Option<String> {
    let sources = source::read(path);
    sources.files.iter().zip(&sources.report.files).find_map(|(raw, file)| {
        let at = match wanted {
            Defined::Account(id) => {
                raw.accounts.keys().find(|name| name.value == id.as_str()).map(|name| name.span.0.start)
            }
            Defined::Key(hash) => {
                let hash = hash.to_hex();
                let mut keys = raw.accounts.values().flat_map(|account| &account.value.keys);
                let is_it = |text: &str| text.eq_ignore_ascii_case(&hash);
                keys.find(|key| is_it(&key.value.sha256.value.0)).map(|key| key.value.sha256.span.0.start)
            }
        }?;
        let line = file.text.get(..at)?.matches('\n').count() + 1;
        Some(format!("{}:{line}", file.path.display()))
    })
}
