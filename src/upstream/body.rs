//! The body of an answer, whatever the upstream speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::net::tcp::OwnedWriteHalf;

use super::http2::StreamBody;
use super::wire::{Fault, WireBody};

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody(pub(super) Source);

/// Where it comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// HTTP/1.1: a connection of its own.
    Wire(WireBody),
    /// HTTP/2: one of the streams of a connection.
    Stream(StreamBody),
}

impl AnswerBody {
    /// All of the body, if its length is known and it has come; nothing is left then.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Wire(body) => body.take_whole(),
            Source::Stream(_) => None,
        }
    }

    /// Both directions of a connection that switched protocols, and what came behind the head.
    #[must_use]
    pub fn into_tunnel(self) -> Option<(Bytes, impl AsyncRead + Unpin, OwnedWriteHalf)> {
        match self.0 {
            Source::Wire(body) => body.into_tunnel(),
            Source::Stream(_) => None,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.0 {
            Source::Wire(body) => Pin::new(body).poll_frame(context),
            Source::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Wire(body) => body.is_end_stream(),
            Source::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Wire(body) => body.size_hint(),
            Source::Stream(body) => body.size_hint(),
        }
    }
}
