//! The style sheet and the script, in the binary, under names that change with their content.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file in the binary.
pub(super) struct Asset {
    /// The path it is served at, with its hash.
    pub(super) path: String,
    /// Its media type.
    pub(super) media_type: &'static str,
    /// Its bytes.
    pub(super) text: &'static str,
}

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, text: &'static str) -> Self {
        let hash = hex::encode(Sha256::digest(text));
        Self { path: format!("/assets/{name}-{}.{extension}", &hash[..12]), media_type, text }
    }
}

/// The style sheet.
pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("style.css")));

/// The script.
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("app", "js", "text/javascript; charset=utf-8", include_str!("app.js")));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_stays_small() {
        assert!(SCRIPT.text.len() <= 8 * 1024, "{} bytes", SCRIPT.text.len());
    }
}
