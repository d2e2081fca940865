//! Decides which addresses webhooks may be sent to. An endpoint is chosen by customers, so it must not reach what only
//! this machine or its network can reach.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Networks that are not the public internet: the special-purpose registries of IANA (RFC 6890) and multicast. Of IPv6,
/// only 2000::/3 is public, without the networks here.
const NOT_PUBLIC: [&str; 21] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "2620:4f:8000::/48",
];

/// True if webhooks may be sent to an address: it is public, or in one of the networks that the configuration allows.
pub(super) fn may_be_reached(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical(); // an IPv4 address that is written as an IPv6 one is an IPv4 address
    allowed.iter().any(|network| network.contains(&address)) || is_public(address)
}

fn is_public(address: IpAddr) -> bool {
    let is_listed =
        |text: &&'static str| text.parse::<IpNet>().is_ok_and(|network| network.contains(&address));
    let may_be = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => is_global_unicast(address),
    };
    may_be && !NOT_PUBLIC.iter().any(is_listed)
}

fn is_global_unicast(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xe000 == 0x2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_and_allowed_addresses_are_reached() {
        let public =
            ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8"];
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "100::1",
        ];
        let is = |text: &str, allowed: &[IpNet]| may_be_reached(text.parse().unwrap(), allowed);
        for text in public {
            assert!(is(text, &[]), "{text}");
        }
        for text in private {
            assert!(!is(text, &[]), "{text}");
        }
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        assert!(is("10.1.2.3", &allowed) && is("::ffff:10.1.2.3", &allowed) && !is("127.0.0.1", &allowed));
        assert!(NOT_PUBLIC.iter().all(|text| text.parse::<IpNet>().is_ok()));
    }
}
