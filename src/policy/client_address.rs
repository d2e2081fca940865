//! Determines a request's client address from its peer, the trusted proxies and `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::reject::{Reason, Refusal};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// True if an address belongs to a trusted proxy, whose forwarding headers are believed.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// The client's address: the peer's, or the one that trusted proxies forwarded.
///
/// # Errors
/// [`Reason::BadRequest`] if a trusted proxy forwarded an entry that is not an address. With the proxy's own
/// address instead, all its clients would count as one client.
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Refusal> {
    let mut address = peer.ip().to_canonical();
    if !is_trusted(address, trusted) {
        return Ok(address);
    }
    let values: SmallVec<[&[u8]; 4]> =
        headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let entries = values.iter().flat_map(|value| value.split(|&byte| byte == b',')).rev();
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        let next = std::str::from_utf8(entry).ok().and_then(forwarded_address);
        let malformed =
            || Refusal::because(Reason::BadRequest, "An entry of X-Forwarded-For is not an address.");
        address = next.ok_or_else(malformed)?.to_canonical();
        if !is_trusted(address, trusted) {
            break;
        }
    }
    Ok(address)
}

/// Parses an entry of `X-Forwarded-For`: an address, optionally in brackets and with a port, as Azure's
/// gateways write it.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, since one client
/// can usually use every address of a /64.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = client_address(peer.parse().unwrap(), &headers, &trusted).unwrap();
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
            let found = client_address("10.0.0.1:1".parse().unwrap(), &headers, &trusted).ok();
            assert_eq!(found.map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }
}
