//! What the gateways of a fleet share: a PostgreSQL database and a Redis server.

#[path = "../../../tests/engines/postgres.rs"]
mod postgres;
#[path = "../../../tests/engines/redis.rs"]
mod redis;

use postgres::Postgres;
use redis::Redis;

use crate::Result;

const DATABASE: &str = "ledger";

/// The engines of one gateway.
pub struct Engines {
    postgres: Postgres,
    redis: Redis,
    database: String,
}

impl Engines {
    pub fn are_installed() -> bool {
        Postgres::is_installed() && Redis::is_installed()
    }

    pub fn start() -> Result<Self> {
        let missing = |what: &str| format!("{what} is not installed");
        let postgres = Postgres::start().ok_or_else(|| missing("PostgreSQL"))?;
        let redis = Redis::start().ok_or_else(|| missing("Redis"))?;
        let database = postgres.database(DATABASE);
        Ok(Self { postgres, redis, database })
    }

    /// The settings of a gateway that uses them.
    pub fn settings(&self) -> String {
        let (database, store) = (&self.database, self.redis.url());
        format!(
            "[ledger]\nurl = \"{database}?sslmode=disable\"\nnode = \"a\"\n[limits]\nstore = \"{store}\"\n"
        )
    }

    /// What they have done since they started.
    pub fn load(&self) -> String {
        let statistics = self.redis.command(&["info", "commandstats"]);
        let calls =
            |line: &str| -> Option<u64> { line.split("calls=").nth(1)?.split(',').next()?.parse().ok() };
        let scripts = statistics.lines().filter(|line| line.starts_with("cmdstat_eval"));
        let scripts: u64 = scripts.filter_map(calls).sum();
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'ledger'";
        format!("{scripts} scripts of Redis, {} transactions of PostgreSQL", self.postgres.ask(commits))
    }
}
