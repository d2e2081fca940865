//! What a request asks for: host, path and query, in the one form that is judged and forwarded.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::head::{HeadFault, MAX_FIELDS, is_method};
use crate::policy::forward;
use crate::policy::path::{self, NormalPath};
use crate::policy::reject::{Reason, Refusal};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A request's target, normalised once.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The path in normal form.
    pub(super) path: NormalPath<'a>,
    /// The host that was asked for.
    pub(super) host: Option<Cow<'a, HeaderValue>>,
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::because(Reason::BadRequest, detail)
}

/// Reads the target of a request (RFC 9112, section 3.2; RFC 9113, section 8.3.1), over TLS or not.
pub(super) fn read(
    parts: &Parts,
    merge_slashes: bool,
    max_head: usize,
    secure: bool,
) -> Result<Target<'_>, Refusal> {
    if parts.method == Method::CONNECT {
        return Err(bad("The CONNECT method is not supported."));
    }
    if forward::has_too_many_options(&parts.headers) {
        return Err(bad("The request's Connection header names too many fields."));
    }
    if parts.version == Version::HTTP_2 {
        http2_head_is_sound(parts, max_head)?;
    }
    let host = host(parts, secure)?;
    let path = path::normalise(parts.uri.path(), merge_slashes);
    let path =
        path.map_err(|fault| Refusal::because(Reason::BadRequest, format!("{}.", capitalised(fault))))?;
    Ok(Target { path, host })
}

/// What h2 lets pass, and the head scanner of HTTP/1.1 does not see.
fn http2_head_is_sound(parts: &Parts, max_head: usize) -> Result<(), Refusal> {
    // As its fields are counted (RFC 9113, section 6.5.2): 32 bytes more for each.
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    if parts.headers.len() > MAX_FIELDS || parts.headers.iter().map(size).sum::<usize>() > max_head {
        return Err(Refusal::because(Reason::HeaderTooLarge, HeadFault::TooLarge.message()));
    }
    let query = parts.uri.query().unwrap_or_default();
    if parts.headers.values().any(is_padded) {
        Err(bad("A header's value begins or ends with white space."))
    } else if !(parts.uri.path().is_ascii() && query.is_ascii()) {
        Err(bad(HeadFault::NotAscii.message()))
    } else if !is_method(parts.method.as_str().as_bytes()) {
        Err(bad(HeadFault::Method.message()))
    } else {
        Ok(())
    }
}

/// What HTTP/1.1 trims, HTTP/2 forbids (RFC 9113, section 8.2.1), and h2 lets pass.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

fn capitalised(fault: path::PathFault) -> String {
    fault.to_string().replacen("the", "The", 1)
}

/// The host asked for: one valid `Host`, which an absolute target must agree with.
fn host(parts: &Parts, secure: bool) -> Result<Option<Cow<'_, HeaderValue>>, Refusal> {
    let mut values = parts.headers.get_all(HOST).iter();
    let host = values.next();
    if values.next().is_some() {
        return Err(bad("The request has more than one Host header."));
    }
    let http2 = parts.version == Version::HTTP_2;
    if host.is_none() && (parts.version == Version::HTTP_11 || http2 && parts.uri.authority().is_none()) {
        return Err(bad("The request has no Host header."));
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
        Some(value) => Some(valid(value).ok_or_else(|| bad("The request's Host is malformed."))?),
        None => None,
    };
    match (parts.uri.authority(), named) {
        (Some(target), _) if target.as_str().contains('@') => {
            Err(bad("The request target contains user information."))
        }
        (Some(_), _) if !is_scheme_of(parts, secure) => {
            Err(bad("The scheme of the request target is not that of the connection."))
        }
        (Some(target), Some(named)) if *target != named => {
            Err(bad("The Host header does not match the request target."))
        }
        // HTTP/2 names the host in its target alone.
        (Some(target), None) if host.is_none() && !target.host().is_empty() => {
            let host = HeaderValue::from_str(target.as_str());
            host.map(|host| Some(Cow::Owned(host))).map_err(|_| bad("The request's host is malformed."))
        }
        (Some(_), None) if host.is_none() => Err(bad("The request's host is malformed.")),
        _ => Ok(host.map(Cow::Borrowed)),
    }
}

/// Whether the target's scheme is that of its connection. HTTP/2 always says one, which is the
/// client's where a balancer ended its TLS.
fn is_scheme_of(parts: &Parts, secure: bool) -> bool {
    match parts.uri.scheme_str() {
        Some("https") => secure || parts.version == Version::HTTP_2,
        Some("http") => !secure || parts.version == Version::HTTP_2,
        _ => false,
    }
}

/// A name or an IPv4 address, perhaps with a port: what nearly every request has.
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

/// The client's address: the peer's, or what trusted proxies say it is.
///
/// # Errors
/// [`Reason::BadRequest`] where a trusted proxy says what is no address: to take its own for it would
/// make all its clients one.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Refusal> {
    let mut address = peer.ip().to_canonical();
    if !is_trusted(address, trusted) {
        return Ok(address);
    }
    let values: SmallVec<[&[u8]; 4]> =
        headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let entries = values.iter().flat_map(|value| value.split(|&byte| byte == b',')).rev();
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        let next = std::str::from_utf8(entry).ok().and_then(forwarded_address);
        address = next.ok_or_else(|| bad("An entry of X-Forwarded-For is not an address."))?.to_canonical();
        if !is_trusted(address, trusted) {
            break;
        }
    }
    Ok(address)
}

/// An entry of `X-Forwarded-For`: an address, in brackets and with a port too, as Azure's gateways write it.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

/// Whether what this address says about others is believed.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
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
            assert!(read(&parts(uri, hosts), false, 4096, false).is_ok(), "{uri} {hosts:?}");
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
            assert!(read(&parts(uri, hosts), false, 4096, false).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn http2_is_read_as_strictly_as_http1() {
        let head = |method: &str, path: &str, value: &str| {
            let uri = format!("https://a.example{path}");
            let request = Request::builder().version(Version::HTTP_2).method(method).uri(uri);
            let (parts, ()) = request.header("x", value).body(()).unwrap().into_parts();
            read(&parts, false, 4096, true).is_ok()
        };
        assert!(head("GET", "/a?b", "c"));
        for (method, path, value) in
            [("G'ET", "/a", "c"), ("GET", "/\u{e9}", "c"), ("GET", "/a?\u{e9}", "c"), ("GET", "/a", "c ")]
        {
            assert!(!head(method, path, value), "{method} {path} {value:?}");
        }
        let (mut parts, ()) =
            Request::builder().version(Version::HTTP_2).uri("/a").body(()).unwrap().into_parts();
        assert!(read(&parts, false, 4096, true).is_err(), "no host at all");
        parts.headers.insert(HOST, HeaderValue::from_static("a.example"));
        assert_eq!(read(&parts, false, 4096, true).unwrap().host.as_deref(), parts.headers.get(HOST));
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "1.1.1.1, 203.0.113.9".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        let table = [
            ("10.0.0.1:1", "203.0.113.9"),
            ("198.51.100.1:1", "198.51.100.1"),
            ("[::ffff:10.0.0.1]:1", "203.0.113.9"),
        ];
        for (peer, expected) in table {
            let found = client(peer.parse().unwrap(), &headers, &trusted).unwrap();
            assert_eq!(found.to_string(), expected);
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_is_an_address_or_a_mistake() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let table = [
            ("198.51.100.7:1000", Some("198.51.100.7")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::ffff:198.51.100.7", Some("198.51.100.7")),
            ("nonsense, 198.51.100.7", Some("198.51.100.7")),
            ("198.51.100.7, 10.0.0.9:80,, ", Some("198.51.100.7")),
            ("", Some("10.0.0.1")),
            ("unknown", None),
            ("198.51.100.7, nonsense", None),
            ("198.51.100.7, nonsense, 10.0.0.2", None),
            ("198.51.100.7:port", None),
            ("198.51.100.7:70000", None),
            ("[198.51.100.7]", None),
            ("198.51.100.7/24", None),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(FORWARDED_FOR, text.parse().unwrap())]);
            let found = client("10.0.0.1:1".parse().unwrap(), &headers, &trusted).ok();
            assert_eq!(found.map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }
}
