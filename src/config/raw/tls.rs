//! `[server.tls]` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::At;

type Maybe<T> = Option<At<T>>;

/// TLS for clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Addresses that speak TLS, while those of `[server] listen` do not; default: those of
    /// `[server] listen` do.
    pub listen: Maybe<Vec<At<String>>>,
    /// PEM file: the certificate, then its chain.
    pub certificate: Maybe<String>,
    /// PEM file of its key.
    pub private_key: Maybe<String>,
    /// More certificates, chosen by the name that a client asks for.
    pub certificates: Vec<At<Pair>>,
    /// `1.3`, or `1.2` to take that too.
    pub min_version: Maybe<String>,
    /// Cipher suites by IANA's names, the preferred one first; default: AES-256-GCM, ChaCha20-Poly1305,
    /// AES-128-GCM.
    pub ciphers: Vec<At<String>>,
    /// PEM file of the authorities that sign clients' certificates.
    pub client_ca: Maybe<String>,
    /// `required` or `optional`, where there is a `client_ca`.
    pub client_certificate: Maybe<String>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// PEM file: the certificate, then its chain.
    pub certificate: At<String>,
    /// PEM file of its key.
    pub private_key: At<String>,
}
