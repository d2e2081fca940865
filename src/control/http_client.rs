//! Sends single requests to servers of others: webhooks, traces to a collector, orders to a payment service. Each has a connection of its own;
//! redirects are not followed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::client::{client, system_authorities};
use crate::types::KeyHash;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));

/// Bytes of a response's body that are read.
const MAX_START: usize = 1_024;
/// Longest time for them to arrive after the head.
const MAX_BODY_TIME: Duration = Duration::from_secs(2);

/// A response.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: Parts,
    /// The start of its body.
    pub(super) start: Vec<u8>,
}

/// Which bodies are read.
#[derive(Clone, Copy)]
enum Reads {
    /// The start of a response that is no success.
    Failures,
    /// Of any response, all of it.
    All { most: usize },
}

/// Sends requests over connections of their own. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    /// The TLS configuration, or why there is none.
    tls: Result<Arc<ClientConfig>, String>,
}

impl HttpClient {
    /// A client that trusts the system's certificate authorities.
    pub(super) fn new() -> Self {
        let authorities = system_authorities();
        let built = authorities.and_then(|known| client(known, None, None, KeyHash([0; 32])));
        Self { tls: built.map(|tls| tls.config) }
    }

    /// Sends a request with an absolute URL to an address, and waits for the head of the response, and for the start of
    /// its body if it is no success. The caller bounds the time.
    ///
    /// # Errors
    /// Why there was no response.
    pub(super) async fn send(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
    ) -> Result<Answered, String> {
        self.exchange(address, request, Reads::Failures).await
    }

    /// Sends a request as [`HttpClient::send`], and reads the whole body of any response.
    ///
    /// # Errors
    /// Why there was no response, or if its body is longer than `most` bytes.
    pub(super) async fn send_whole(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Answered, String> {
        self.exchange(address, request, Reads::All { most }).await
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        request: Request<Full<Bytes>>,
        reads: Reads,
    ) -> Result<Answered, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
        let (host, _, is_tls) = destination(request.uri());
        if !is_tls {
            return exchange(stream, request, reads).await;
        }
        let config = self.tls.clone()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        exchange(stream.map_err(|error| format!("no TLS: {error}"))?, request, reads).await
    }
}

/// The host of a URL, its port, and if it is reached with TLS.
pub(super) fn destination(url: &Uri) -> (&str, u16, bool) {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_tls = url.scheme_str() == Some("https");
    (host, url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }), is_tls)
}

async fn exchange<S>(stream: S, mut request: Request<Full<Bytes>>, reads: Reads) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("the exchange failed: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let host = request.uri().authority().map_or("", http::uri::Authority::as_str);
    let host = HeaderValue::try_from(host).map_err(|error| error.to_string())?;
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, AGENT);
    let exchange = sender.send_request(request);
    tokio::pin!(connection, exchange);
    let response = tokio::select! {
        biased;
        response = &mut exchange => response,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    };
    let (head, mut body) = response.map_err(failed)?.into_parts();
    let mut start = Vec::new();
    let most = match reads {
        Reads::Failures if head.status.is_success() => return Ok(Answered { head, start }),
        Reads::Failures => MAX_START,
        Reads::All { most } => most,
    };
    let read = async {
        while start.len() <= most {
            match body.frame().await {
                Some(Ok(frame)) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(failed(error)),
                None => break,
            }
        }
        Ok(())
    };
    let both = async {
        tokio::pin!(read);
        tokio::select! {
            done = &mut read => done,
            _ = connection => read.await,
        }
    };
    match reads {
        Reads::Failures => drop(tokio::time::timeout(MAX_BODY_TIME, both).await), // what has arrived by then is shown
        Reads::All { .. } => {
            both.await?;
            if start.len() > most {
                return Err(format!("the response is longer than {most} bytes"));
            }
        }
    }
    start.truncate(most);
    Ok(Answered { head, start })
}
