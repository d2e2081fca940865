//! The body of an upstream's response, over HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::net::tcp::OwnedWriteHalf;

use super::http1::Http1Body;
use super::http2::Http2Body;
use super::response::{ResponseFault, ResponseOf};

/// An upstream's response over any HTTP version.
pub type UpstreamResponse = ResponseOf<UpstreamBody>;

/// The body of an upstream's response.
#[derive(Debug)]
pub struct UpstreamBody(pub(super) BodySource);

/// The connection that a body comes from.
#[derive(Debug)]
pub(super) enum BodySource {
    Http1(Http1Body),
    Http2(Http2Body),
}

impl UpstreamBody {
    /// Takes the whole body, if its length is known and all of it arrived.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            BodySource::Http1(body) => body.take_whole(),
            BodySource::Http2(_) => None,
        }
    }

    /// The two directions of a connection that switched protocols, and the bytes that arrived after the head;
    /// `None` over HTTP/2.
    #[must_use]
    pub fn into_tunnel(self) -> Option<(Bytes, impl AsyncRead + Unpin, OwnedWriteHalf)> {
        match self.0 {
            BodySource::Http1(body) => body.into_tunnel(),
            BodySource::Http2(_) => None,
        }
    }
}

impl<B: Into<UpstreamBody>> ResponseOf<B> {
    /// Converts a response to the type for any HTTP version.
    pub(super) fn into_any(self) -> UpstreamResponse {
        let Self { status, headers, body } = self;
        ResponseOf { status, headers, body: body.into() }
    }
}

impl From<Http1Body> for UpstreamBody {
    fn from(body: Http1Body) -> Self {
        Self(BodySource::Http1(body))
    }
}

impl From<Http2Body> for UpstreamBody {
    fn from(body: Http2Body) -> Self {
        Self(BodySource::Http2(body))
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match &mut self.0 {
            BodySource::Http1(body) => Pin::new(body).poll_frame(context),
            BodySource::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodySource::Http1(body) => body.is_end_stream(),
            BodySource::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodySource::Http1(body) => body.size_hint(),
            BodySource::Http2(body) => body.size_hint(),
        }
    }
}
