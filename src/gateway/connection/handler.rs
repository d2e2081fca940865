//! The trait through which a connection has its requests served.

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use super::scan::HeadVerdict;
use super::stream::Stream;
use crate::policy::reject::Reason;

/// Serves the requests of connections. Each connection has a clone of the handler.
pub(in crate::gateway) trait RequestHandler: Clone + 'static {
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static;
    /// Why a request has no response.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Serves one request. `head` is the scanner's verdict; `None` if the scanner did not see the head.
    ///
    /// # Errors
    /// If no response may be sent: the connection, or the HTTP/2 stream, is aborted.
    fn handle(
        self,
        stream: Stream,
        head: Option<HeadVerdict>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Self::Error>> + 'static;

    /// Counts and logs a request that hyper refused itself, with a response that has no body.
    fn refused_by_hyper(&self, reason: Reason);
}
