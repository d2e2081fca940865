//! The settings of an upstream.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::forward::HostHeader;
use crate::policy::upstream::balance::Balance;
use crate::policy::upstream::ejection::Ejection;
use crate::policy::upstream::health::HealthCheck;
use crate::policy::upstream::retry::Retries;
use crate::servers::{HttpVersions, Origin, ServerGroup};

/// An upstream: servers, and how requests are forwarded to them.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The upstream's name in the configuration.
    pub name: String,
    /// The servers that the configuration names, each with its weight.
    pub origins: Vec<(Arc<Origin>, u32)>,
    /// The servers with their state, which outlives the snapshot.
    pub servers: Arc<ServerGroup>,
    /// How the server of a request is selected.
    pub balance: Balance,
    /// Most requests in flight per server; 0 for no limit.
    pub max_requests: u32,
    /// The requests that wait while every server has as many.
    pub queue: QueueLimits,
    /// The check that tells which servers are up; `None` if there is none.
    pub health: Option<HealthCheck>,
    /// When servers are left out because requests to them fail.
    pub ejection: Ejection,
    /// How long a server that is available again gets less than its share.
    pub slow_start: Duration,
    /// How often requests are sent again.
    pub retries: Retries,
    /// How often host names are resolved again.
    pub resolve_every: Duration,
    /// Longest time until a connection is established, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence within a response body; `None` for no limit.
    pub body_timeout: Option<Duration>,
    /// The `Host` header that is sent to servers.
    pub host: HostHeader,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most requests that wait.
    pub most: usize,
    /// Longest time that a request waits.
    pub time: Duration,
}

impl Upstream {
    /// True if requests may be sent to a server over HTTP/2.
    #[must_use]
    pub fn may_use_http2(&self) -> bool {
        self.origins.iter().any(|(origin, _)| origin.versions != HttpVersions::Http1)
    }

    /// True if requests can be sent to it over HTTP/2 only, which has no upgrades here.
    #[must_use]
    pub fn is_http2_only(&self) -> bool {
        self.origins.iter().all(|(origin, _)| origin.versions == HttpVersions::Http2)
    }
}
