//! Reads the target of a request: host and path, normalised once for routing and forwarding.

use std::borrow::Cow;

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};

use crate::policy::forward;
use crate::policy::path::{self, NormalPath};
use crate::policy::reject::{Reason, Refusal};
use crate::policy::request_head::{HeadFault, MAX_FIELDS, is_method};

/// The target of a request.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The normalised path.
    pub(super) path: NormalPath<'a>,
    /// The requested host.
    pub(super) host: Option<Cow<'a, HeaderValue>>,
}

fn bad_request(detail: &'static str) -> Refusal {
    Refusal::because(Reason::BadRequest, detail)
}

impl<'a> Target<'a> {
    /// Reads the target of a request (RFC 9112, section 3.2; RFC 9113, section 8.3.1). `is_tls`: its connection uses
    /// TLS.
    ///
    /// # Errors
    /// [`Reason::BadRequest`], [`Reason::HeaderTooLarge`].
    pub(super) fn read(
        parts: &'a Parts,
        merge_slashes: bool,
        max_head: usize,
        is_tls: bool,
    ) -> Result<Self, Refusal> {
        if parts.method == Method::CONNECT {
            return Err(bad_request("The CONNECT method is not supported."));
        }
        if forward::has_too_many_options(&parts.headers) {
            return Err(bad_request("The request's Connection header names too many fields."));
        }
        if parts.version == Version::HTTP_2 {
            check_http2_head(parts, max_head)?;
        }
        let host = read_host(parts, is_tls)?;
        let path = path::normalise(parts.uri.path(), merge_slashes);
        let path =
            path.map_err(|fault| Refusal::because(Reason::BadRequest, format!("{}.", capitalised(fault))))?;
        Ok(Self { path, host })
    }
}

/// Checks HTTP/2 heads for faults that h2 accepts. The scanner of HTTP/1.1 does not see these heads.
fn check_http2_head(parts: &Parts, max_head: usize) -> Result<(), Refusal> {
    // RFC 9113, section 6.5.2: the size of each field is 32 bytes more than its name and value.
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    if parts.headers.len() > MAX_FIELDS || parts.headers.iter().map(size).sum::<usize>() > max_head {
        return Err(HeadFault::TooLarge.into());
    }
    let query = parts.uri.query().unwrap_or_default();
    if parts.headers.values().any(is_padded) {
        Err(bad_request("A header's value begins or ends with white space."))
    } else if !(parts.uri.path().is_ascii() && query.is_ascii()) {
        Err(HeadFault::NotAscii.into())
    } else if !is_method(parts.method.as_str().as_bytes()) {
        Err(HeadFault::Method.into())
    } else {
        Ok(())
    }
}

/// True if a value begins or ends with white space, which HTTP/1.1 trims, HTTP/2 forbids (RFC 9113, section
/// 8.2.1), and h2 accepts.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

fn capitalised(fault: path::PathFault) -> String {
    fault.to_string().replacen("the", "The", 1)
}

/// Reads the requested host: one valid `Host` header, which must match the authority of an absolute target.
fn read_host(parts: &Parts, is_tls: bool) -> Result<Option<Cow<'_, HeaderValue>>, Refusal> {
    let mut values = parts.headers.get_all(HOST).iter();
    let host = values.next();
    if values.next().is_some() {
        return Err(bad_request("The request has more than one Host header."));
    }
    let http2 = parts.version == Version::HTTP_2;
    if host.is_none() && (parts.version == Version::HTTP_11 || http2 && parts.uri.authority().is_none()) {
        return Err(bad_request("The request has no Host header."));
    }
    if let (Some(value), None) = (host, parts.uri.authority())
        && is_plain_name(value.as_bytes())
    {
        return Ok(host.map(Cow::Borrowed));
    }
    let valid = |value: &HeaderValue| {
        let authority = Authority::try_from(value.as_bytes()).ok();
        authority.filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
    };
    let named = match host {
        Some(value) if value.is_empty() && parts.uri.authority().is_none() => None,
        Some(value) => Some(valid(value).ok_or_else(|| bad_request("The request's Host is malformed."))?),
        None => None,
    };
    match (parts.uri.authority(), named) {
        (Some(target), _) if target.as_str().contains('@') => {
            Err(bad_request("The request target contains user information."))
        }
        (Some(_), _) if !is_scheme_of_connection(parts, is_tls) => {
            Err(bad_request("The scheme of the request target is not that of the connection."))
        }
        (Some(target), Some(named)) if *target != named => {
            Err(bad_request("The Host header does not match the request target."))
        }
        // An HTTP/2 request usually names its host only in its target (`:authority`).
        (Some(target), None) if host.is_none() && !target.host().is_empty() => {
            let host = HeaderValue::from_str(target.as_str());
            host.map(|host| Some(Cow::Owned(host)))
                .map_err(|_| bad_request("The request's host is malformed."))
        }
        (Some(_), None) if host.is_none() => Err(bad_request("The request's host is malformed.")),
        _ => Ok(host.map(Cow::Borrowed)),
    }
}

/// True if the target's scheme is that of its connection. HTTP/2 requests always have a scheme, which may be any:
/// `https` on a plain connection if a load balancer terminated TLS.
fn is_scheme_of_connection(parts: &Parts, is_tls: bool) -> bool {
    match parts.uri.scheme_str() {
        Some("https") => is_tls || parts.version == Version::HTTP_2,
        Some("http") => !is_tls || parts.version == Version::HTTP_2,
        _ => false,
    }
}

/// True for a name or an IPv4 address with an optional port, which nearly every request has.
fn is_plain_name(host: &[u8]) -> bool {
    let colon = memchr::memchr(b':', host).unwrap_or(host.len());
    let (name, port) = host.split_at(colon);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let port = port.strip_prefix(b":").unwrap_or(b"0");
    !name.is_empty()
        && name.iter().all(plain)
        && (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_names_one_host() {
        let good: [(&str, &[&str]); 4] = [
            ("/a", &["api.example.com"]),
            ("/a", &["[::1]:8080"]),
            ("http://a.example/b", &["a.example"]),
            ("/a", &[""]),
        ];
        for (uri, hosts) in good {
            assert!(Target::read(&parts(uri, hosts), false, 4096, false).is_ok(), "{uri} {hosts:?}");
        }
        let bad: [(&str, &[&str]); 8] = [
            ("/a", &[]),
            ("/a", &["a", "a"]),
            ("/a", &["a@b"]),
            ("/a", &["a b"]),
            ("http://a.example/b", &["b.example"]),
            ("http://u@a.example/b", &["a.example"]),
            ("https://a.example/b", &["a.example"]),
            ("*", &["a"]),
        ];
        for (uri, hosts) in bad {
            assert!(Target::read(&parts(uri, hosts), false, 4096, false).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn http2_heads_are_checked_as_strictly_as_http1() {
        let head = |method: &str, path: &str, value: &str| {
            let uri = format!("https://a.example{path}");
            let request = Request::builder().version(Version::HTTP_2).method(method).uri(uri);
            let (parts, ()) = request.header("x", value).body(()).unwrap().into_parts();
            Target::read(&parts, false, 4096, true).is_ok()
        };
        assert!(head("GET", "/a?b", "c"));
        for (method, path, value) in
            [("G'ET", "/a", "c"), ("GET", "/\u{e9}", "c"), ("GET", "/a?\u{e9}", "c"), ("GET", "/a", "c ")]
        {
            assert!(!head(method, path, value), "{method} {path} {value:?}");
        }
        let (mut parts, ()) =
            Request::builder().version(Version::HTTP_2).uri("/a").body(()).unwrap().into_parts();
        assert!(Target::read(&parts, false, 4096, true).is_err(), "no host at all");
        parts.headers.insert(HOST, HeaderValue::from_static("a.example"));
        assert_eq!(Target::read(&parts, false, 4096, true).unwrap().host.as_deref(), parts.headers.get(HOST));
    }
}
