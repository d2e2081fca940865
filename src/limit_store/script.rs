//! Calls the scripts that count a limit in Redis or Valkey.

use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterConfig;
use redis::cluster_async::ClusterConnection;
use redis::{RedisResult, ScriptInvocation};

use crate::policy::limit::share::{Answer, Ask, LIFETIME};
use crate::policy::limit::{Algorithm, BUCKETS, Rate};
use crate::snapshot::LimitServers;

/// Longest time that the store may take to answer.
pub(super) const MAX_RESPONSE: Duration = Duration::from_millis(100);
/// Longest time that it may take to connect to it.
const MAX_CONNECT: Duration = Duration::from_secs(1);
/// Longest pause until it is connected to again.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Connections to the store.
#[derive(Clone)]
pub enum Servers {
    /// One server.
    One(ConnectionManager),
    /// A cluster.
    Cluster(ClusterConnection),
}

impl Servers {
    /// Connects in the background, and again whenever a connection is lost.
    ///
    /// # Errors
    /// If there is no connection to make.
    pub fn connect(servers: &LimitServers) -> RedisResult<Self> {
        match servers {
            LimitServers::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(MAX_RESPONSE))
                    .set_connection_timeout(Some(MAX_CONNECT))
                    .set_max_delay(MAX_PAUSE);
                client.get_connection_manager_lazy(config).map(Self::One)
            }
            LimitServers::Cluster(client) => {
                let config = ClusterConfig::new()
                    .set_response_timeout(MAX_RESPONSE)
                    .set_connection_timeout(MAX_CONNECT);
                Ok(Self::Cluster(client.get_pending_async_connection_with_config(config)))
            }
        }
    }
}

impl Servers {
    /// Asks the store nothing, which connects to it.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        let ping = redis::cmd("PING");
        match self {
            Self::One(connection) => ping.query_async(connection).await,
            Self::Cluster(connection) => ping.query_async(connection).await,
        }
    }
}

/// The scripts, and which gateway calls them.
#[derive(Clone, Debug)]
pub struct Script {
    window: redis::Script,
    gcra: redis::Script,
    prefix: String,
    gateway: String,
}

impl Script {
    /// `prefix`: what the names of all keys begin with. `gateway`: the name of this gateway in the fleet.
    #[must_use]
    pub fn new(prefix: &str, gateway: &str) -> Self {
        Self {
            window: redis::Script::new(concat!(
                include_str!("sliding_window.lua"),
                include_str!("share.lua")
            )),
            gcra: redis::Script::new(concat!(include_str!("gcra.lua"), include_str!("share.lua"))),
            prefix: prefix.to_owned(),
            gateway: gateway.to_owned(),
        }
    }

    /// Tells the store what was used of a share, and asks it for more.
    ///
    /// `name`: whose requests are counted, and by which limit. A cluster keeps all limits of one owner at one place.
    /// `history`: what this gateway counted before it opened the share. `at`: the time in microseconds, instead of the store's.
    ///
    /// # Errors
    /// If the store does not answer, or refuses.
    pub async fn call(
        &self,
        servers: &mut Servers,
        (owner, limit): (&str, &str),
        rate: &Rate,
        (ask, history): (&Ask, &[(Duration, u32)]),
        at: Option<u64>,
    ) -> RedisResult<Answer> {
        let script = match rate.algorithm {
            Algorithm::Gcra => &self.gcra,
            Algorithm::SlidingWindow => &self.window,
        };
        let mut call = script.key(format!("{}:{{{owner}}}:{limit}", self.prefix));
        call.arg(at.map_or_else(String::new, |at| at.to_string())).arg(&self.gateway);
        call.arg(format!("{:x}", ask.id)).arg(u8::from(ask.opens)).arg(ask.granted).arg(ask.used);
        call.arg(ask.returned)
            .arg(ask.want)
            .arg(micros(LIFETIME))
            .arg(lifetime(rate).as_millis().to_string());
        call.arg(rate.most()).arg(unit(rate)).arg(ask.uses.len());
        for (age, n) in ask.uses.iter().chain(history) {
            call.arg(micros(*age)).arg(*n);
        }
        let (granted, known, free, wait, fresh) = match servers {
            Servers::One(connection) => reply(&call, connection).await?,
            Servers::Cluster(connection) => reply(&call, connection).await?,
        };
        Ok(Answer {
            is_known: known == 1,
            granted,
            free: u32::try_from(free).unwrap_or(u32::MAX),
            wait: Duration::from_micros(wait),
            fresh: Duration::from_micros(fresh),
        })
    }
}

async fn reply(
    call: &ScriptInvocation<'_>,
    connection: &mut impl ConnectionLike,
) -> RedisResult<(u64, u64, u64, u64, u64)> {
    call.invoke_async(connection).await
}

/// A time in whole microseconds, rounded down: what was done so long ago is never taken to be older.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a request takes in microseconds, to the nanosecond: a part of a window, rounded up, or the time that it leaks.
fn unit(rate: &Rate) -> String {
    match rate.algorithm {
        Algorithm::SlidingWindow => rate.bucket.div_ceil(1000).to_string(),
        Algorithm::Gcra => format!("{}.{:03}", rate.interval / 1000, rate.interval % 1000),
    }
}

/// How long a state that nobody asks about has an effect.
fn lifetime(rate: &Rate) -> Duration {
    let counted = match rate.algorithm {
        Algorithm::SlidingWindow => rate.bucket.saturating_mul(BUCKETS + 2),
        Algorithm::Gcra => rate.interval.saturating_mul(rate.burst.into()),
    };
    LIFETIME * 2 + Duration::from_nanos(counted)
}
