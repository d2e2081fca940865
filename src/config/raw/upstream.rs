//! The sections `[upstreams.NAME]` as they are written in the file.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::values::{At, Duration, Percent, Secret};

type Maybe<T> = Option<At<T>>;
type Named<T> = std::collections::BTreeMap<At<String>, At<T>>;

/// Servers that requests are forwarded to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// URLs: `https://host:port`, `http://host:port`, or `h2c://host:port` (HTTP/2 without TLS); or
    /// `{ url = "…", weight = 2 }`. Each address of a host name is a server of its own.
    pub servers: At<Vec<At<Server>>>,
    /// Longest time to connect, with the TLS handshake.
    #[serde(default)]
    pub connect_timeout: Maybe<Duration>,
    /// Longest time until the response head.
    #[serde(default)]
    pub response_timeout: Maybe<Duration>,
    /// Longest silence within a response body; `0s`: no limit.
    #[serde(default)]
    pub body_timeout: Maybe<Duration>,
    /// The `Host` header sent to the upstream: `client`, `upstream` or a name.
    #[serde(default)]
    pub host: Maybe<String>,
    /// Headers to set on requests to the upstream.
    #[serde(default)]
    pub set_headers: Named<Secret>,
    /// How a server is selected: `least-requests`, `round-robin` or `hash`.
    #[serde(default)]
    pub balance: Maybe<String>,
    /// What `balance = "hash"` is about: `account`, `key` or `header:NAME`.
    #[serde(default)]
    pub hash: Maybe<String>,
    /// Most requests in flight per server; 0: no limit.
    #[serde(default)]
    pub max_requests: Maybe<u32>,
    /// The requests that wait while every server has `max_requests`.
    #[serde(default)]
    pub queue: Maybe<Queue>,
    /// HTTP/2 to servers with TLS: `"auto"` (if the server offers it), `true` or `false`.
    #[serde(default)]
    pub http2: Maybe<Http2>,
    /// TLS to servers.
    #[serde(default)]
    pub tls: Maybe<UpstreamTls>,
    /// A request that tells if a server is up.
    #[serde(default)]
    pub health: Maybe<Health>,
    /// When a server is left out because requests to it fail.
    #[serde(default)]
    pub ejection: Maybe<Ejection>,
    /// How long a server that is available again gets less than its share of requests.
    #[serde(default)]
    pub slow_start: Maybe<Duration>,
    /// How often a failed request is sent again.
    #[serde(default)]
    pub retries: Maybe<Retries>,
    /// How often host names are resolved again.
    #[serde(default)]
    pub resolve_every: Maybe<Duration>,
}

/// A server: its URL, or a table.
#[derive(Clone, Debug)]
pub struct Server {
    /// The URL.
    pub url: String,
    /// Its share of the requests, compared with other servers.
    pub weight: Maybe<u32>,
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            url: String,
            weight: Maybe<u32>,
        }
        struct ServerVisitor;
        impl<'de> Visitor<'de> for ServerVisitor {
            type Value = Server;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a URL or a table { url, weight }")
            }
            fn visit_str<E: Error>(self, url: &str) -> Result<Server, E> {
                Ok(Server { url: url.to_owned(), weight: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Server, A::Error> {
                let Table { url, weight } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Server { url, weight })
            }
        }
        deserializer.deserialize_any(ServerVisitor)
    }
}

impl JsonSchema for Server {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UpstreamServer".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "properties": {
                "url": { "type": "string", "description": "The server's URL." },
                "weight": {
                    "type": "integer", "format": "uint32", "minimum": 1, "maximum": 1000,
                    "description": "Its share of the requests, compared with other servers."
                }
            },
            "required": ["url"],
            "additionalProperties": false,
            "examples": ["https://a.internal", { "url": "https://b.internal:8443", "weight": 2 }]
        })
    }
    fn inline_schema() -> bool {
        true
    }
}

/// The queue of requests that wait for a server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Most requests that wait.
    pub most: Maybe<u32>,
    /// Longest time that a request waits.
    pub time: Maybe<Duration>,
}

/// A request that tells if a server is up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The request's path, with its query.
    pub path: At<String>,
    /// Time between two checks of a server.
    #[serde(default)]
    pub interval: Maybe<Duration>,
    /// Longest time of a check.
    #[serde(default)]
    pub timeout: Maybe<Duration>,
    /// The statuses of healthy servers: `2xx` or `200`.
    #[serde(default)]
    pub status: Maybe<String>,
    /// Failed checks in a row after which a server is down.
    #[serde(default)]
    pub down_after: Maybe<u32>,
    /// Successful checks in a row after which a server is up again.
    #[serde(default)]
    pub up_after: Maybe<u32>,
}

/// When a server is left out because requests to it fail.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row; 0: their number does not matter.
    pub failures: Maybe<u32>,
    /// The share of failed requests in the last seconds, such as `50%`; default: it does not matter.
    pub rate: Maybe<Percent>,
    /// How long the server is left out.
    pub time: Maybe<Duration>,
    /// The largest share of servers that may be left out at the same time.
    pub at_most: Maybe<Percent>,
}

/// How often a failed request is sent again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Most retries of one request; 0: none.
    pub most: Maybe<u32>,
    /// The share of the requests of the last seconds that may be retried.
    pub budget: Maybe<Percent>,
}

/// HTTP/2 to servers with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Http2 {
    /// A word: only `auto` is known.
    Word(String),
    /// Always or never.
    Flag(bool),
}

impl<'de> Deserialize<'de> for Http2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Http2Visitor;
        impl Visitor<'_> for Http2Visitor {
            type Value = Http2;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("\"auto\", true or false")
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Http2, E> {
                Ok(Http2::Word(word.to_owned()))
            }
            fn visit_bool<E: Error>(self, flag: bool) -> Result<Http2, E> {
                Ok(Http2::Flag(flag))
            }
        }
        deserializer.deserialize_any(Http2Visitor)
    }
}

impl JsonSchema for Http2 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Http2".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"], "examples": ["auto", true, false] })
    }
    fn inline_schema() -> bool {
        true
    }
}

/// TLS to servers. Certificates are always verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// The certificate authorities that are trusted: `system` (the default), a PEM file, or a list of both.
    pub ca: Maybe<Texts>,
    /// The name that certificates must be for; default: the host of the server's URL.
    pub server_name: Maybe<String>,
    /// PEM file: Tollgate's own certificate, then its chain, for servers that ask for one.
    pub certificate: Maybe<String>,
    /// PEM file: the private key of the certificate.
    pub private_key: Maybe<String>,
}

/// TLS to the database of the ledger. Certificates are always verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerTls {
    /// The certificate authorities that are trusted: `system` (the default), a PEM file, or a list of both.
    pub ca: Maybe<Texts>,
    /// PEM file: Tollgate's own certificate, then its chain, for servers that ask for one.
    pub certificate: Maybe<String>,
    /// PEM file: the private key of the certificate.
    pub private_key: Maybe<String>,
}

/// One text, or a list of texts.
#[derive(Clone, Debug)]
pub struct Texts(pub Vec<At<String>>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;
        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a string or a list of strings")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![At { value: text.to_owned(), span: super::Place::default() }]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Texts)
            }
        }
        deserializer.deserialize_any(TextsVisitor)
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Texts".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
    fn inline_schema() -> bool {
        true
    }
}
