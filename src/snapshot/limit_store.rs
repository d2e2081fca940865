//! Where the gateways of a fleet count limits together.

use crate::policy::limit::Outage;
use crate::types::KeyHash;

/// Where the gateways of a fleet count limits together. Takes effect at a restart.
#[derive(Clone, Debug)]
pub struct LimitStorePlace {
    /// The servers.
    pub servers: LimitServers,
    /// What the names of all keys in the store begin with.
    pub prefix: String,
    /// What happens to requests while the store does not answer, unless a limit says otherwise.
    pub outage: Outage,
    /// The hash of what the file says about the servers.
    pub made_from: KeyHash,
}

/// Redis or Valkey.
#[derive(Clone, Debug)]
pub enum LimitServers {
    /// One server, or the primary one of several.
    One(Box<redis::Client>),
    /// A cluster.
    Cluster(Box<redis::cluster::ClusterClient>),
}

impl PartialEq for LimitStorePlace {
    fn eq(&self, other: &Self) -> bool {
        (self.made_from, &self.prefix, self.outage) == (other.made_from, &other.prefix, other.outage)
    }
}
