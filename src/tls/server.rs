//! Builds the TLS configuration of the listeners.
//!
//! TLS 1.3 early data is not accepted: an attacker could replay it, and the request
//! could be charged twice.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use crate::types::KeyHash;

/// Protocols that ALPN may select, in order of preference (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Number of TLS 1.3 session tickets per handshake, for resumption. Each adds about 200 bytes to the handshake.
const TICKETS: usize = 1;

/// The TLS configuration of the listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The configuration that rustls uses for handshakes.
    pub config: Arc<ServerConfig>,
    /// Hash of everything that the configuration was built from. If a reload does not change it, the current
    /// configuration is kept, so that clients can still resume sessions with their tickets.
    pub made_from: KeyHash,
}

/// Client certificate verification: the trusted authorities, and whether a certificate is required.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Certificates of the authorities that sign client certificates.
    pub authorities: Vec<CertificateDer<'static>>,
    /// True if handshakes without a client certificate fail.
    pub required: bool,
}

/// Selects a certificate by the server name (SNI) of a client: first by the exact name, then by a wildcard
/// name, otherwise the first certificate of the configuration.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn new(pairs: Vec<CertifiedKey>) -> Option<Self> {
        let mut names = HashMap::new();
        let pairs: Vec<Arc<CertifiedKey>> = pairs.into_iter().map(Arc::new).collect();
        for pair in &pairs {
            let Ok(certificate) = webpki::EndEntityCert::try_from(pair.cert.first()?) else { continue };
            for name in certificate.valid_dns_names() {
                names.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(pair));
            }
        }
        Some(Self { first: Arc::clone(pairs.first()?), names })
    }

    fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.names.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.names.get(&format!("*.{parent}"))
            })
        });
        Arc::clone(found.unwrap_or(&self.first))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()))
    }
}

/// Names of all supported cipher suites, as in IANA's registry, in the default order of preference: AES-256-GCM,
/// ChaCha20-Poly1305, AES-128-GCM.
#[must_use]
pub fn ciphers() -> Vec<String> {
    let mut suites = aws_lc_rs::ALL_CIPHER_SUITES.to_vec();
    suites.sort_by_key(|suite| preference(suite.suite()));
    suites.iter().map(|suite| name(suite.suite())).collect()
}

/// True if the cipher suite with this name belongs to TLS 1.3.
#[must_use]
pub fn is_of_1_3(name: &str) -> bool {
    !name.contains("_WITH_")
}

fn name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

fn preference(suite: CipherSuite) -> usize {
    let name = name(suite);
    let order = ["AES_256_GCM", "CHACHA20_POLY1305", "AES_128_GCM"];
    order.iter().position(|cipher| name.contains(cipher)).unwrap_or(order.len())
}

/// The protocol versions and cipher suites that a handshake may select.
#[derive(Clone, Debug)]
pub struct Offer {
    /// True if TLS 1.2 is accepted besides TLS 1.3.
    pub with_1_2: bool,
    /// Names of cipher suites in order of preference. The server's order is used, not the client's.
    pub ciphers: Vec<String>,
}

/// Builds the TLS configuration. The first pair is used for clients that send no server name (SNI), or one that
/// no certificate contains.
///
/// # Errors
/// If there is no certificate, an authority is unusable, or rustls refuses the configuration.
pub fn server(
    pairs: Vec<CertifiedKey>,
    offer: &Offer,
    clients: Option<Clients>,
    made_from: KeyHash,
) -> Result<Tls, String> {
    const ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];
    const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    let mut provider = aws_lc_rs::default_provider();
    let place = |suite: CipherSuite| offer.ciphers.iter().position(|cipher| *cipher == name(suite));
    provider.cipher_suites.retain(|suite| place(suite.suite()).is_some());
    provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(if offer.with_1_2 { BOTH } else { ONLY_1_3 })
        .map_err(|error| error.to_string())?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for authority in clients.authorities {
                roots.add(authority).map_err(|error| format!("an authority is unusable: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let names = ByName::new(pairs).ok_or_else(|| "there is no certificate".to_owned())?;
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.ignore_client_order = true;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.max_early_data_size = 0;
    config.send_tls13_tickets = TICKETS;
    // The keys that encrypt tickets exist only as long as this configuration. A client that was accepted under
    // other authorities therefore has to present its certificate again.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Tls { config: Arc::new(config), made_from })
}
