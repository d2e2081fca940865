//! Defines how jobs are settled, and what happens to the responses of clients that are gone.

use crate::policy::json::Pointer;
use crate::policy::price::Price;
use crate::policy::route::RouteTable;

/// Where upstreams tell about jobs, in signed requests that Tollgate answers itself.
#[derive(Clone, Debug, Default)]
pub struct Callbacks {
    /// Finds the index of a callback by its path.
    pub table: RouteTable<usize>,
    /// All callbacks.
    pub list: Vec<Callback>,
}

/// A path at which an upstream tells about jobs.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The upstream whose jobs it tells about.
    pub upstream: String,
    /// The secret that signs its requests.
    pub secret: Vec<u8>,
    /// Where a request has the id of a job.
    pub id: CallbackId,
    /// When a job is done, and what it costs then, as in a response.
    pub price: Price,
}

/// Where a callback has the id of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackId {
    /// In its path or query.
    Target(JobId),
    /// In its JSON body.
    Body(Pointer),
}

/// How requests settle jobs.
#[derive(Clone, Debug)]
pub struct Settles {
    /// Where a request has the id of a job.
    pub id: JobId,
    /// When a job is done, and what it costs then. Its hold is that of each job.
    pub price: Price,
}

/// Where a request has the id of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobId {
    /// This segment of the path, counted from 0.
    Segment(usize),
    /// This parameter of the query.
    Query(String),
}

/// What happens to the response of a request with a price when its client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is read to its end, and charged as if the client had stayed.
    Finish,
    /// The upstream's request is cancelled, and what was seen of the response is charged; the hold if that does not tell.
    Abandon,
}
