//! Defines the cases: the request, the expected response, and the entrants.

use std::path::PathBuf;

use crate::peers::Engines;
use crate::upstream::{ENRICH, EVENTS, EXPORT, SLOW};
use crate::{Result, own};

/// The unit that CPU time is divided by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Request,
    Gigabyte,
    Event,
}

impl Unit {
    /// The label of a figure per unit.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "CPU µs/request",
            Self::Gigabyte => "CPU s/GB",
            Self::Event => "CPU µs/event",
        }
    }
}

/// How requests are generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// By wrk: each connection sends a new request as soon as it has a response.
    Wrk,
    /// The same by the bench's own load generator, which also counts events.
    Own,
    /// By the bench's own load generator at a fixed rate, however fast responses arrive.
    Rate,
}

/// The protocol between the load and the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    Plain,
    /// TLS 1.3 on persistent connections.
    Tls,
    /// TLS 1.3 with a new connection for each request, without session resumption.
    TlsAnew,
    /// HTTP/2 without TLS by h2load, with several requests at the same time on a connection.
    Http2,
}

/// The gateway program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tollgate,
    HaProxy,
    Nginx,
    NginxLua,
    Envoy,
    /// HAProxy as a TCP relay that inspects nothing: the lower bound.
    Tcp,
}

/// The way to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// One server.
    One,
    /// One server with TLS 1.3, on persistent connections.
    Tls,
    /// Three servers; the less busy of two drawn at random.
    Three,
}

/// The settings in which entrants of one kind differ.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The ledger is on tmpfs.
    pub tmpfs: bool,
    /// The route has no price.
    pub free: bool,
    /// The request log is on.
    pub log: bool,
    /// One request of a hundred is traced; there is no collector.
    pub traced: bool,
    /// A key's limit is one request a day.
    pub limited: bool,
    /// Keys are in the store, not in the file: `true` for many keys, `false` for few.
    pub stored: Option<bool>,
    /// The gateway is one of a fleet, with its ledger in PostgreSQL and its limits in Redis.
    pub fleet: bool,
    /// The way to the upstream.
    pub back: Back,
    /// The gateway runs inside the bench's own program, with this kind of ledger.
    pub own: Option<&'static str>,
}

/// A gateway that takes part in a case, and its settings.
pub struct Entrant {
    pub name: &'static str,
    pub kind: Kind,
    pub setup: Setup,
}

/// One case of the bench.
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub path: &'static str,
    /// Bytes of the POST body; 0 for a GET.
    pub body: usize,
    pub unknown_keys: bool,
    /// The status that every response must have.
    pub status: u16,
    pub unit: Unit,
    pub style: Style,
    pub wire: Wire,
    /// Number of connections, unless an option sets another one.
    pub connections: u64,
    pub entrants: &'static [Entrant],
    /// Pairs of entrants that are compared with each other, in addition to the comparison with HAProxy.
    pub pairs: &'static [(&'static str, &'static str)],
}

impl Entrant {
    /// The path of its installed program, or an error with the reason why something is missing.
    pub fn program(&self) -> Result<PathBuf> {
        if self.setup.fleet && !Engines::are_installed() {
            return Err("PostgreSQL or Redis is not installed".into());
        }
        self.kind.program()
    }
}

const fn entrant(name: &'static str, kind: Kind, setup: Setup) -> Entrant {
    Entrant { name, kind, setup }
}

const PRICED: Setup = Setup {
    tmpfs: false,
    free: false,
    log: false,
    traced: false,
    limited: false,
    stored: None,
    fleet: false,
    back: Back::One,
    own: None,
};
const ON_TMPFS: Setup = Setup { tmpfs: true, ..PRICED };
const FREE: Setup = Setup { free: true, ..PRICED };
const LOGGED: Setup = Setup { log: true, ..PRICED };
const TRACED: Setup = Setup { traced: true, ..PRICED };
const LIMITED: Setup = Setup { limited: true, ..PRICED };
const FEW: Setup = Setup { stored: Some(false), ..PRICED };
const MANY: Setup = Setup { stored: Some(true), ..PRICED };

const OF_FLEET: Setup = Setup { fleet: true, ..PRICED };

const OWN_MEMORY: Setup = Setup { own: Some(own::MEMORY), ..PRICED };
const OWN_FILE: Setup = Setup { own: Some(own::FILE), ..PRICED };

const TO_TLS: Setup = Setup { back: Back::Tls, ..PRICED };
const TO_THREE: Setup = Setup { back: Back::Three, ..PRICED };

/// Entrants that speak TLS with the upstream.
const BACK_TLS: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, TO_TLS),
    entrant("tollgate-plain", Kind::Tollgate, PRICED),
    entrant("haproxy", Kind::HaProxy, TO_TLS),
];
/// Entrants with three servers.
const BACK_THREE: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, TO_THREE),
    entrant("tollgate-one", Kind::Tollgate, PRICED),
    entrant("haproxy", Kind::HaProxy, TO_THREE),
];
const EVERYBODY: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("haproxy", Kind::HaProxy, PRICED),
    entrant("nginx", Kind::Nginx, PRICED),
    entrant("nginx-lua", Kind::NginxLua, PRICED),
    entrant("envoy", Kind::Envoy, PRICED),
    entrant("tcp", Kind::Tcp, PRICED),
];
/// Entrants that are set up for TLS and HTTP/2.
const SECURE: &[Entrant] =
    &[entrant("tollgate", Kind::Tollgate, PRICED), entrant("haproxy", Kind::HaProxy, PRICED)];
/// Entrants that check keys.
const CHECKING: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("haproxy", Kind::HaProxy, PRICED),
    entrant("nginx-lua", Kind::NginxLua, PRICED),
    entrant("envoy", Kind::Envoy, PRICED),
];
const LIMITING: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, LIMITED),
    entrant("haproxy", Kind::HaProxy, LIMITED),
    entrant("nginx-lua", Kind::NginxLua, LIMITED),
    entrant("envoy", Kind::Envoy, LIMITED),
];
const STORED: &[Entrant] = &[
    entrant("tollgate-few", Kind::Tollgate, FEW),
    entrant("tollgate-many", Kind::Tollgate, MANY),
    entrant("haproxy-few", Kind::HaProxy, FEW),
    entrant("haproxy-many", Kind::HaProxy, MANY),
];
const FREE_OR_PRICED: &[Entrant] = &[
    entrant("tollgate-free", Kind::Tollgate, FREE),
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("haproxy", Kind::HaProxy, PRICED),
    entrant("nginx", Kind::Nginx, PRICED),
    entrant("tcp", Kind::Tcp, PRICED),
];
const DURABLE_OR_NOT: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("tollgate-tmpfs", Kind::Tollgate, ON_TMPFS),
    entrant("tollgate-free", Kind::Tollgate, FREE),
    entrant("haproxy", Kind::HaProxy, PRICED),
];
const LOGGED_OR_NOT: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("tollgate-log", Kind::Tollgate, LOGGED),
    entrant("haproxy", Kind::HaProxy, PRICED),
];
const TRACED_OR_NOT: &[Entrant] =
    &[entrant("tollgate", Kind::Tollgate, PRICED), entrant("tollgate-traced", Kind::Tollgate, TRACED)];
const DISK_OR_NOT: &[Entrant] = &[
    entrant("tollgate", Kind::Tollgate, PRICED),
    entrant("tollgate-tmpfs", Kind::Tollgate, ON_TMPFS),
    entrant("haproxy", Kind::HaProxy, PRICED),
];

const FLEET_OR_NOT: &[Entrant] =
    &[entrant("tollgate", Kind::Tollgate, PRICED), entrant("tollgate-fleet", Kind::Tollgate, OF_FLEET)];
const FILE_OR_MEMORY: &[Entrant] = &[
    entrant("own-file", Kind::Tollgate, OWN_FILE),
    entrant("own-memory", Kind::Tollgate, OWN_MEMORY),
    entrant("haproxy", Kind::HaProxy, PRICED),
];

const KEYS: Case = Case {
    name: "keys",
    about: "a valid key, 200 bytes",
    path: ENRICH,
    body: 0,
    unknown_keys: false,
    status: 200,
    unit: Unit::Request,
    style: Style::Wrk,
    wire: Wire::Plain,
    connections: 64,
    entrants: EVERYBODY,
    pairs: &[],
};

/// All cases. The first one is the default.
pub const ALL: [Case; 21] = [
    KEYS,
    Case {
        name: "refused",
        about: "unknown keys, refused with 401",
        unknown_keys: true,
        status: 401,
        entrants: CHECKING,
        ..KEYS
    },
    Case {
        name: "limited",
        about: "keys whose limit is used up, refused with 429",
        status: 429,
        entrants: LIMITING,
        ..KEYS
    },
    Case { name: "post", about: "a POST of 1 KiB", body: 1_024, ..KEYS },
    Case { name: "large", about: "responses of 1 MiB", path: EXPORT, unit: Unit::Gigabyte, ..KEYS },
    Case {
        name: "events",
        about: "event streams, 100 events in a second each",
        path: EVENTS,
        unit: Unit::Event,
        style: Style::Own,
        connections: 256,
        ..KEYS
    },
    Case {
        name: "million",
        about: "1,000 keys in the store, or a million (--keys); ten to an account",
        entrants: STORED,
        pairs: &[("tollgate-many", "tollgate-few"), ("haproxy-many", "haproxy-few")],
        ..KEYS
    },
    Case {
        name: "free",
        about: "a route without a price, so without the ledger",
        entrants: FREE_OR_PRICED,
        pairs: &[("tollgate", "tollgate-free")],
        ..KEYS
    },
    Case {
        name: "slow",
        about: "an upstream that takes 20 ms: what durability adds",
        path: SLOW,
        entrants: DURABLE_OR_NOT,
        pairs: &[("tollgate", "tollgate-free"), ("tollgate-tmpfs", "tollgate-free")],
        ..KEYS
    },
    Case {
        name: "rate",
        about: "a fixed rate (--rate), latency from when each request was due",
        style: Style::Rate,
        ..KEYS
    },
    Case {
        name: "rate-slow",
        about: "a fixed rate (--rate), and an upstream that takes 20 ms",
        path: SLOW,
        style: Style::Rate,
        entrants: FREE_OR_PRICED,
        pairs: &[("tollgate", "tollgate-free")],
        ..KEYS
    },
    Case {
        name: "log",
        about: "the request log off, and on into a file",
        entrants: LOGGED_OR_NOT,
        pairs: &[("tollgate-log", "tollgate")],
        ..KEYS
    },
    Case {
        name: "traces",
        about: "no traces, and one request of a hundred traced",
        entrants: TRACED_OR_NOT,
        pairs: &[("tollgate-traced", "tollgate")],
        ..KEYS
    },
    Case {
        name: "disk",
        about: "the ledger on disk and on tmpfs",
        entrants: DISK_OR_NOT,
        pairs: &[("tollgate", "tollgate-tmpfs")],
        ..KEYS
    },
    Case { name: "tls", about: "TLS 1.3, connections kept", wire: Wire::Tls, entrants: SECURE, ..KEYS },
    Case {
        name: "tls-anew",
        about: "TLS 1.3, a new connection for each request",
        wire: Wire::TlsAnew,
        entrants: SECURE,
        ..KEYS
    },
    Case {
        name: "http2",
        about: "HTTP/2, four requests at once on each",
        wire: Wire::Http2,
        connections: 16,
        entrants: SECURE,
        ..KEYS
    },
    Case {
        name: "upstream-tls",
        about: "TLS 1.3 to the upstream, connections kept",
        entrants: BACK_TLS,
        pairs: &[("tollgate", "tollgate-plain")],
        ..KEYS
    },
    Case {
        name: "servers",
        about: "three servers, the less busy of two",
        entrants: BACK_THREE,
        pairs: &[("tollgate", "tollgate-one")],
        ..KEYS
    },
    Case {
        name: "durable",
        about: "the ledger in a file, and in memory: the same program otherwise",
        connections: 256,
        entrants: FILE_OR_MEMORY,
        pairs: &[("own-file", "own-memory")],
        ..KEYS
    },
    Case {
        name: "fleet",
        about: "a gateway with SQLite, and one of a fleet with PostgreSQL and Redis",
        entrants: FLEET_OR_NOT,
        pairs: &[("tollgate-fleet", "tollgate")],
        ..KEYS
    },
];
