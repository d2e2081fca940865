//! The section `[server.tls]` as it is written in the file.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::At;

type Maybe<T> = Option<At<T>>;

/// TLS for clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Addresses with TLS; the addresses of `[server] listen` are then without TLS. Default: the
    /// addresses of `[server] listen` use TLS.
    pub listen: Maybe<Vec<At<String>>>,
    /// PEM file: the certificate, then its chain.
    pub certificate: Maybe<String>,
    /// PEM file: the private key of the certificate.
    pub private_key: Maybe<String>,
    /// Further certificates, selected by the server name that a client requests (SNI).
    pub certificates: Vec<At<Pair>>,
    /// Lowest TLS version: `1.3` (the default) or `1.2`.
    pub min_version: Maybe<String>,
    /// Cipher suites by their IANA names, the most preferred one first; default: AES-256-GCM,
    /// ChaCha20-Poly1305, AES-128-GCM.
    pub ciphers: Vec<At<String>>,
    /// PEM file: the certificate authorities that sign client certificates.
    pub client_ca: Maybe<String>,
    /// `required` (the default) or `optional`; only with `client_ca`.
    pub client_certificate: Maybe<String>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// PEM file: the certificate, then its chain.
    pub certificate: At<String>,
    /// PEM file: the private key of the certificate.
    pub private_key: At<String>,
}
