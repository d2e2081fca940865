//! A request on its way: what is left of it for another try, and whether there may be one.

use smallvec::SmallVec;

use super::fault::{Cause, SendError, Sent, Stage};
use super::http1::{ExchangeError, Http1Body, Http1Connection, Upload};
use super::http2::{Http2Body, Http2Stream, StreamError};
use super::local::LocalServer;
use super::request::{HeadBuffers, NextHop, OutgoingRequest};
use super::response::ResponseOf;
use crate::policy::upstream::retry::{FailedTry, Retries, may_retry};

/// A request that is sent until a server responds or it must not be sent again.
pub(super) struct Outgoing<R: OutgoingRequest> {
    pub(super) request: R,
    payload: Payload<R>,
    /// The servers that failed it.
    pub(super) tried: SmallVec<[u64; 2]>,
    /// Open connections are not used: one of them just failed.
    pub(super) is_fresh: bool,
}

/// What is left of a request's body for the next try.
enum Payload<R: OutgoingRequest> {
    /// All of it; `None` if the request has no body.
    Whole(Option<R::Body>),
    /// It was taken in part, and nothing was written.
    Begun(Box<Upload<R::Body>>),
    /// It was sent in part or as a whole.
    Gone,
}

impl<R: OutgoingRequest> Outgoing<R> {
    pub(super) fn new(mut request: R) -> Self {
        let payload = Payload::Whole(request.take_body());
        Self { request, payload, tried: SmallVec::new(), is_fresh: false }
    }

    /// True if the request can be sent over HTTP/1.1 only.
    pub(super) fn needs_http1(&self) -> bool {
        self.request.needs_http1() || matches!(self.payload, Payload::Begun(_))
    }

    /// True if the body can be sent from its beginning, or there is none.
    pub(super) fn has_payload(&self) -> bool {
        !matches!(self.payload, Payload::Gone)
    }

    /// Takes the body from its beginning, if it was kept.
    pub(super) fn rewind(&mut self) {
        if !self.has_payload()
            && let Some(body) = self.request.rewind_body()
        {
            self.payload = Payload::Whole(Some(body));
        }
    }

    /// True if the request may be sent again to another server.
    pub(super) fn may_retry(&self, error: &SendError, retries: &Retries) -> bool {
        error.is_about_server() && may_retry(&self.failed(error), self.request.method(), retries)
    }

    fn failed(&self, error: &SendError) -> FailedTry {
        FailedTry {
            is_sent: error.sent == Sent::Something,
            is_connection_lost: matches!(error.cause, Cause::Closed | Cause::Io(..) | Cause::Http2(_)),
            has_body: self.has_payload(),
            before: u32::try_from(self.tried.len()).unwrap_or(u32::MAX),
        }
    }

    /// Exchanges the request for the response head over HTTP/1.1.
    pub(super) async fn exchange(
        &mut self,
        server: &LocalServer,
        connection: Box<Http1Connection>,
        buffers: &HeadBuffers,
    ) -> Result<ResponseOf<Http1Body>, SendError> {
        let mut head = buffers.take();
        self.request.write_http1(next_hop(server), &mut head);
        let (upload, has_body) = match std::mem::replace(&mut self.payload, Payload::Gone) {
            Payload::Whole(body) => {
                let has_body = body.is_some();
                (Upload::new(head, self.request.is_chunked(), body), has_body)
            }
            Payload::Begun(mut upload) => {
                upload.replace_head(&head);
                buffers.put(head);
                (*upload, true)
            }
            Payload::Gone => return Err(SendError::sent(Cause::Body)), // it is never tried again
        };
        match connection.exchange(upload, self.request.framing_context(), buffers).await {
            Ok(exchange) => Ok(Http1Body::of(exchange)),
            Err(ExchangeError::Unsent(upload, fault)) => {
                self.payload = Payload::Begun(Box::new(upload));
                Err(SendError::unsent(Stage::Exchange, fault.cause()))
            }
            Err(ExchangeError::Sent(fault)) => {
                self.sent(has_body);
                Err(SendError::sent(fault.cause()))
            }
        }
    }

    /// Sends the request on a stream of an HTTP/2 connection, and waits for the response head.
    pub(super) async fn send_on(
        &mut self,
        server: &LocalServer,
        stream: Http2Stream<R::Body>,
    ) -> Result<ResponseOf<Http2Body>, SendError> {
        let no_host = || SendError::unsent(Stage::Exchange, Cause::Host);
        let head = self.request.http2_head(next_hop(server)).ok_or_else(no_host)?;
        let Payload::Whole(body) = std::mem::replace(&mut self.payload, Payload::Gone) else {
            return Err(SendError::sent(Cause::Body)); // a body that was begun is sent over HTTP/1.1
        };
        let has_body = body.is_some();
        match stream.send(head.map(|()| body)).await {
            Ok(response) => Ok(response),
            Err(StreamError::Unsent(body)) => {
                self.payload = Payload::Whole(body);
                Err(SendError::unsent(Stage::Exchange, Cause::Closed))
            }
            Err(StreamError::Failed(error)) => {
                self.sent(has_body);
                Err(error)
            }
        }
    }

    /// The request was sent: it can be sent again as it is only if it has no body.
    fn sent(&mut self, has_body: bool) {
        if !has_body {
            self.payload = Payload::Whole(None);
        }
    }
}

fn next_hop(server: &LocalServer) -> NextHop<'_> {
    let origin = &server.shared.origin;
    NextHop { authority: &origin.authority, is_tls: origin.tls.is_some() }
}
