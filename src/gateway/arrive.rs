//! What comes before a connection's first request: the PROXY header of a trusted proxy, the TLS
//! handshake, and the choice between HTTP/1.1 and HTTP/2. All of it under the head's deadline.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::corked::{Corked, Sends};
use super::socket::Socket;
use super::target::is_trusted;
use crate::snapshot::Settings;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest PROXY header that is read; what proxies send is below 600 bytes.
const MAX_PROXY: usize = 2048;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose first request may come.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) socket: Socket,
    pub(super) protocol: Protocol,
    /// The other end: the socket's, or what a trusted proxy says.
    pub(super) peer: SocketAddr,
}

/// Brings a new connection to its first request; `None` where it is to be closed.
pub(super) async fn arrive(
    stream: TcpStream,
    mut peer: SocketAddr,
    secure: bool,
    settings: &Settings,
) -> Option<Arrived> {
    let mut stream = Corked::new(stream, Sends::BeforeWaiting);
    if settings.proxy_protocol && is_trusted(peer.ip(), &settings.trusted_proxies) {
        peer = proxied(&mut stream, peer).await?;
    }
    if !secure {
        let http2 = read_until(&mut stream, |bytes| begins(bytes, PREFACE)).await?;
        let (protocol, sends) =
            if http2 { (Protocol::Http2, Sends::WhenTold) } else { (Protocol::Http1, Sends::AtOnce) };
        stream.set_sends(sends);
        return Some(Arrived { socket: Socket::Plain(stream), protocol, peer });
    }
    let tls = settings.tls.as_ref()?;
    let mut stream = match TlsAcceptor::from(tls.config.clone()).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        // A failed handshake concerns its client only, who gets an alert.
        Err((_, mut stream)) => {
            let _ = poll_fn(|context| stream.poll_send(context)).await;
            return None;
        }
    };
    // The handshake's last part goes at the end of the first turn, whether a request came or not: its
    // client may wait for it, if only for the acknowledgement (Nagle's algorithm, RFC 896).
    stream.get_mut().0.set_sends(Sends::WhenTold);
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
    Some(Arrived { socket: Socket::Tls(Box::new(stream)), protocol, peer })
}

/// Reads ahead until what came says enough; `None` where the client closes before that, or where
/// [`MAX_PROXY`] bytes do not say it. What was read is there for the next reader.
async fn read_until<T>(stream: &mut Corked, judge: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    loop {
        if let Some(judged) = judge(stream.early()).filter(|_| !stream.early().is_empty()) {
            return Some(judged);
        }
        if stream.early().len() >= MAX_PROXY || stream.read_early(MAX_PROXY).await.ok()? == 0 {
            return None;
        }
    }
}

/// Whether `bytes` begin like `start`; `None` where too few came to tell.
fn begins(bytes: &[u8], start: &[u8]) -> Option<bool> {
    let length = bytes.len().min(start.len());
    if bytes[..length] != start[..length] {
        return Some(false);
    }
    (length == start.len()).then_some(true)
}

/// Whom a trusted proxy speaks for: takes off the PROXY header that each of its connections begins with.
async fn proxied(stream: &mut Corked, peer: SocketAddr) -> Option<SocketAddr> {
    let (length, source) = read_until(stream, header).await?;
    stream.skip_early(length?);
    Some(source.unwrap_or(peer))
}

/// A PROXY header's length, `None` where it is malformed, and whom it names.
fn header(bytes: &[u8]) -> Option<(Option<usize>, Option<SocketAddr>)> {
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return None;
    }
    let address = |ip: IpAddr, port| Some(SocketAddr::new(ip, port));
    Some(match parsed {
        HeaderResult::V1(Ok(header)) => {
            let source = match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(ip) => address(ip.source_address.into(), ip.source_port),
                v1::Addresses::Tcp6(ip) => address(ip.source_address.into(), ip.source_port),
            };
            (Some(header.header.len()), source)
        }
        HeaderResult::V2(Ok(header)) => {
            let source = match (header.command, &header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                    address(ip.source_address.into(), ip.source_port)
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                    address(ip.source_address.into(), ip.source_port)
                }
                _ => None, // the proxy speaks for itself
            };
            (Some(header.len()), source)
        }
        _ => (None, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_says_what_follows_or_that_more_is_needed() {
        assert_eq!(begins(b"GET /", PREFACE), Some(false));
        assert_eq!(begins(b"PR", PREFACE), None);
        assert_eq!(begins(b"PRO", PREFACE), Some(false));
        assert_eq!(begins(PREFACE, PREFACE), Some(true));
    }

    #[test]
    fn proxy_headers_name_the_client() {
        let v1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\nGET / HTTP/1.1\r\n";
        let source = "203.0.113.9:4000".parse().ok();
        assert_eq!(header(v1), Some((Some(41), source)));
        assert_eq!(header(&v1[..20]), None);
        assert_eq!(header(b"PROXY UNKNOWN\r\n"), Some((Some(15), None)));
        assert_eq!(header(b"PROXY TCP9 a b c d\r\n"), Some((None, None)));
        assert_eq!(header(b"GET / HTTP/1.1\r\n"), Some((None, None)), "it is required");
        assert_eq!(header(b"PRO"), None);
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        v2.extend([0x21, 0x11, 0, 12, 203, 0, 113, 9, 10, 0, 0, 1]);
        v2.extend(4000_u16.to_be_bytes());
        assert_eq!(header(&v2), None);
        v2.extend([0, 80, b'G']);
        assert_eq!(header(&v2), Some((Some(28), source)));
    }
}
