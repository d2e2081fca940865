//! What one request is judged by: immutable, swapped whole.

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
    /// What refusals outside a route are worded in.
    pub dialect: Arc<Dialect>,
    /// Finds a route's index by host, path and method.
    pub table: RouteTable<usize>,
    /// All routes.
    pub routes: Vec<Arc<Route>>,
    /// All plans.
    pub plans: HashMap<NameId, Plan>,
    /// Accounts of the file and their plans, by their numbers in the ledger, which are dense. They
    /// stand here so that plan and prices of one request are of one configuration.
    pub listed: Vec<Option<Listed>>,
}

/// An account that stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The plan that it is on.
    pub plan: Option<NameId>,
}

/// Whether an account may be served, and on which plan.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// It is served.
    Served(Option<&'a Plan>),
    /// The file dropped it, or its plan is not known: its keys are as good as unknown.
    Unknown,
}

/// Settings that are not about one route.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients are served without TLS. Takes effect at a restart.
    pub listen: Vec<SocketAddr>,
    /// Where they are served with it. Takes effect at a restart.
    pub tls_listen: Vec<SocketAddr>,
    /// How; present wherever `tls_listen` is not empty.
    pub tls: Option<Tls>,
    /// Worker threads, never 0. Takes effect at a restart.
    pub threads: usize,
    /// Most connections at once. Takes effect at a restart.
    pub max_connections: usize,
    /// From accept to the end of the first head.
    pub header_timeout: Duration,
    /// Between requests of a connection.
    pub idle_timeout: Duration,
    /// Largest request head in bytes.
    pub max_header_size: usize,
    /// How long requests in flight may take after a stop was asked for.
    pub drain_timeout: Duration,
    /// Drop empty path segments instead of refusing them.
    pub merge_slashes: bool,
    /// Networks whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Every connection from [`Settings::trusted_proxies`] begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// A client that closed its sending side still gets its answer; otherwise it is gone.
    pub half_close: bool,
    /// Where operators are served. Takes effect at a restart.
    pub admin_listen: SocketAddr,
    /// What the admin token hashes to.
    pub admin_token: Option<KeyHash>,
    /// The ledger's file. Takes effect at a restart.
    pub ledger: PathBuf,
    /// How long a record may wait to be committed while nobody waits for it. Takes effect at a restart.
    pub commit_delay: Duration,
    /// Prefix of keys that are made here.
    pub key_prefix: String,
    /// Keys that do not work, per client address and minute; 0 for any number.
    pub failed_keys_per_minute: u32,
    /// The path answered with an account's balance.
    pub account_info: Option<String>,
    /// `RateLimit` headers (the IETF draft).
    pub ietf_headers: bool,
    /// `X-RateLimit` headers.
    pub x_ratelimit_headers: bool,
    /// `x-credits-used` and `x-credits-remaining`.
    pub credit_headers: bool,
    /// What is logged.
    pub log: LogSettings,
}

/// What is logged, and how. The format takes effect at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON lines rather than text.
    pub json: bool,
    /// One line per request.
    pub requests: bool,
    /// Only time, route, credits and status.
    pub minimal: bool,
}

/// One endpoint of the API.
#[derive(Clone, Debug)]
pub struct Route {
    /// What prices and scopes refer to.
    pub name: RouteName,
    /// Its index among the snapshot's routes.
    pub index: usize,
    /// Its number in the ledger; 0 until it is registered.
    pub num: RouteNum,
    /// Asks for no key and charges nothing.
    pub public: bool,
    /// Where it forwards to.
    pub upstream: Arc<Upstream>,
    /// What it costs, where the plan says nothing else.
    pub price: Arc<Price>,
    /// How its refusals are worded.
    pub dialect: Arc<Dialect>,
    /// Limits of this route alone.
    pub limits: Vec<Limit>,
    /// How many segments are taken off the path before it goes upstream: the route's prefix, however
    /// a request writes it.
    pub strip_segments: usize,
    /// The operator's own headers: the upstream's, then the route's.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the answer's head may take.
    pub response_timeout: Duration,
    /// Largest request body in bytes.
    pub max_body_size: u64,
    /// Take paths with `%2F`.
    pub encoded_slashes: bool,
    /// What pages of other origins may do.
    pub cors: Option<Cors>,
}

/// Servers that requests are forwarded to. One, for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// What its connections are found by: the same server keeps its id across reloads.
    pub id: NameId,
    /// Host name or address, and port.
    pub server: (String, u16),
    /// Whether it speaks HTTP/2, from the first byte on.
    pub http2: bool,
    /// `host:port` as it stands in `Host`.
    pub authority: HeaderValue,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// The Host it sees.
    pub host: HostHeader,
}

/// A bundle of limits and prices.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its name as a header value.
    pub header: Option<HeaderValue>,
    /// Requests of one key in flight.
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
    pub fn standing(&self, account: AccountNum, stored: Option<Option<NameId>>) -> Standing<'_> {
        let listed = self.listed.get(account.0 as usize).copied().flatten();
        match listed.map(|listed| listed.plan).or(stored) {
            None => Standing::Unknown,
            Some(None) => Standing::Served(None),
            Some(Some(plan)) => {
                self.plans.get(&plan).map_or(Standing::Unknown, |plan| Standing::Served(Some(plan)))
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
            self.listed[at] = Some(Listed { plan });
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

/// Gives out the snapshot in force.
#[derive(Clone, Debug)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

/// Puts a snapshot in force.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<ArcSwap<Snapshot>>,
    /// Former ones that requests may still be judged by: to free one takes milliseconds where it has many
    /// routes, which no worker is to spend. As many as are still in use.
    former: Arc<Mutex<Vec<Arc<Snapshot>>>>,
}

/// Both ends, with the first snapshot in force.
#[must_use]
pub fn channel(first: Snapshot) -> (Publisher, Reader) {
    let shared = Arc::new(ArcSwap::from_pointee(first));
    (Publisher { shared: Arc::clone(&shared), former: Arc::default() }, Reader(shared))
}

/// The snapshot that a request is judged by, kept alive for as long as this lives. Counted twice: by
/// the worker's requests among themselves, and once for them all among the threads.
#[derive(Clone, Debug)]
pub struct View(Rc<Shared>);

#[derive(Debug)]
struct Shared(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

/// A worker's way to the snapshot in force. Its requests share what it holds without touching a
/// counter that other threads write to.
#[derive(Debug)]
pub struct Views {
    cache: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    last: RefCell<View>,
}

impl Views {
    /// The snapshot in force.
    #[must_use]
    pub fn load(&self) -> View {
        let mut cache = self.cache.borrow_mut();
        let now = cache.load();
        let mut last = self.last.borrow_mut();
        if !Arc::ptr_eq(now, &last.0.0) {
            *last = View(Rc::new(Shared(Arc::clone(now))));
        }
        last.clone()
    }
}

impl Reader {
    /// The snapshot in force, kept alive for as long as the answer lives.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// The same for one worker.
    #[must_use]
    pub fn views(&self) -> Views {
        let cache = RefCell::new(Cache::new(Arc::clone(&self.0)));
        Views { cache, last: RefCell::new(View(Rc::new(Shared(self.load())))) }
    }
}

impl Publisher {
    /// One atomic swap: requests that began before keep theirs.
    pub fn publish(&self, snapshot: Snapshot) {
        let former = self.shared.swap(Arc::new(snapshot));
        self.former.lock().push(former);
        self.free();
    }

    /// Frees former snapshots that nobody uses any more, on this thread.
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

    /// The reading end.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.shared))
    }
}
