//! One request as the curl line that a reader could paste, and the same request sent by the demo
//! itself, so that what is shown and what is done cannot differ.

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

/// How long a response may take, connecting included.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Largest response that is read: the sample API's are far smaller.
const MAX_ANSWER: usize = 256 * 1024;

/// A request: with a body it is a POST, without one a GET.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleCall {
    pub(super) path: &'static str,
    pub(super) body: Option<&'static str>,
}

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Where a client of this machine reaches what listens on `address`.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl SampleCall {
    /// The line for a shell. Bodies of the demo have no single quote.
    pub(super) fn curl(&self, gateway: SocketAddr, key: Option<&str>) -> String {
        let url = format!("http://{gateway}{}", self.path);
        // Shells read ? and [ as patterns.
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

    /// Sends it on a connection of its own.
    ///
    /// # Errors
    /// Why there is no complete response.
    pub(super) async fn send(&self, gateway: SocketAddr, key: Option<&str>) -> Result<Reply, String> {
        match tokio::time::timeout(ANSWER_TIME, self.exchange(gateway, key)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIME.as_secs())),
        }
    }

    async fn exchange(
        &self,
        gateway: SocketAddr,
        key: Option<&str>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(gateway).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection); // ends with `sender`
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
    /// A header's text, if it is there.
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
