//! Connects to a server: TCP, then TLS.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::fault::{Cause, SendError, Stage};
use super::io::Io;
use crate::servers::{Host, HttpVersions, Server};
use crate::tls::client::ClientTls;

/// A new connection, and whether the server selected HTTP/2 by ALPN.
pub(super) struct NewConnection {
    pub(super) io: Io,
    pub(super) is_http2: bool,
}

/// Connects to a server within `timeout`, TLS included. `versions`: the HTTP versions that are offered with TLS.
///
/// # Errors
/// [`SendError`] of the stage that failed.
pub(super) async fn connect(
    server: &Server,
    timeout: Duration,
    versions: HttpVersions,
) -> Result<NewConnection, SendError> {
    let mut stage = Stage::Connect;
    match tokio::time::timeout(timeout, connect_at_leisure(server, versions, &mut stage)).await {
        Ok(connected) => connected,
        Err(_) => Err(SendError::unsent(stage, Cause::Timeout)),
    }
}

async fn connect_at_leisure(
    server: &Server,
    versions: HttpVersions,
    stage: &mut Stage,
) -> Result<NewConnection, SendError> {
    let connected = TcpStream::connect(server.address).await;
    let stream = connected.map_err(|error| SendError::unsent(*stage, error.into()))?;
    let _ = stream.set_nodelay(true); // only an optimisation: an error is ignored
    let Some(tls) = &server.origin.tls else {
        return Ok(NewConnection { io: Io::Left(stream), is_http2: versions == HttpVersions::Http2 });
    };
    *stage = Stage::Handshake;
    let failed = |cause| SendError::unsent(Stage::Handshake, cause);
    let name = server_name(server, tls).map_err(failed)?;
    let connector = TlsConnector::from(tls.config.clone());
    let secured = connector.with_alpn(versions.alpn()).connect(name, stream).await;
    let stream = secured.map_err(|error| failed(tls_cause(&error, versions)))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if versions == HttpVersions::Http2 && !is_http2 {
        return Err(failed(Cause::NoHttp2));
    }
    Ok(NewConnection { io: Io::Right(Box::new(stream)), is_http2 })
}

/// The name that the server's certificate must be for.
fn server_name(server: &Server, tls: &ClientTls) -> Result<ServerName<'static>, Cause> {
    match (&tls.server_name, &server.origin.host) {
        (Some(name), _) => Ok(name.clone()),
        (None, Host::Address(address)) => Ok(ServerName::IpAddress((*address).into())),
        (None, Host::Name(name)) => ServerName::try_from(name.clone())
            .map_err(|_| Cause::Tls(format!("`{name}` is not a name that a certificate can be for"))),
    }
}

fn tls_cause(error: &io::Error, versions: HttpVersions) -> Cause {
    let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Cause::Certificate("no trusted authority issued it".to_owned())
        }
        Some(rustls::Error::InvalidCertificate(error)) => Cause::Certificate(error.to_string()),
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
            if versions == HttpVersions::Http2 =>
        {
            Cause::NoHttp2
        }
        Some(error) => Cause::Tls(error.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Cause::Tls("the server closed the connection in the handshake".to_owned())
        }
        None => Cause::Io(error.kind(), error.to_string()),
    }
}
