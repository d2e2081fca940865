//! The configuration that requests are judged by: immutable, and replaced as a whole.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::policy::cors::Cors;
use crate::policy::forward::HostHeader;
use crate::policy::key::KeySource;
use crate::policy::limit::Limit;
use crate::policy::price::Price;
use crate::policy::reject::Dialect;
use crate::policy::route::RouteTable;
use crate::tls::Tls;
use crate::types::{AccountNum, KeyHash, NameId, RouteName, RouteNum};

/// Routes, plans, dialects and settings of one configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Settings of the process and its connections.
    pub settings: Settings,
    /// Where keys are read from.
    pub keys: KeySource,
    /// The dialect of refusals outside any route.
    pub dialect: Arc<Dialect>,
    /// Finds a route's index by host, path and method.
    pub table: RouteTable<usize>,
    /// All routes.
    pub routes: Vec<Arc<Route>>,
    /// All plans.
    pub plans: HashMap<NameId, Plan>,
    /// Accounts of the file and their plans, by their numbers in the ledger, which are dense. They
    /// stand here so that plan and prices of one request are of one configuration.
    pub listed: Vec<Option<ListedAccount>>,
}

/// An account of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedAccount {
    /// The plan that it is on.
    pub plan: Option<NameId>,
}

/// Whether an account is served, and on which plan.
#[derive(Clone, Copy, Debug)]
pub enum AccountStatus<'a> {
    /// It is served.
    Served(Option<&'a Plan>),
    /// The file dropped it, or its plan does not exist: its keys are treated as unknown.
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
    /// Most connections at once. Takes effect at a restart.
    pub max_connections: usize,
    /// Longest time from accept to the end of the first request head.
    pub header_timeout: Duration,
    /// Longest time between requests on a connection.
    pub idle_timeout: Duration,
    /// Largest request head in bytes.
    pub max_header_size: usize,
    /// Longest time that a graceful shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// Drop empty path segments instead of refusing them.
    pub merge_slashes: bool,
    /// Networks whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Every connection from [`Settings::trusted_proxies`] begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// A client that closed its sending side still gets its response; otherwise it counts as disconnected.
    pub half_close: bool,
    /// Addresses of the operators' listener. Takes effect at a restart.
    pub admin_listen: SocketAddr,
    /// SHA-256 of the admin token.
    pub admin_token: Option<KeyHash>,
    /// The ledger's file. Takes effect at a restart.
    pub ledger: PathBuf,
    /// How long a record may wait to be committed while nobody waits for it. Takes effect at a restart.
    pub commit_delay: Duration,
    /// Prefix of generated keys.
    pub key_prefix: String,
    /// Most rejected keys per client address and minute; 0: unlimited.
    pub failed_keys_per_minute: u32,
    /// The path of the account info endpoint.
    pub account_info: Option<String>,
    /// `RateLimit` headers (the IETF draft).
    pub ietf_headers: bool,
    /// `X-RateLimit` headers.
    pub x_ratelimit_headers: bool,
    /// `x-credits-used` and `x-credits-remaining`.
    pub credit_headers: bool,
    /// Log settings.
    pub log: LogSettings,
}

/// Log settings. The format takes effect at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON lines instead of text.
    pub json: bool,
    /// One line per request.
    pub requests: bool,
    /// Log only time, route, credits and status of a request.
    pub minimal: bool,
}

/// One endpoint of the API.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name that prices and scopes refer to.
    pub name: RouteName,
    /// Its index among the snapshot's routes.
    pub index: usize,
    /// Its number in the ledger; 0 until it is registered.
    pub num: RouteNum,
    /// Needs no key and charges nothing.
    pub public: bool,
    /// The upstream that it forwards to.
    pub upstream: Arc<Upstream>,
    /// The price, unless the plan has another.
    pub price: Arc<Price>,
    /// The dialect of its refusals.
    pub dialect: Arc<Dialect>,
    /// Limits of this route alone.
    pub limits: Vec<Limit>,
    /// Number of leading segments that are removed from the path before it is forwarded.
    pub strip_segments: usize,
    /// Headers that the operator sets: the upstream's, then the route's.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest time until the upstream's response head.
    pub response_timeout: Duration,
    /// Largest request body in bytes.
    pub max_body_size: u64,
    /// Accept paths with `%2F`.
    pub encoded_slashes: bool,
    /// CORS settings.
    pub cors: Option<Cors>,
}

/// An upstream: one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// Identifies its connection pool: the same server keeps its id across reloads.
    pub id: NameId,
    /// Host name or address, and port.
    pub server: (String, u16),
    /// True if it speaks HTTP/2 with prior knowledge.
    pub http2: bool,
    /// `host:port` as in the `Host` header.
    pub authority: HeaderValue,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// The `Host` header that it receives.
    pub host: HostHeader,
}

/// A bundle of limits and prices.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its name as a header value.
    pub header: Option<HeaderValue>,
    /// Most requests in flight per key.
    pub concurrency: Option<u32>,
    /// Limits of the accounts on it.
    pub limits: Vec<Limit>,
    /// Prices of single routes, by their index.
    pub prices: HashMap<usize, Arc<Price>>,
}

impl Snapshot {
    /// The price of a route for an account on a plan.
    #[must_use]
    pub fn price<'a>(&'a self, route: &'a Route, plan: Option<&'a Plan>) -> &'a Arc<Price> {
        plan.and_then(|plan| plan.prices.get(&route.index)).unwrap_or(&route.price)
    }

    /// Whether an account is served, and on which plan. `stored` is the plan of an account that was
    /// made by command, `None` for one that only a file can name.
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

    /// The same snapshot with the accounts of the file.
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

    /// The same snapshot with the routes' numbers in the ledger, in the order of the routes.
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
    /// Former snapshots that requests may still use. They are freed here, since that takes milliseconds for many routes,
    /// which would delay a worker. At most as many as are still in use.
    former: Arc<Mutex<Vec<Arc<Snapshot>>>>,
}

/// A publisher and a reader, with the first snapshot.
#[must_use]
pub fn channel(first: Snapshot) -> (Publisher, SnapshotReader) {
    let shared = Arc::new(ArcSwap::from_pointee(first));
    (Publisher { shared: Arc::clone(&shared), former: Arc::default() }, SnapshotReader(shared))
}

/// The snapshot that a request is judged by; it lives at least as long as this value. Reference counts are in two levels: one
/// among the requests of a worker, and one between threads, which a worker increments once for all its requests.
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

/// A worker's access to the current snapshot. Its requests share it without touching a counter that other threads write.
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

    /// The same for one worker.
    #[must_use]
    pub fn views(&self) -> Views {
        let cache = RefCell::new(Cache::new(Arc::clone(&self.0)));
        Views { cache, last: RefCell::new(View(Rc::new(SharedSnapshot(self.load())))) }
    }
}

impl Publisher {
    /// Replaces the snapshot by one atomic swap: requests that began before keep theirs.
    pub fn publish(&self, snapshot: Snapshot) {
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
