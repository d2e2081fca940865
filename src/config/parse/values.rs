//! Parses values with their own syntax: durations, sizes, credits, secrets, headers, networks, methods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use ipnet::IpNet;

use super::context::Context;
use crate::config::files;
use crate::config::raw::{self, Amount, At, Place};
use crate::policy::forward;
use crate::policy::route::{Methods, glob_matches};
use crate::types::{Credits, KeyHash};

/// Reads `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"90d"`.
///
/// # Errors
/// A message that shows what a duration looks like, or says that it is too long.
pub fn duration(text: &str) -> Result<Duration, String> {
    let error = || "a duration looks like \"250ms\", \"10s\", \"5m\", \"24h\" or \"90d\"".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let number: u64 = text[..at].parse().map_err(|_| error())?;
    let millis = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "this duration is too long".to_owned())
}

/// Reads `"512B"`, `"32KiB"`, `"100MiB"`, `"1GiB"`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let error = || "a size looks like \"512B\", \"32KiB\", \"100MiB\" or \"1GiB\"".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let number: u64 = text[..at].parse().map_err(|_| error())?;
    let factor = match &text[at..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error()),
    };
    number.checked_mul(factor).ok_or_else(|| "this size is too large".to_owned())
}

/// The hash of the content of a file with a secret; zeros if it could not be read.
pub(in crate::config) fn held(read: &std::io::Result<impl AsRef<[u8]>>) -> KeyHash {
    read.as_ref().map_or(KeyHash([0; 32]), |content| KeyHash::of(content.as_ref()))
}

impl Context {
    /// Parses a duration; returns the default if it is not set. Zero is an error.
    pub(super) fn duration(&mut self, value: Option<&At<raw::Duration>>, default: Duration) -> Duration {
        let Some(value) = value else { return default };
        let parsed = self.check(&value.span, duration(&value.value.0));
        if parsed.is_some_and(|parsed| parsed.is_zero()) {
            self.error(&value.span, "this duration must not be zero");
        }
        parsed.unwrap_or(default)
    }

    /// Parses a duration of which `0s` means that there is no limit; returns the default if it is not set.
    pub(super) fn duration_or_none(
        &mut self,
        value: Option<&At<raw::Duration>>,
        default: Duration,
    ) -> Option<Duration> {
        let Some(value) = value else { return Some(default) };
        let parsed = self.check(&value.span, duration(&value.value.0)).unwrap_or(default);
        (!parsed.is_zero()).then_some(parsed)
    }

    /// Parses a share in percent; returns the default if it is not set.
    pub(super) fn percent(&mut self, value: Option<&At<raw::Percent>>, default: u32) -> u32 {
        let Some(value) = value else { return default };
        let number = value.value.0.strip_suffix('%').and_then(|number| number.parse().ok());
        let share = number.filter(|share| *share <= 100);
        self.check(&value.span, share.ok_or("a share looks like \"50%\", at most \"100%\""))
            .unwrap_or(default)
    }

    /// Parses a size; returns the default if it is not set. A size outside the bounds is an error. All in bytes.
    pub(super) fn size(
        &mut self,
        value: Option<&At<raw::Size>>,
        default: u64,
        (least, most): (u64, u64),
    ) -> u64 {
        let Some(value) = value else { return default };
        let parsed = self.check(&value.span, size(&value.value.0));
        if parsed.is_some_and(|parsed| parsed < least || parsed > most) {
            self.error(&value.span, format!("this size must be from {least} to {most} bytes"));
        }
        parsed.unwrap_or(default)
    }

    /// Parses credits; decimals are parsed from the file's text. A negative amount is an error.
    pub(super) fn credits(&mut self, value: &At<Amount>) -> Option<Credits> {
        let text = match &value.value {
            Amount::Whole(whole) => whole.to_string(),
            Amount::Decimal => self.text(&value.span).replace('_', ""),
            Amount::Text(text) => text.clone(),
        };
        let text = text.strip_prefix('+').unwrap_or(&text);
        let parsed = text.parse::<Credits>().map_err(|error| format!("this amount {error}"));
        let credits = self.check(&value.span, parsed)?;
        if credits.is_negative() {
            self.error(&value.span, "an amount of credits is not negative");
            return None;
        }
        Some(credits)
    }

    /// Reads a value that may be in an environment variable (`env:NAME`) or in a file
    /// (`file:PATH`). Messages never show it.
    pub(super) fn secret(&mut self, place: &Place, text: &str) -> Option<String> {
        if let Some(name) = text.strip_prefix("env:") {
            let found = std::env::var(name).map_err(|_| format!("the environment has no variable {name}"));
            return self.check(place, found);
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = self.folder().join(path);
            let bytes = files::read(&path, files::MAX_SECRET);
            self.report.secrets.push((path.clone(), held(&bytes)));
            let read = bytes.and_then(files::text);
            let read = read.map_err(|error| format!("{} cannot be read: {error}", path.display()));
            return self.check(place, read).map(|text| text.trim_end().to_owned());
        }
        Some(text.to_owned())
    }

    /// Parses a SHA-256 of 64 hex digits. The error does not show the text, because it may be a raw key.
    pub(super) fn sha256(&mut self, value: &At<raw::Sha256>) -> Option<KeyHash> {
        let text = self.secret(&value.span, &value.value.0)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.error_with(
                &value.span,
                "this is not a SHA-256 (64 hex digits)",
                "`tollgate key hash` reads a key and prints its SHA-256; a raw key never belongs in a file",
            );
        }
        parsed
    }

    pub(super) fn header_name(&mut self, place: &Place, text: &str) -> Option<HeaderName> {
        let name = HeaderName::try_from(text).map_err(|_| format!("`{text}` is not a valid header name"));
        self.check(place, name)
    }

    /// Parses a header value. The error does not show the value, because it may be secret.
    pub(super) fn header_value(&mut self, place: &Place, text: &str) -> Option<HeaderValue> {
        let value = HeaderValue::try_from(text).map_err(|_| "this is not a valid header value");
        self.check(place, value)
    }

    /// Parses the headers that the operator sets on requests. Reserved are headers that frame or route a message, and
    /// headers in which Tollgate identifies the request and the client to the upstream.
    pub(super) fn set_headers(
        &mut self,
        raw: &BTreeMap<At<String>, At<raw::Secret>>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let reserved = [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::HOST,
            header::UPGRADE,
            header::TE,
            forward::REQUEST_ID,
            HeaderName::from_static("x-forwarded-for"),
        ];
        let mut headers = Vec::new();
        for (name, value) in raw {
            let Some(parsed) = self.header_name(&name.span, &name.value) else { continue };
            if reserved.contains(&parsed) || parsed.as_str().starts_with(forward::OWN_PREFIX) {
                let help =
                    if parsed == header::HOST { "use `host` of the upstream" } else { "Tollgate sets it" };
                self.error_with(&name.span, format!("`{parsed}` cannot be set here"), help);
                continue;
            }
            let Some(text) = self.secret(&value.span, &value.value.0) else { continue };
            if let Some(mut value) = self.header_value(&value.span, &text) {
                value.set_sensitive(true);
                headers.push((parsed, value));
            }
        }
        headers
    }

    pub(super) fn networks(&mut self, list: &[At<String>]) -> Vec<IpNet> {
        let parse = |text: &str| {
            let address = || text.parse::<std::net::IpAddr>().map(IpNet::from).ok();
            text.parse::<IpNet>().ok().or_else(address).map(|net| net.trunc())
        };
        list.iter()
            .filter_map(|item| {
                let net = parse(&item.value);
                if net.is_none() {
                    self.error(
                        &item.span,
                        "a network looks like \"203.0.113.0/24\", \"2001:db8::/32\" or an address",
                    );
                }
                net
            })
            .collect()
    }

    pub(super) fn methods(&mut self, list: Option<&At<Vec<At<String>>>>) -> Methods {
        let Some(list) = list else { return Methods::All };
        if list.value.is_empty() {
            self.error(&list.span, "an empty list allows no request; omit the setting to allow all methods");
        }
        let mut methods: Vec<Method> = Vec::new();
        for item in &list.value {
            match Method::from_bytes(item.value.as_bytes()) {
                Ok(method) if item.value == item.value.to_ascii_uppercase() && method != Method::CONNECT => {
                    if methods.contains(&method) {
                        self.error(&item.span, format!("{method} is listed twice"));
                    }
                    methods.push(method);
                }
                _ => {
                    let help = "methods are in capitals: GET, POST, PUT, PATCH, DELETE, …";
                    self.error_with(
                        &item.span,
                        format!("`{}` is not a method that can be forwarded", item.value),
                        help,
                    );
                }
            }
        }
        Methods::Only(methods)
    }

    /// Checks that each pattern matches at least one route.
    pub(super) fn route_patterns<'a>(
        &mut self,
        list: &[At<String>],
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<String> {
        for item in list {
            let matches = names.clone().any(|name| glob_matches(&item.value, name));
            if !matches && !self.is_cut("routes") {
                let help = crate::config::shape::suggest(&item.value, names.clone());
                let message = format!("`{}` matches no route", item.value);
                self.add(crate::config::Severity::Error, &item.span, message, help);
            }
        }
        list.iter().map(|item| item.value.clone()).collect()
    }
}

/// An address with a port.
pub(super) fn address(context: &mut Context, text: &At<String>) -> Option<SocketAddr> {
    let parsed = text.value.parse().map_err(|_| "an address looks like \"127.0.0.1:8080\" or \"[::1]:8080\"");
    context.check(&text.span, parsed)
}

/// Addresses, of which none is listed twice.
pub(super) fn listen(context: &mut Context, list: Option<&At<Vec<At<String>>>>) -> Option<Vec<SocketAddr>> {
    let list = list?;
    if list.value.is_empty() {
        context.error(&list.span, "at least one address is needed");
    }
    let mut addresses = Vec::new();
    for item in &list.value {
        if let Some(parsed) = address(context, item) {
            if parsed.port() != 0 && addresses.contains(&parsed) {
                context.error(&item.span, "this address is listed twice");
            }
            addresses.push(parsed);
        }
    }
    Some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(size("32KiB"), Ok(32_768));
        for wrong in
            ["", "10", "s", "1.5s", "-1s", "10 s", "10S", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "10", "10KB", "1.5MiB", "18446744073709551615GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
