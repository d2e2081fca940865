//! Tests that the PROXY protocol and `X-Forwarded-For` are accepted from trusted proxies only.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Gateway, Upstream, config};

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\n";

fn v2() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    bytes.extend([203, 0, 113, 9, 10, 0, 0, 1, 0x0f, 0xa0, 0, 80]);
    bytes
}

/// Sends the bytes of a connection in pieces. Returns the start of the response with its status.
fn send(gateway: &Gateway, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(gateway.public).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        let _ = stream.write_all(piece); // the gateway may have closed it already
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).chars().take(12).collect()
}

const REQUEST: &[u8] =
    b"GET /open/x HTTP/1.1\r\nhost: gw.test\r\nx-forwarded-for: 198.51.100.1\r\nconnection: close\r\n\r\n";

fn trusting(more: &str) -> String {
    let settings = format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{more}");
    config("").replacen("[server]", &settings, 1)
}

/// A PROXY header is never guessed: with `proxy_protocol`, each connection of a trusted proxy must begin with one.
#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&trusting("proxy_protocol = true"), &upstream);
    let (v2, long) = (v2(), [V1, REQUEST].concat());
    let unknown: &[u8] = b"PROXY UNKNOWN\r\n";
    let table: [(&[&[u8]], &str); 7] = [
        (&[V1, REQUEST], "203.0.113.9"),
        (&[&long], "203.0.113.9"),
        (&[&long[..60], &long[60..]], "203.0.113.9"),
        (&[&V1[..10], &V1[10..], REQUEST], "203.0.113.9"),
        (&[&v2, REQUEST], "203.0.113.9"),
        (&[&v2[..14], &v2[14..], REQUEST], "203.0.113.9"),
        (&[unknown, REQUEST], "198.51.100.1, 127.0.0.1"),
    ];
    for (pieces, expected) in table {
        assert_eq!(send(&gateway, pieces), "HTTP/1.1 200");
        assert_eq!(upstream.last().header("x-forwarded-for"), Some(expected), "{pieces:?}");
    }
    upstream.clear();
    let endless = b"PROXY TCP4 ".repeat(300);
    for pieces in [&[b"PROXY TCP4 nonsense\r\n", REQUEST][..], &[REQUEST], &[&endless]] {
        assert_eq!(send(&gateway, pieces), "", "without a sound header the connection is closed");
    }
    assert_eq!(upstream.seen().len(), 0);
}

/// Where no PROXY header is expected, a client cannot use one to claim another address.
#[test]
fn a_header_that_is_not_expected_is_refused() {
    let upstream = Upstream::start();
    for text in [config(""), trusting("")] {
        let gateway = Gateway::start(&text, &upstream);
        assert_eq!(send(&gateway, &[V1, REQUEST]), "HTTP/1.1 400");
        assert_eq!(send(&gateway, &[&v2(), REQUEST]), "HTTP/1.1 400");
        assert_eq!(upstream.seen().len(), 0);
        assert_eq!(send(&gateway, &[REQUEST]), "HTTP/1.1 200");
        let trusts = text.contains("trusted_proxies");
        let expected = if trusts { "198.51.100.1, 127.0.0.1" } else { "127.0.0.1" };
        assert_eq!(upstream.take()[0].header("x-forwarded-for"), Some(expected));
    }
}

/// Azure's gateways append a port to each address; their clients are still distinguished. An entry that is not an
/// address is refused, because otherwise all clients would have the proxy's address.
#[test]
fn clients_behind_a_proxy_are_told_apart_with_ports_too() {
    let upstream = Upstream::start();
    let hash = crate::support::sha256("bound");
    let more = format!(
        "[accounts.bound]\n[[accounts.bound.keys]]\nlabel = \"k\"\nsha256 = \"{hash}\"\nallow_from = [\"203.0.113.0/24\", \"2001:db8::/32\"]\n"
    );
    let gateway = Gateway::start(&(trusting("") + &more), &upstream);
    let table = [
        ("203.0.113.7:1000", 200),
        ("[2001:db8::1]:443", 200),
        ("203.0.113.7", 200),
        ("198.51.100.7:1000", 403),
        ("203.0.113.7, unknown", 400),
        ("", 403),
    ];
    for (entry, status) in table {
        let headers = format!("x-api-key: bound\r\nx-forwarded-for: {entry}\r\n");
        assert_eq!(crate::support::get(gateway.public, "/free/a", &headers).status, status, "{entry}");
    }
}

/// Failed keys are limited by address: past the limit, no key from that address is checked for a while.
#[test]
fn keys_that_do_not_work_are_limited_by_address() {
    let upstream = Upstream::start();
    let text = config("").replacen("[server]", "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]", 1).replacen(
        "[upstreams.api]",
        "[auth]\nfailed_keys_per_minute = 20\n[upstreams.api]",
        1,
    );
    let gateway = Gateway::start(&text, &upstream);
    let ask = |address: &str, key: &str| {
        let headers = format!("x-api-key: {key}\r\nx-forwarded-for: {address}\r\n");
        crate::support::get(gateway.public, "/one", &headers)
    };
    let statuses: Vec<u16> = (0..25).map(|_| ask("203.0.113.1", "wrong").status).collect();
    assert!(statuses[..20].iter().all(|&status| status == 401), "{statuses:?}");
    assert!(statuses[21..].iter().all(|&status| status == 429), "{statuses:?}");
    let refused = ask("203.0.113.1", "good-key");
    assert_eq!(refused.status, 429, "its keys are not looked up at all");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 4);
    assert_eq!(ask("203.0.113.2", "good-key").status, 200, "others are not concerned");
    assert_eq!(ask("203.0.113.2", "wrong").status, 401);
    assert_eq!(gateway.available("acme"), "999");
}
