//! Performs the handshake before a connection's first request: the PROXY header of a trusted proxy, TLS, and the
//! choice between HTTP/1.1 and HTTP/2 (ALPN, or the connection preface). The caller sets its deadline.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::gateway::connection::{CoalescingStream, FlushPolicy, Negotiated, PREFACE, Protocol, Socket};
use crate::policy::client_address::is_trusted;
use crate::snapshot::Settings;

/// Longest PROXY header, in bytes; proxies send less than 600.
const MAX_PROXY_HEADER: usize = 2048;

/// Performs the handshake of a new connection; `None` if the connection must be closed.
pub(super) async fn negotiate(
    stream: TcpStream,
    mut peer: SocketAddr,
    is_tls: bool,
    settings: &Settings,
) -> Option<Negotiated> {
    let mut stream = CoalescingStream::new(stream, FlushPolicy::BeforeWaiting);
    if settings.proxy_protocol && is_trusted(peer.ip(), &settings.trusted_proxies) {
        peer = read_proxy_header(&mut stream, peer).await?;
    }
    if !is_tls {
        let is_http2 = peek_until(&mut stream, |bytes| starts_with(bytes, PREFACE)).await?;
        let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
        stream.set_policy(if is_http2 { FlushPolicy::OnRequest } else { FlushPolicy::Immediate });
        return Some(Negotiated { socket: Socket::Plain(stream), protocol, peer });
    }
    let tls = settings.tls.as_ref()?;
    let mut stream = match TlsAcceptor::from(tls.config.clone()).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        // The client of a failed handshake gets a TLS alert.
        Err((_, mut stream)) => {
            let _ = poll_fn(|context| stream.poll_send(context)).await;
            return None;
        }
    };
    // The last handshake message is sent at the end of the connection's first poll, whether or not a request
    // arrived: the client may wait for it, or its kernel for an acknowledgement (Nagle's algorithm, RFC 896).
    stream.get_mut().0.set_policy(FlushPolicy::OnRequest);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
    Some(Negotiated { socket: Socket::Tls(Box::new(stream)), protocol, peer })
}

/// Peeks at the bytes that arrive until `decide` returns a result; `None` if the client closes before, or if
/// [`MAX_PROXY_HEADER`] bytes are not enough. Peeked bytes remain for the next reader.
async fn peek_until<T>(stream: &mut CoalescingStream, decide: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    loop {
        if let Some(decided) = decide(stream.peeked()).filter(|_| !stream.peeked().is_empty()) {
            return Some(decided);
        }
        let is_full = stream.peeked().len() >= MAX_PROXY_HEADER;
        if is_full || stream.peek_more(MAX_PROXY_HEADER).await.ok()? == 0 {
            return None;
        }
    }
}

/// True if `bytes` start with `prefix`; `None` if too few bytes have arrived to decide.
fn starts_with(bytes: &[u8], prefix: &[u8]) -> Option<bool> {
    let length = bytes.len().min(prefix.len());
    if bytes[..length] != prefix[..length] {
        return Some(false);
    }
    (length == prefix.len()).then_some(true)
}

/// Reads and drops the PROXY header of a trusted proxy's connection. Returns the client address in the header,
/// or `peer` if the header has none; `None` if the header is malformed or missing.
async fn read_proxy_header(stream: &mut CoalescingStream, peer: SocketAddr) -> Option<SocketAddr> {
    let header = peek_until(stream, parse_proxy_header).await??;
    stream.drop_peeked(header.length);
    Some(header.client.unwrap_or(peer))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProxyHeader {
    length: usize,
    /// `None` if the header has no client address, as for the proxy's own connections (LOCAL, UNKNOWN).
    client: Option<SocketAddr>,
}

/// Parses a PROXY header: `None` if it is incomplete, `Some(None)` if it is malformed.
fn parse_proxy_header(bytes: &[u8]) -> Option<Option<ProxyHeader>> {
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return None;
    }
    let address = |ip: IpAddr, port| Some(SocketAddr::new(ip, port));
    Some(match parsed {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(ip) => address(ip.source_address.into(), ip.source_port),
                v1::Addresses::Tcp6(ip) => address(ip.source_address.into(), ip.source_port),
            };
            Some(ProxyHeader { length: header.header.len(), client })
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, &header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                    address(ip.source_address.into(), ip.source_port)
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                    address(ip.source_address.into(), ip.source_port)
                }
                _ => None,
            };
            Some(ProxyHeader { length: header.len(), client })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_or_needs_more_bytes() {
        assert_eq!(starts_with(b"GET /", PREFACE), Some(false));
        assert_eq!(starts_with(b"PR", PREFACE), None);
        assert_eq!(starts_with(b"PRO", PREFACE), Some(false));
        assert_eq!(starts_with(PREFACE, PREFACE), Some(true));
    }

    #[test]
    fn proxy_headers_name_the_client() {
        let named = |length| {
            let client = "203.0.113.9:4000".parse().ok();
            Some(Some(ProxyHeader { length, client }))
        };
        let v1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse_proxy_header(v1), named(41));
        assert_eq!(parse_proxy_header(&v1[..20]), None);
        let unnamed = ProxyHeader { length: 15, client: None };
        assert_eq!(parse_proxy_header(b"PROXY UNKNOWN\r\n"), Some(Some(unnamed)));
        assert_eq!(parse_proxy_header(b"PROXY TCP9 a b c d\r\n"), Some(None));
        assert_eq!(parse_proxy_header(b"GET / HTTP/1.1\r\n"), Some(None), "it is required");
        assert_eq!(parse_proxy_header(b"PRO"), None);
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        v2.extend([0x21, 0x11, 0, 12, 203, 0, 113, 9, 10, 0, 0, 1]);
        v2.extend(4000_u16.to_be_bytes());
        assert_eq!(parse_proxy_header(&v2), None);
        v2.extend([0, 80, b'G']);
        assert_eq!(parse_proxy_header(&v2), named(28));
    }
}
