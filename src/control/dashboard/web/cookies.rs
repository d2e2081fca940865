//! The cookie that keeps a session.

use http::{HeaderMap, HeaderValue, header};

use crate::types::Secret;

/// The cookie's name where the dashboard is reached over HTTPS: browsers keep it to this host (RFC 6265bis, 4.1.3.2).
const SECURE: &str = "__Host-tollgate";
/// The cookie's name where it is not, such as on the own machine.
const PLAIN: &str = "tollgate";

/// Reads the session's secret.
pub(in crate::control::dashboard) fn session(headers: &HeaderMap, is_https: bool) -> Option<String> {
    let name = if is_https { SECURE } else { PLAIN };
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name && !value.is_empty()).then(|| value.to_owned())
    });
    found.next()
}

/// The cookie of a session. It ends with the browser's session; the ledger knows when it ends at the latest.
pub(in crate::control::dashboard) fn keep(secret: &Secret<String>, is_https: bool) -> Option<HeaderValue> {
    let text = match is_https {
        true => format!("{SECURE}={}; Path=/; Secure; HttpOnly; SameSite=Lax", secret.reveal()),
        false => format!("{PLAIN}={}; Path=/; HttpOnly; SameSite=Lax", secret.reveal()),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Deletes the cookie.
pub(in crate::control::dashboard) fn clear(is_https: bool) -> HeaderValue {
    HeaderValue::from_static(match is_https {
        true => "__Host-tollgate=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
        false => "tollgate=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0",
    })
}
