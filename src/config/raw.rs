//! Defines the structure of the configuration file. No other code mirrors the TOML.
//!
//! Only types are checked here. Every value keeps its position in the file, so that [`super::parse`] can report it. The
//! JSON Schema for editors is generated from these types.

mod limit_store;
mod operating;
mod payments;
mod plans;
mod prices;
mod scopes;
mod tls;
mod upstream;
mod values;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;

pub use limit_store::{LimitStore, StoreTls};
pub use operating::{Admin, Dashboard, Idempotency, Log, Traces, Usage, Webhooks};
pub use payments::{Package, Payments, Stripe, Subscription};
pub use plans::{Bucket, Plan, PlanPrice, Refill, SpendLimit};
pub use prices::{AmountOr, Callback, Charge, Each, Opens, PerItem, Plain, Settles};
pub use scopes::Scopes;
pub use tls::{Pair, Tls};
pub use upstream::{
    Ejection, Health, Http2, LedgerTls, Queue, Retries, Server as UpstreamServer, Texts, Upstream,
    UpstreamTls,
};
pub use values::{Amount, At, Duration, Percent, Place, Sample, Secret, Sha256, Size};

type Named<T> = BTreeMap<At<String>, At<T>>;
type Maybe<T> = Option<At<T>>;

/// A Tollgate configuration file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// More files to include, relative to this one: `["accounts.d/*.toml"]`.
    pub include: Vec<At<String>>,
    /// Listening addresses, timeouts and bounds for clients.
    pub server: Maybe<Server>,
    /// The operators' listener.
    pub admin: Maybe<Admin>,
    /// Pages for customers and operators. Left out: there are none.
    pub dashboard: Maybe<Dashboard>,
    /// The ledger.
    pub ledger: Maybe<Ledger>,
    /// Where the gateways of a fleet count limits together.
    pub limits: Maybe<LimitStore>,
    /// Where keys are read from.
    pub auth: Maybe<Auth>,
    /// The endpoint that shows customers their balance.
    pub account_info: Maybe<AccountInfo>,
    /// Error responses.
    pub errors: Maybe<Errors>,
    /// Response headers about limits and credits.
    pub response_headers: Maybe<ResponseHeaders>,
    /// Logging.
    pub log: Maybe<Log>,
    /// How long usage is kept.
    pub usage: Maybe<Usage>,
    /// Webhooks of accounts and of the operator.
    pub webhooks: Maybe<Webhooks>,
    /// Traces by OpenTelemetry.
    pub traces: Maybe<Traces>,
    /// The servers that requests are forwarded to.
    pub upstreams: Named<Upstream>,
    /// The endpoints of the API.
    pub routes: Vec<At<Route>>,
    /// Paths at which upstreams tell about jobs.
    pub callbacks: Named<Callback>,
    /// Plans: limits and prices of accounts.
    pub plans: Named<Plan>,
    /// Buckets of credits.
    pub buckets: Named<Bucket>,
    /// Accounts: customers and their keys.
    pub accounts: Named<Account>,
    /// Dialects: templates of error responses, by reason.
    pub dialects: Named<BTreeMap<At<String>, At<Template>>>,
    /// Requests that may be repeated without being charged again. Left out: `Idempotency-Key` only matters to upstreams.
    pub idempotency: Maybe<Idempotency>,
    /// How customers pay for credits.
    pub payments: Maybe<Payments>,
}

/// Listening addresses, timeouts and bounds for clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses; port 0 picks a free one.
    pub listen: Maybe<Vec<At<String>>>,
    /// Worker threads; 0: one per CPU.
    pub threads: Maybe<u32>,
    /// Most client connections at the same time.
    pub max_connections: Maybe<u32>,
    /// Longest time from accept to the end of the first request head.
    pub header_timeout: Maybe<Duration>,
    /// Longest time between requests on a connection.
    pub idle_timeout: Maybe<Duration>,
    /// Largest request head.
    pub max_header_size: Maybe<Size>,
    /// Largest request body.
    pub max_body_size: Maybe<Size>,
    /// Longest time that a graceful shutdown waits for requests in flight.
    pub drain_timeout: Maybe<Duration>,
    /// Longest time that it waits for responses that have begun, such as event streams, and for WebSockets and other
    /// tunnels; default: `drain_timeout`.
    pub stream_drain_timeout: Maybe<Duration>,
    /// Drop empty path segments instead of refusing them.
    pub merge_slashes: Maybe<bool>,
    /// Networks of proxies whose X-Forwarded-For and X-Request-Id are trusted.
    pub trusted_proxies: Vec<At<String>>,
    /// Every connection from `trusted_proxies` begins with a PROXY protocol header.
    pub proxy_protocol: Maybe<bool>,
    /// A client that closed its sending side still gets its response; otherwise it counts as disconnected.
    pub half_close: Maybe<bool>,
    /// TLS for clients.
    pub tls: Maybe<Tls>,
}

/// The ledger.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// `sqlite:FILE`, relative to the configuration file, or `postgres://USER:PASSWORD@HOST/DATABASE`; `env:NAME` or
    /// `file:PATH` to read it from there.
    pub url: Maybe<String>,
    /// The name of this gateway in a fleet, whose gateways have their ledger in one PostgreSQL database; `env:NAME` to read it from
    /// there. Left out: the gateway is the only one.
    pub node: Maybe<String>,
    /// Where the journal of a ledger in PostgreSQL is: `local`, in files, or `shared`, in the database.
    pub journal: Maybe<String>,
    /// The folder of those files, relative to the configuration file; default: its folder.
    pub journal_folder: Maybe<String>,
    /// TLS to PostgreSQL. Certificates are always verified; `sslmode=disable` in the URL goes without TLS.
    pub tls: Maybe<LedgerTls>,
    /// Longest time that a record waits for others before it is committed, unless a response waits for it; at most `1s`.
    pub commit_delay: Maybe<Duration>,
    /// How long each request is listed with its charge, for `tollgate reconcile`: `1h` to `400d`. Left out: not at all.
    pub requests: Maybe<Duration>,
}

/// Where keys are read from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The header that carries the key.
    pub header: Maybe<String>,
    /// Also accept `Authorization: Bearer <key>`.
    pub bearer: Maybe<bool>,
    /// Most rejected keys per client address and minute; 0: unlimited.
    pub failed_keys_per_minute: Maybe<u32>,
    /// Prefix of generated keys.
    pub key_prefix: Maybe<String>,
    /// Names of query parameters; a request that has one of them is refused.
    pub refuse_query: Maybe<Vec<At<String>>>,
}

/// The endpoint that shows customers their balance.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountInfo {
    /// Its path; empty: the endpoint is off.
    pub path: Maybe<String>,
}

/// Error responses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// `problem`, `apione`, `enrow` or the name of a `[dialects.NAME]`.
    pub dialect: Maybe<String>,
}

/// Response headers about limits and credits.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseHeaders {
    /// Any of `ietf` and `x-ratelimit`.
    pub rate_limit: Maybe<Vec<At<String>>>,
    /// `x-credits-used`, `x-credits-remaining` and `x-credits-split`.
    pub credits: Maybe<bool>,
    /// `Proxy-Status`, if the upstream is the reason of a refusal (RFC 9209).
    pub proxy_status: Maybe<bool>,
}

/// One endpoint of the API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The name that prices and scopes refer to.
    pub name: At<String>,
    /// The path pattern: `{name}` matches one segment, `{*rest}` at the end matches all remaining ones.
    pub path: At<String>,
    /// HTTP methods; default: all.
    #[serde(default)]
    pub methods: Maybe<Vec<At<String>>>,
    /// Host name that requests must have; default: any.
    #[serde(default)]
    pub host: Maybe<String>,
    /// The name of an `[upstreams.NAME]`.
    pub upstream: At<String>,
    /// Needs no key and charges nothing. Its limits must have `scope = "address"`.
    #[serde(default)]
    pub public: Maybe<bool>,
    /// The dialect of its refusals; default: `[errors] dialect`.
    #[serde(default)]
    pub dialect: Maybe<String>,
    /// Hold this amount, and charge it on 2xx only. Per item: `{ each = 1, of = "/records", max_items = 5000 }`.
    #[serde(default)]
    pub credits: Maybe<AmountOr<PerItem>>,
    /// The most a request can cost; also per item.
    #[serde(default)]
    pub hold: Maybe<AmountOr<PerItem>>,
    /// The first matching charge counts; without a match the request costs nothing.
    #[serde(default)]
    pub charge: Maybe<Vec<At<Charge>>>,
    /// Hold and charge nothing, but count what the price would charge and refuse.
    #[serde(default)]
    pub shadow: Maybe<bool>,
    /// Its requests open jobs: what they hold is charged when a later request tells what the job cost.
    #[serde(default)]
    pub opens: Maybe<Opens>,
    /// Its requests settle jobs. Another account's job is not found.
    #[serde(default)]
    pub settles: Maybe<Settles>,
    /// What happens to the upstream's response when its client is gone: `finish` (the default) or `abandon`.
    #[serde(default)]
    pub on_disconnect: Maybe<String>,
    /// Limits of this route alone.
    #[serde(default)]
    pub limits: Vec<At<Limit>>,
    /// A prefix to remove from the path before forwarding.
    #[serde(default)]
    pub strip_prefix: Maybe<String>,
    /// Headers to set, in addition to the upstream's.
    #[serde(default)]
    pub set_headers: Named<Secret>,
    /// Longest time until the response head; default: the upstream's.
    #[serde(default)]
    pub response_timeout: Maybe<Duration>,
    /// Largest request body; default: the server's.
    #[serde(default)]
    pub max_body_size: Maybe<Size>,
    /// Accept paths with `%2F`.
    #[serde(default)]
    pub encoded_slashes: Maybe<bool>,
    /// CORS: what pages of other origins may do.
    #[serde(default)]
    pub cors: Maybe<Cors>,
}

/// CORS: what pages of other origins may do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `["*"]` or a list of origins.
    pub origins: At<Vec<At<String>>>,
    /// Allowed methods; default: the route's.
    #[serde(default)]
    pub methods: Maybe<Vec<At<String>>>,
    /// Allowed request headers; default: the key's header and content-type.
    #[serde(default)]
    pub headers: Maybe<Vec<At<String>>>,
    /// Headers of the response that pages may read.
    #[serde(default)]
    pub expose: Maybe<Vec<At<String>>>,
    /// Requests may carry cookies (`Access-Control-Allow-Credentials`).
    #[serde(default)]
    pub credentials: Maybe<bool>,
    /// How long a browser may cache a preflight response.
    #[serde(default)]
    pub max_age: Maybe<Duration>,
}

/// A limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its name in headers. Across reloads a limit with the same name keeps its count.
    pub name: At<String>,
    /// Requests per window.
    pub requests: At<u32>,
    /// The window's length.
    pub window: At<Duration>,
    /// Most requests in a burst; default: `requests`. For `gcra` only.
    #[serde(default)]
    pub burst: Maybe<u32>,
    /// `gcra` (the default) or `sliding-window`.
    #[serde(default)]
    pub algorithm: Maybe<String>,
    /// `key` (the default), `account`, `key+route` or `address`.
    #[serde(default)]
    pub scope: Maybe<String>,
    /// Routes that the limit covers; default: all.
    #[serde(default)]
    pub routes: Maybe<Vec<At<String>>>,
    /// Routes that the limit does not cover.
    #[serde(default)]
    pub except: Maybe<Vec<At<String>>>,
    /// Methods that the limit covers; default: all.
    #[serde(default)]
    pub methods: Maybe<Vec<At<String>>>,
    /// Refuse nothing, but count what it would refuse.
    #[serde(default)]
    pub shadow: Maybe<bool>,
    /// What happens to a request while the store of `[limits]` does not answer: `local-share`, `open` or `closed`; default: as
    /// there.
    #[serde(default)]
    pub outage: Maybe<String>,
    /// Of a key's limit: it applies together with those of the plan, not in their place.
    #[serde(default)]
    pub adds: Maybe<bool>,
}

/// A customer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    /// The name of a `[plans.NAME]`; without one there are no limits.
    pub plan: Maybe<String>,
    /// The opening grant, booked once.
    pub credits: Maybe<Amount>,
    /// The most that the account may spend, in place of its plan's: credits, or `{ credits = 100, every = "day" }`.
    pub spend_limit: Maybe<AmountOr<SpendLimit>>,
    /// The customer's webhooks.
    pub webhooks: Vec<At<String>>,
    /// The account's keys.
    pub keys: Vec<At<Key>>,
}

/// A key, by its hash.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A label for operators.
    pub label: At<String>,
    /// SHA-256 of the key, as `tollgate key hash` prints it.
    pub sha256: At<Sha256>,
    /// Route names, `*` matches any characters; default: every route. `{ routes = […], shadow = true }` refuses nothing,
    /// but counts what it would refuse.
    #[serde(default)]
    pub scopes: Maybe<Scopes>,
    /// When it expires: a TOML date-time, or a date.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires: Maybe<toml::value::Datetime>,
    /// Networks that its requests may come from.
    #[serde(default)]
    pub allow_from: Maybe<Vec<At<String>>>,
    /// Limits that replace the plan's.
    #[serde(default)]
    pub limits: Option<Vec<At<Limit>>>,
}

/// The error response for one reason.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// The response's status.
    pub status: Maybe<u16>,
    /// The text of `{code}`; default: the reason.
    pub code: Maybe<String>,
    /// The text of `{message}`; default: Tollgate's sentence for the reason.
    pub message: Maybe<String>,
    /// The content type; default: `application/json`, or that of `problem` if `body` is not set.
    pub content_type: Maybe<String>,
    /// The body; may contain `{status}`, `{title}`, `{code}`, `{message}`, `{request_id}`, `{retry_after}`.
    pub body: Maybe<String>,
}

/// The JSON Schema of a configuration file.
#[must_use]
pub fn schema() -> &'static serde_json::Value {
    static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
        let mut schema = schemars::schema_for!(File).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".to_owned(), "Tollgate configuration".into());
        }
        schema
    });
    &SCHEMA
}
