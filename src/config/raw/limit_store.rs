//! `[limits]`: where the gateways of a fleet count limits together.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Maybe, Texts};

/// Where the gateways of a fleet count limits together. Left out, each counts on its own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitStore {
    /// Redis or Valkey: `redis://USER:PASSWORD@HOST`, or `rediss://…` with TLS; `env:NAME` or `file:PATH` to read it from there.
    /// A list is a cluster, of which some servers suffice.
    pub store: Maybe<Texts>,
    /// The store is a cluster, also if one server of it is listed.
    pub cluster: Maybe<bool>,
    /// What happens to a request while the store does not answer: `local-share`, `open` or `closed`.
    pub outage: Maybe<String>,
    /// What the names of all keys in the store begin with, if several fleets have the same store.
    pub prefix: Maybe<String>,
    /// TLS to the store. Its certificate is always verified.
    pub tls: Maybe<StoreTls>,
}

/// TLS to the store of limits. Its certificate is always verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreTls {
    /// PEM file: the certificate authorities that are trusted; default: those of the system.
    pub ca: Maybe<String>,
    /// PEM file: Tollgate's own certificate, then its chain, for servers that ask for one.
    pub certificate: Maybe<String>,
    /// PEM file: the private key of the certificate.
    pub private_key: Maybe<String>,
}
