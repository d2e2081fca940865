//! Forwards a request body while it arrives: bounds its size, tracks the client's deadlines, and joins small frames.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::fault::{BodyFault, BodyProgress};
use crate::gateway::connection::RequestDeadlines;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::services::Services;
use crate::policy::forward;

/// A frame of at least this size is forwarded alone. Smaller frames that arrived together are joined until they
/// have this size. Each frame becomes a write to the upstream, which costs as much as copying 16 KiB.
const MAX_JOINED: usize = 16 * 1024;

/// A request body that is forwarded while it arrives. If it exceeds its bound, it ends with an error, which
/// closes the upstream's connection.
#[derive(Debug)]
pub(in crate::gateway::request) struct StreamingBody {
    incoming: Incoming,
    /// Bytes that may still arrive.
    left: u64,
    joined: Joined,
    progress: BodyProgress,
    deadlines: Arc<RequestDeadlines>,
    services: Rc<Services>,
    record: Rc<AccessRecord>,
}

/// Small frames that arrived together.
#[derive(Debug, Default)]
struct Joined {
    data: BytesMut,
    /// hyper was polled once more after the last frame, since it returns one frame per poll.
    is_polled: bool,
    /// What arrived after these frames: trailers, the end, or an error.
    next: Option<Option<Result<Frame<Bytes>, BodyFault>>>,
}

impl Joined {
    fn take(&mut self) -> Frame<Bytes> {
        self.is_polled = false;
        Frame::data(self.data.split().freeze())
    }
}

impl StreamingBody {
    pub(super) fn new(
        incoming: Incoming,
        max: u64,
        deadlines: Arc<RequestDeadlines>,
        services: &Rc<Services>,
        record: &Rc<AccessRecord>,
    ) -> Self {
        let (services, record) = (Rc::clone(services), Rc::clone(record));
        let progress = BodyProgress::default();
        Self { incoming, left: max, joined: Joined::default(), progress, deadlines, services, record }
    }

    pub(super) fn progress(&self) -> &BodyProgress {
        &self.progress
    }

    /// Lowers the bound to `max` bytes.
    pub(super) fn limit(&mut self, max: u64) {
        self.left = self.left.min(max);
    }

    /// Removes the fields from trailers that are also removed from a request head.
    fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let set = self.record.route().map_or(&[][..], |route| &route.set_headers);
        forward::strip_trailers(trailers, &self.record.view().keys, set);
    }

    /// The next frame as the client sent it.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        if polled.is_pending() && self.joined.data.is_empty() {
            self.deadlines.await_request_body(self.services.now());
        }
        let frame = ready!(polled);
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.deadlines.request_body_arrived(self.services.now(), data.map_or(0, Bytes::len));
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(self.progress.fail(BodyFault::Aborted))),
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.strip_trailers(trailers);
                }
                Some(self.count(frame))
            }
        })
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                self.record.add_bytes_in(length);
                Ok(frame)
            }
            None => Err(self.progress.fail(BodyFault::TooLarge)),
        }
    }
}

impl Body for StreamingBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(next) = self.joined.next.take() {
            return Poll::Ready(next);
        }
        loop {
            let frame = match self.poll_incoming(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending if self.joined.data.is_empty() => return Poll::Pending,
                Poll::Pending if self.joined.is_polled => return Poll::Ready(Some(Ok(self.joined.take()))),
                Poll::Pending => {
                    self.joined.is_polled = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            let data = match frame {
                Some(Ok(frame)) if frame.is_data() => frame.into_data().unwrap_or_default(),
                end if self.joined.data.is_empty() => return Poll::Ready(end),
                end => {
                    self.joined.next = Some(end);
                    return Poll::Ready(Some(Ok(self.joined.take())));
                }
            };
            let is_end = self.incoming.is_end_stream();
            if self.joined.data.is_empty() && (is_end || data.len() >= MAX_JOINED) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.joined.data.extend_from_slice(&data);
            self.joined.is_polled = false;
            if is_end || self.joined.data.len() >= MAX_JOINED {
                return Poll::Ready(Some(Ok(self.joined.take())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.joined.data.is_empty() && self.joined.next.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint() // only called before the first frame is taken
    }
}
