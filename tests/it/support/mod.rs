//! Support for tests: a gateway on free ports, an upstream that records requests, and a client that sends bytes
//! unchanged. All tests of this binary use the real program, real sockets and a real ledger.

pub mod audit;
mod authority;
mod client;
mod gateway;
#[path = "../../skips.rs"]
mod skips;
mod upstream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use authority::{Authority, Pair};
pub use client::{Client, Response, get, post, send};
pub use gateway::{Gateway, Process, cli};
pub use skips::{missing, skipped};
pub use upstream::{Seen, Upstream};

/// Waits until something holds that must do so soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address where connections are refused as long as this exists: the port is taken, so that no other test gets it, but
/// nothing listens.
pub struct Refusing {
    pub address: SocketAddr,
    _socket: socket2::Socket,
}

impl Refusing {
    pub fn bind() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, _socket: socket }
    }
}

/// SHA-256 of a key, in the form that a configuration expects.
pub fn sha256(key: &str) -> String {
    tollgate::types::KeyHash::of(key.as_bytes()).to_hex()
}

/// A configuration with one route for each kind of price, one account without limits, and one account with a key of
/// every kind. [`Gateway`] replaces `{upstream}`.
pub fn config(more: &str) -> String {
    let hash = sha256("good-key");
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
threads = 2
[admin]
listen = "127.0.0.1:0"
[ledger]
url = "sqlite:ledger.db"
[upstreams.api]
servers = ["http://{{upstream}}"]
response_timeout = "5s"

[[routes]]
name = "free"
path = "/free/{{*rest}}"
upstream = "api"
[[routes]]
name = "open"
path = "/open/{{*rest}}"
upstream = "api"
public = true
[[routes]]
name = "one"
path = "/one"
upstream = "api"
credits = 1
[[routes]]
name = "header"
path = "/header"
upstream = "api"
hold = 10
charge = [{{ status = "2xx", from = "header:x-cost" }}, {{ status = "404", credits = 1 }}]
[[routes]]
name = "json"
path = "/json"
upstream = "api"
hold = 10
charge = [{{ status = "2xx", from = "json:/cost" }}]

[accounts.acme]
credits = 1000
[[accounts.acme.keys]]
label = "good"
sha256 = "{hash}"
{more}"#
    )
}
