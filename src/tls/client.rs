//! Builds the TLS configuration of connections to upstreams. Certificates are always verified.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, version};

use crate::types::KeyHash;

/// Most sessions of one upstream that are kept to be resumed.
const MAX_SESSIONS: usize = 256;

/// The TLS configuration of connections to an upstream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The configuration that rustls uses for handshakes. Its sessions are shared by all workers.
    pub config: Arc<ClientConfig>,
    /// The name that certificates must be for; `None`: the host of the server's URL.
    pub server_name: Option<ServerName<'static>>,
    /// Hash of everything that the configuration was built from. If a reload does not change it, connections and
    /// sessions remain in use.
    pub made_from: KeyHash,
}

/// Reads the certificate authorities that the operating system trusts. Those that cannot be read are left out.
///
/// # Errors
/// If there is none.
pub fn system_authorities() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match (found.certs.is_empty(), found.errors.first()) {
        (false, _) => Ok(found.certs),
        (true, Some(error)) => Err(format!("the system's certificate authorities cannot be read: {error}")),
        (true, None) => Err("the system has no certificate authorities (package ca-certificates)".to_owned()),
    }
}

/// Builds the TLS configuration of connections to an upstream. `authorities`: the trusted ones. `own`: the certificate
/// for servers that ask for one.
///
/// # Errors
/// If no authority is usable, or rustls refuses the configuration.
pub fn client(
    authorities: Vec<CertificateDer<'static>>,
    own: Option<CertifiedKey>,
    server_name: Option<ServerName<'static>>,
    made_from: KeyHash,
) -> Result<ClientTls, String> {
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(authorities).0 == 0 {
        return Err("none of the certificate authorities is usable".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
    config.enable_early_data = false; // a server could process replayed early data twice
    Ok(ClientTls { config: Arc::new(config), server_name, made_from })
}
