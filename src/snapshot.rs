//! Defines the snapshot: an immutable configuration that requests are handled with. A reload replaces it as a whole.

pub mod dashboard;
mod jobs;
mod ledger;
mod limit_store;
pub mod payments;
mod plan;
mod upstream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use http::{HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::policy::cors::Cors;
use crate::policy::forward::trace::SampleRate;
use crate::policy::key::KeySource;
use crate::policy::limit::Limit;
use crate::policy::price::Price;
use crate::policy::reject::Dialect;
use crate::policy::route::Methods;
use crate::policy::route::RouteTable;
use crate::tls::server::Tls;
use crate::types::{AccountNum, BucketName, KeyHash, NameId, NumberMap, RouteName, RouteNum};

use dashboard::Dashboard;
pub use jobs::{Callback, CallbackId, Callbacks, JobId, OnDisconnect, Settles};
pub use ledger::{LedgerPlace, PostgresPlace};
pub use limit_store::{LimitServers, LimitStorePlace};
pub use plan::{Plan, limits_of};
pub use upstream::{QueueLimits, Upstream};

/// Routes, plans, dialects and settings of one configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The number of the configuration since the start, so that what depends on it can be found anew.
    pub generation: u64,
    /// Settings of the process and its connections.
    pub settings: Settings,
    /// Where keys are read from.
    pub keys: KeySource,
    /// The dialect of refusals outside any route.
    pub dialect: Arc<Dialect>,
    /// Finds a route's index by host, path and method.
    pub table: RouteTable<usize>,
    /// Where upstreams tell about jobs.
    pub callbacks: Callbacks,
    /// All upstreams.
    pub upstreams: Vec<Arc<Upstream>>,
    /// All routes.
    pub routes: Vec<Arc<Route>>,
    /// All plans.
    pub plans: NumberMap<NameId, Plan>,
    /// All buckets of credits, with their priorities. Always with the default bucket.
    pub buckets: Vec<(BucketName, u32)>,
    /// Accounts of the configuration file and their plans, indexed by their numbers in the ledger, which are dense.
    /// They are part of the snapshot so that the plan and the prices of one request come from the same configuration.
    pub listed: Vec<Option<ListedAccount>>,
}

/// An account of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedAccount {
    /// The account's plan; `None` if it has none.
    pub plan: Option<NameId>,
}

/// The state of an account in a configuration: served, with its plan, or unknown.
#[derive(Clone, Copy, Debug)]
pub enum AccountStatus<'a> {
    /// The account is served, with this plan if it has one.
    Served(Option<&'a Plan>),
    /// The file no longer contains the account, or its plan does not exist: its keys are refused as unknown.
    Unknown,
}

/// Settings that apply to all routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Listening addresses without TLS. Takes effect at a restart.
    pub listen: Vec<SocketAddr>,
    /// Listening addresses with TLS. Takes effect at a restart.
    pub tls_listen: Vec<SocketAddr>,
    /// The TLS configuration; present if `tls_listen` is not empty.
    pub tls: Option<Tls>,
    /// Worker threads, never 0. Takes effect at a restart.
    pub threads: usize,
    /// Most simultaneous connections. Takes effect at a restart.
    pub max_connections: usize,
    /// Longest time from accept to the end of the first request head.
    pub header_timeout: Duration,
    /// Longest time between requests on a connection.
    pub idle_timeout: Duration,
    /// Largest request head in bytes.
    pub max_header_size: usize,
    /// Longest time that a graceful shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// Longest time that a graceful shutdown waits for responses that have begun and for tunnels; at least
    /// `drain_timeout`.
    pub stream_drain_timeout: Duration,
    /// True if empty path segments are removed instead of refused.
    pub merge_slashes: bool,
    /// Networks whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// True if every connection from [`Settings::trusted_proxies`] begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// True if a client that closed its sending side still gets its response. Otherwise it counts as disconnected.
    pub half_close: bool,
    /// Listening address for operators. Takes effect at a restart.
    pub admin_listen: SocketAddr,
    /// SHA-256 of the first admin token.
    pub admin_token: Option<KeyHash>,
    /// Paths of the operators' listener that are served without a token.
    pub admin_open: Vec<String>,
    /// Where the ledger is. Takes effect at a restart.
    pub ledger: LedgerPlace,
    /// Where the gateways of a fleet count limits together; `None` if each counts on its own. Takes effect at a restart.
    pub limit_store: Option<Box<LimitStorePlace>>,
    /// Longest time that a record of the ledger waits for its commit while no task waits for it. Takes effect at a
    /// restart.
    pub commit_delay: Duration,
    /// How long each request is listed with its charge; `None` if not at all.
    pub requests_kept: Option<Duration>,
    /// Prefix of generated keys.
    pub key_prefix: String,
    /// Most rejected keys per client address and minute; 0 for no limit.
    pub failed_keys_per_minute: u32,
    /// The path of the account info endpoint; `None` if it is off.
    pub account_info: Option<String>,
    /// True if responses have `RateLimit` headers (the IETF draft).
    pub ietf_headers: bool,
    /// True if responses have `X-RateLimit` headers.
    pub x_ratelimit_headers: bool,
    /// True if responses have `x-credits-used`, `x-credits-remaining` and `x-credits-split`.
    pub credit_headers: bool,
    /// True if refusals because of an upstream have a `Proxy-Status` header.
    pub proxy_status: bool,
    /// Log settings.
    pub log: LogSettings,
    /// How long usage is kept in intervals of a minute, of an hour, and of a day.
    pub usage_kept: [Duration; 3],
    /// Networks that webhooks may be sent to although they are not public.
    pub webhooks_allow_private: Vec<IpNet>,
    /// The dashboard; `None` if there is none.
    pub dashboard: Option<Arc<Dashboard>>,
    /// Which requests are traced, and where their spans are sent; `None` if no request is traced.
    pub traces: Option<TraceSettings>,
    /// How charged requests may be repeated; `None` if an `Idempotency-Key` only matters to the upstream.
    pub idempotency: Option<Idempotency>,
    /// How customers pay by Stripe; `None` if they do not.
    pub stripe: Option<Arc<payments::Stripe>>,
}

/// How charged requests may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// How long a repeated request gets the same response.
    pub keep: Duration,
    /// Largest body of a request with an `Idempotency-Key`, and of a response that is kept, in bytes.
    pub max_body: u64,
}

/// Which requests are traced, and where their spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// The URL that takes spans (OTLP over HTTP).
    pub otlp: Uri,
    /// Headers that the operator sets on requests to it.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// How many requests are traced.
    pub sample: SampleRate,
}

/// Log settings. The format takes effect at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// True for JSON lines, false for text.
    pub json: bool,
    /// True if one line per request is logged.
    pub requests: bool,
    /// True if only time, route, credits and status of a request are logged.
    pub minimal: bool,
}

/// One endpoint of the API.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name that prices and scopes refer to.
    pub name: RouteName,
    /// The path that requests must match, as it is configured.
    pub path: Arc<str>,
    /// The methods that requests must have one of.
    pub methods: Methods,
    /// The route's index among the snapshot's routes.
    pub index: usize,
    /// The route's number in the ledger; 0 until it is registered.
    pub num: RouteNum,
    /// True if the route needs no key and charges nothing.
    pub public: bool,
    /// The upstream that requests are forwarded to.
    pub upstream: Arc<Upstream>,
    /// The price for accounts whose plan has no price for this route.
    pub price: Arc<Price>,
    /// The dialect of the route's refusals.
    pub dialect: Arc<Dialect>,
    /// Limits that apply only to this route.
    pub limits: Vec<Limit>,
    /// Number of leading segments that are removed from the path before it is forwarded.
    pub strip_segments: usize,
    /// Request headers that the operator sets: those of the upstream, then those of the route.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest time until the upstream's response head arrives.
    pub response_timeout: Duration,
    /// Largest request body in bytes.
    pub max_body_size: u64,
    /// How requests settle jobs that earlier ones opened.
    pub settles: Option<Settles>,
    /// What happens to a response whose client is gone.
    pub on_disconnect: OnDisconnect,
    /// True if paths with `%2F` are accepted.
    pub encoded_slashes: bool,
    /// CORS settings; `None` if Tollgate does not handle CORS.
    pub cors: Option<Cors>,
}

impl Snapshot {
    /// The price of a route for an account on a plan.
    #[must_use]
    pub fn price<'a>(&'a self, route: &'a Route, plan: Option<&'a Plan>) -> &'a Arc<Price> {
        plan.and_then(|plan| plan.prices.get(&route.index)).unwrap_or(&route.price)
    }

    /// Determines if an account is served, and with which plan. `stored`: the plan of an account that was created by
    /// command; `None` for an account that only the configuration file can define.
    #[must_use]
    pub fn account_status(&self, account: AccountNum, stored: Option<Option<NameId>>) -> AccountStatus<'_> {
        let listed = self.listed.get(account.0 as usize).copied().flatten();
        match listed.map(|listed| listed.plan).or(stored) {
            None => AccountStatus::Unknown,
            Some(None) => AccountStatus::Served(None),
            Some(Some(plan)) => {
                self.plans.get(&plan).map_or(AccountStatus::Unknown, |plan| AccountStatus::Served(Some(plan)))
            }
        }
    }

    /// Adds the accounts of the configuration file and their plans.
    #[must_use]
    pub fn listing(mut self, accounts: impl Iterator<Item = (AccountNum, Option<NameId>)>) -> Self {
        for (num, plan) in accounts {
            let at = num.0 as usize;
            if self.listed.len() <= at {
                self.listed.resize(at + 1, None);
            }
            self.listed[at] = Some(ListedAccount { plan });
        }
        self
    }

    /// Takes over the servers of the upstreams that another snapshot has too, with their state, and configures the
    /// servers of all upstreams.
    #[must_use]
    pub fn adopting_servers(mut self, before: &Self) -> Self {
        let mut adopted: HashMap<&str, Arc<Upstream>> = HashMap::new();
        for upstream in &mut self.upstreams {
            if let Some(before) = before.upstreams.iter().find(|before| before.name == upstream.name) {
                Arc::make_mut(upstream).servers = Arc::clone(&before.servers);
            }
            upstream.servers.configure(&upstream.origins);
        }
        adopted.extend(self.upstreams.iter().map(|upstream| (upstream.name.as_str(), Arc::clone(upstream))));
        for route in &mut self.routes {
            if let Some(upstream) = adopted.get(route.upstream.name.as_str()) {
                Arc::make_mut(route).upstream = Arc::clone(upstream);
            }
        }
        self
    }

    /// Sets the routes' numbers in the ledger, given in the order of the routes.
    #[must_use]
    pub fn numbered(mut self, numbers: &[RouteNum]) -> Self {
        for (route, num) in self.routes.iter_mut().zip(numbers) {
            Arc::make_mut(route).num = *num;
        }
        self
    }
}

/// Reads the current snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotReader(Arc<ArcSwap<Snapshot>>);

/// Replaces the current snapshot.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<ArcSwap<Snapshot>>,
    /// Former snapshots that requests may still use. The control plane frees them: that takes milliseconds for many
    /// routes, which would delay a worker. There are at most as many as are in use.
    former: Arc<Mutex<Vec<Arc<Snapshot>>>>,
}

/// Creates a publisher and a reader with the first snapshot.
#[must_use]
pub fn channel(first: Snapshot) -> (Publisher, SnapshotReader) {
    let shared = Arc::new(ArcSwap::from_pointee(first));
    (Publisher { shared: Arc::clone(&shared), former: Arc::default() }, SnapshotReader(shared))
}

/// The snapshot that one request is handled with. It lives at least as long as this value. References are counted at
/// two levels: among the requests of a worker, and between threads, where a worker counts once for all its requests.
#[derive(Clone, Debug)]
pub struct View(Rc<SharedSnapshot>);

#[derive(Debug)]
struct SharedSnapshot(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

/// A worker's access to the current snapshot. The worker's requests share it without writing a counter that other
/// threads write.
#[derive(Debug)]
pub struct Views {
    cache: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    last: RefCell<View>,
}

impl Views {
    /// The current snapshot.
    #[must_use]
    pub fn load(&self) -> View {
        let mut cache = self.cache.borrow_mut();
        let now = cache.load();
        let mut last = self.last.borrow_mut();
        if !Arc::ptr_eq(now, &last.0.0) {
            *last = View(Rc::new(SharedSnapshot(Arc::clone(now))));
        }
        last.clone()
    }
}

impl SnapshotReader {
    /// The current snapshot, kept alive for as long as the returned value.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// The access of one worker to the current snapshot.
    #[must_use]
    pub fn views(&self) -> Views {
        let cache = RefCell::new(Cache::new(Arc::clone(&self.0)));
        Views { cache, last: RefCell::new(View(Rc::new(SharedSnapshot(self.load())))) }
    }
}

impl Publisher {
    /// Replaces the current snapshot by an atomic swap. Requests that began before keep the former one.
    pub fn publish(&self, mut snapshot: Snapshot) {
        snapshot.generation = self.shared.load().generation + 1;
        let former = self.shared.swap(Arc::new(snapshot));
        self.former.lock().push(former);
        self.free();
    }

    /// Frees former snapshots that are no longer in use, on the calling thread.
    pub fn free(&self) {
        let mut unused = Vec::new();
        self.former.lock().retain(|former| {
            let used = Arc::strong_count(former) > 1;
            if !used {
                unused.push(Arc::clone(former));
            }
            used
        });
    }

    /// A new reader.
    #[must_use]
    pub fn reader(&self) -> SnapshotReader {
        SnapshotReader(Arc::clone(&self.shared))
    }
}
