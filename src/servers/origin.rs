//! A server as the configuration names it.

use std::net::IpAddr;

use http::HeaderValue;

use crate::tls::client::ClientTls;

/// A server as the configuration names it. A host name may have several addresses; each is a [`super::Server`].
#[derive(Clone, Debug)]
pub struct Origin {
    /// The URL, with its port.
    pub url: String,
    /// The host of the URL.
    pub host: Host,
    /// The port of the URL.
    pub port: u16,
    /// `host:port` as in a `Host` header.
    pub authority: HeaderValue,
    /// The HTTP versions that it may be used with.
    pub versions: HttpVersions,
    /// `None` without TLS.
    pub tls: Option<ClientTls>,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, which is resolved again and again.
    Name(String),
}

/// The HTTP versions that a server may be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: without TLS with prior knowledge, with TLS by ALPN.
    Http2,
    /// The one that the server selects by ALPN.
    Negotiated,
}

impl HttpVersions {
    /// The versions as ALPN names them (RFC 7301), in order of preference.
    #[must_use]
    pub fn alpn(self) -> Vec<Vec<u8>> {
        let (http2, http1) = (b"h2".to_vec(), b"http/1.1".to_vec());
        match self {
            Self::Http1 => vec![http1],
            Self::Http2 => vec![http2],
            Self::Negotiated => vec![http2, http1],
        }
    }
}

impl Origin {
    /// True if connections to the other origin can be used for this one: address, HTTP versions and TLS settings are the
    /// same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let made_from = |origin: &Self| origin.tls.as_ref().map(|tls| tls.made_from);
        self.url == other.url && self.versions == other.versions && made_from(self) == made_from(other)
    }
}
