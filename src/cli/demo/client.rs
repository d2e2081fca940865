//! Formats a request as a curl command line, and sends the same request itself, so that the command line shown is the
//! request that was made.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest time for a complete response, including the time to connect.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Largest response body that is read, in bytes. The responses of the sample API are far smaller.
const MAX_ANSWER: usize = 256 * 1024;

/// A request: POST if it has a body, otherwise GET.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleCall {
    pub(super) path: &'static str,
    pub(super) body: Option<&'static str>,
}

/// A complete response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// The address at which a client on this machine reaches a listener on `address`: loopback if `address` is unspecified.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl SampleCall {
    /// The curl command line for a shell. Bodies of the demo contain no single quote, so they can be quoted in single
    /// quotes.
    pub(super) fn curl(&self, gateway: SocketAddr, key: Option<&str>) -> String {
        let url = format!("http://{gateway}{}", self.path);
        // Shells expand ? and [ as patterns.
        let url = if url.contains(['?', '[']) { format!("'{url}'") } else { url };
        let mut line = format!("curl -i {url}");
        // Writing to a String cannot fail.
        if let Some(key) = key {
            let _ = write!(line, " -H 'x-api-key: {key}'");
        }
        if let Some(body) = self.body {
            let _ = write!(line, " -H 'content-type: application/json' -d '{body}'");
        }
        line
    }

    /// Sends the request on a new connection.
    ///
    /// # Errors
    /// The reason why no complete response was received.
    pub(super) async fn send(&self, gateway: SocketAddr, key: Option<&str>) -> Result<Reply, String> {
        match tokio::time::timeout(ANSWER_TIME, self.exchange(gateway, key)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no response within {} s", ANSWER_TIME.as_secs())),
        }
    }

    async fn exchange(
        &self,
        gateway: SocketAddr,
        key: Option<&str>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(gateway).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection); // ends when `sender` is dropped
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(self.path).header(HOST, gateway.to_string());
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from_static(self.body.unwrap_or_default().as_bytes()));
        let (parts, body) = sender.send_request(request.body(body)?).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        driver.abort();
        Ok(Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.into())? })
    }
}

impl Reply {
    /// The value of a header; `None` if the header is absent or not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curl_line_survives_a_shell() {
        let call = SampleCall { path: "/a?b=c", body: None };
        let line = call.curl("[::1]:80".parse().unwrap(), Some("ak_1"));
        assert_eq!(line, "curl -i 'http://[::1]:80/a?b=c' -H 'x-api-key: ak_1'");
    }

    #[test]
    fn every_address_is_reached_by_one_of_its_own() {
        let table = [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")];
        for (listens, reached) in table {
            assert_eq!(reachable(listens.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
