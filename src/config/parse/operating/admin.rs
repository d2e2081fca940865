//! Parses `[admin]`.

use crate::config::parse::context::Context;
use crate::config::raw;
use crate::types::KeyHash;

/// The environment variable with the admin token, if the file has none.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";
/// Paths that may be served without a token. `/healthz` and `/readyz` always are.
const OPEN: [&str; 2] = ["/metrics", "/openapi.json"];

/// The hash of the admin token, and the paths that are served without a token.
pub(in crate::config::parse) fn build(
    context: &mut Context,
    admin: &raw::Admin,
) -> (Option<KeyHash>, Vec<String>) {
    let token = match &admin.token_sha256 {
        Some(hash) => context.sha256(hash),
        None => std::env::var(TOKEN).ok().map(|token| KeyHash::of(token.as_bytes())),
    };
    let mut open = Vec::new();
    for path in admin.open.iter().flat_map(|list| &list.value) {
        if OPEN.contains(&path.value.as_str()) {
            open.push(path.value.clone());
        } else {
            context.unknown("open path", path, OPEN.into_iter());
        }
    }
    (token, open)
}
