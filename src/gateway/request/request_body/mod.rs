//! A request body: forwarded to the upstream while it arrives, or read completely before.

mod buffered;
mod fault;
mod kept;
mod streaming;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use self::buffered::BufferedBody;
use self::fault::BodyFault;
pub(super) use self::fault::BodyProgress;
use self::kept::KeptBody;
use self::streaming::StreamingBody;
use super::access_log::AccessRecord;
use super::services::Services;
use crate::gateway::connection::Stream;
use crate::policy::reject::Refusal;

/// Largest body that is read before its request is paid for, in bytes.
pub(super) const MAX_BUFFERED: u64 = 8 * 1024 * 1024;

/// A request's body. Small, since most requests have none and it is moved several times.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// Forwarded while it arrives.
    Streaming(Box<StreamingBody>),
    /// Forwarded while it arrives, and kept, so that it can be sent again.
    Kept(KeptBody),
    /// Read completely, since the payment depends on it.
    Buffered(Box<BufferedBody>),
}

/// A copy of a body that may be sent again.
#[derive(Debug)]
pub(super) enum Replay {
    Kept(KeptBody),
    Buffered(Box<BufferedBody>),
}

impl Replay {
    /// The body from its beginning; `None` if it was not kept.
    pub(super) fn body(&self) -> Option<RequestBody> {
        match self {
            Self::Kept(body) => body.rewind().map(RequestBody::Kept),
            Self::Buffered(body) => Some(RequestBody::Buffered(body.clone())),
        }
    }
}

impl RequestBody {
    /// Wraps a body of at most `max` bytes; `None` if the request has none.
    ///
    /// # Errors
    /// [`BodyFault::TooLarge`] as a refusal, if the declared length is larger.
    pub(super) fn new(
        incoming: Incoming,
        max: u64,
        stream: &Stream,
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
    ) -> Result<Option<Self>, Refusal> {
        if incoming.is_end_stream() {
            return Ok(None);
        }
        if incoming.size_hint().lower() > max {
            return Err(BodyFault::TooLarge.into());
        }
        let deadlines = Arc::clone(&stream.deadlines);
        let body = StreamingBody::new(incoming, max, deadlines, services, record);
        Ok(Some(Self::Streaming(Box::new(body))))
    }

    /// The body of a request that may be sent again, and its copy for that.
    pub(super) fn keep(self) -> (Self, Replay) {
        match self {
            Self::Streaming(body) => {
                let kept = KeptBody::new(body);
                (Self::Kept(kept.clone()), Replay::Kept(kept))
            }
            Self::Kept(kept) => (Self::Kept(kept.clone()), Replay::Kept(kept)),
            Self::Buffered(body) => (Self::Buffered(body.clone()), Replay::Buffered(body)),
        }
    }

    /// The record of why the body ended early, if it does; `None` for a buffered body, which is complete.
    pub(super) fn progress(&self) -> Option<BodyProgress> {
        match self {
            Self::Streaming(body) => Some(body.progress().clone()),
            Self::Kept(body) => Some(body.progress().clone()),
            Self::Buffered(_) => None,
        }
    }

    /// Reads the body to its end, at most `max` bytes and [`MAX_BUFFERED`], under the client's deadlines. Returns its bytes
    /// too.
    ///
    /// # Errors
    /// [`BodyFault`] if it is larger, or the client aborted it.
    pub(super) async fn buffer(self, max: u64) -> Result<(Self, Bytes), BodyFault> {
        let max = max.min(MAX_BUFFERED);
        if self.size_hint().lower() > max {
            return Err(BodyFault::TooLarge);
        }
        let body = match self {
            Self::Streaming(body) => Box::new(BufferedBody::read(*body, max).await?),
            Self::Buffered(body) => body,
            Self::Kept(_) => return Err(BodyFault::Aborted), // bodies are kept only once they are paid for
        };
        let bytes = body.bytes();
        Ok((Self::Buffered(body), bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Streaming(body) => Pin::new(&mut **body).poll_frame(context),
            Self::Kept(body) => body.poll_frame(context),
            Self::Buffered(body) => Poll::Ready(body.next_frame().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
            Self::Buffered(body) => body.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
            Self::Buffered(body) => SizeHint::with_exact(body.bytes().len() as u64),
        }
    }
}
