//! Sends health checks, each over a connection of its own.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, Version, header};
use http_body_util::Empty;

use crate::policy::forward::HostHeader;
use crate::policy::upstream::health::HealthCheck;
use crate::servers::Server;
use crate::snapshot::Upstream;
use crate::upstream::connect::{NewConnection, connect};
use crate::upstream::connection_count::ConnectionCount;
use crate::upstream::fault::{Cause, SendError, Stage};
use crate::upstream::http1::{ExchangeError, FramingContext, Http1Body, Http1Connection, Upload};
use crate::upstream::http2::{Http2Connections, StreamError};
use crate::upstream::request::HeadBuffers;

/// The `User-Agent` of health checks.
const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");

type NoBody = Empty<Bytes>;

/// Checks a server once.
///
/// # Errors
/// Why the server is not healthy.
pub(super) async fn probe(upstream: &Upstream, server: &Server, check: &HealthCheck) -> Result<(), String> {
    let asked = tokio::time::timeout(check.timeout, ask(upstream, server, check)).await;
    let status = asked.map_err(|_| "health check: no response in time".to_owned())?;
    let status = status.map_err(|error| format!("health check: {error}"))?;
    match check.status.covers(status.as_u16()) {
        true => Ok(()),
        false => Err(format!("health check: the response was {}", status.as_u16())),
    }
}

/// The status of the response to a check.
async fn ask(upstream: &Upstream, server: &Server, check: &HealthCheck) -> Result<StatusCode, SendError> {
    let NewConnection { io, is_http2 } = connect(server, check.timeout, server.origin.versions).await?;
    let counted = ConnectionCount::default().add();
    let counted = counted.ok_or_else(|| SendError::unsent(Stage::Connect, Cause::TooManyConnections))?;
    let host = match &upstream.host {
        HostHeader::Client | HostHeader::Upstream => &server.origin.authority,
        HostHeader::Fixed(host) => host,
    };
    if is_http2 {
        let scheme = if server.origin.tls.is_some() { "https" } else { "http" };
        let uri =
            Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(check.path.as_str());
        let no_host = |_| SendError::unsent(Stage::Exchange, Cause::Host);
        let request = Request::get(uri.build().map_err(no_host)?).version(Version::HTTP_2);
        let request = request.header(header::USER_AGENT, USER_AGENT).body(None).map_err(no_host)?;
        let connections = Http2Connections::<NoBody>::default();
        let stream = connections.open(server.num, io, counted, None).await?;
        return match stream.send(request).await {
            Ok(response) => Ok(response.status),
            Err(StreamError::Unsent(_)) => Err(SendError::unsent(Stage::Exchange, Cause::Closed)),
            Err(StreamError::Failed(error)) => Err(error),
        };
    }
    let mut head = format!("GET {} HTTP/1.1\r\nhost: ", check.path).into_bytes();
    head.extend_from_slice(host.as_bytes());
    head.extend_from_slice(format!("\r\nuser-agent: {USER_AGENT}\r\nconnection: close\r\n\r\n").as_bytes());
    let upload = Upload::<NoBody>::new(head, false, None);
    let connection = Http1Connection::new(io, counted);
    match connection.exchange(upload, FramingContext::default(), &HeadBuffers::default()).await {
        Ok(exchange) => Ok(Http1Body::of(exchange).status),
        Err(ExchangeError::Unsent(_, fault) | ExchangeError::Sent(fault)) => {
            Err(SendError::sent(fault.cause()))
        }
    }
}
