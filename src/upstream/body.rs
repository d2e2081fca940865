//! The body of a response over any HTTP version.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::fault::ResponseFault;
use super::http1::Http1Body;
use super::http2::Http2Body;
use super::local::InFlight;
use super::response::ResponseOf;
use super::tunnel::Tunnel;
use crate::types::Moment;

/// A response over any HTTP version.
pub type UpstreamResponse = ResponseOf<UpstreamBody>;

/// The body of a response over any HTTP version. Its request is in flight until the body is dropped.
#[derive(Debug)]
pub struct UpstreamBody {
    source: BodySource,
    in_flight: InFlight,
}

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum BodySource {
    Http1(Http1Body),
    Http2(Http2Body),
}

/// Converts a response to the type for any HTTP version.
pub(super) fn over_any<B: Into<BodySource>>(
    response: ResponseOf<B>,
    in_flight: InFlight,
) -> UpstreamResponse {
    let ResponseOf { status, headers, body } = response;
    ResponseOf { status, headers, body: UpstreamBody { source: body.into(), in_flight } }
}

impl UpstreamBody {
    /// Takes the whole body, if its length is known and all of it arrived.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.source {
            BodySource::Http1(body) => body.take_whole(),
            BodySource::Http2(_) => None,
        }
    }

    /// Keeps the connection for other requests if the body was read to its end; closes it otherwise.
    pub fn give_back(self, now: Moment) {
        if let BodySource::Http1(body) = self.source
            && let Some(connection) = body.into_connection()
        {
            self.in_flight.keep(connection, now);
        }
    }

    /// The connection, after it switched protocols; `None` over HTTP/2.
    #[must_use]
    pub fn into_tunnel(self) -> Option<Tunnel> {
        let BodySource::Http1(body) = self.source else { return None };
        let (early, io, counted) = body.into_switched()?;
        Some(Tunnel::new(early, io, counted, self.in_flight))
    }
}

impl From<Http1Body> for BodySource {
    fn from(body: Http1Body) -> Self {
        Self::Http1(body)
    }
}

impl From<Http2Body> for BodySource {
    fn from(body: Http2Body) -> Self {
        Self::Http2(body)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match &mut self.source {
            BodySource::Http1(body) => Pin::new(body).poll_frame(context),
            BodySource::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Http1(body) => body.is_end_stream(),
            BodySource::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Http1(body) => body.size_hint(),
            BodySource::Http2(body) => body.size_hint(),
        }
    }
}
