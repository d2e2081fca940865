//! A client's body on its way to the upstream: counted, bounded, watched.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Gate;
use super::record::Record;
use super::stream::Stream;
use super::waits::Waits;
use crate::policy::forward;
use crate::policy::reject::{Reason, Refusal};

/// Why a body ended early, for the one who has to answer then.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The body outgrew its bound.
    pub(super) too_large: Cell<bool>,
    /// The client broke off.
    pub(super) cut: Cell<bool>,
}

/// A request's body. Ends with an error where it outgrows its bound, which cuts the upstream.
#[derive(Debug)]
pub(super) struct Inbound {
    inner: Incoming,
    left: u64,
    progress: Rc<Progress>,
    waits: Arc<Waits>,
    gate: Rc<Gate>,
    record: Rc<Record>,
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the body outgrew its bound")]
    TooLarge,
    #[error("the client broke off")]
    Client,
}

impl Inbound {
    /// Wraps a body of at most `most` bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`Reason::BodyTooLarge`] where it announces more.
    pub(super) fn new(
        inner: Incoming,
        most: u64,
        stream: &Stream,
        gate: &Rc<Gate>,
        record: &Rc<Record>,
    ) -> Result<Option<Self>, Refusal> {
        if inner.is_end_stream() {
            return Ok(None);
        }
        if inner.size_hint().lower() > most {
            return Err(Reason::BodyTooLarge.into());
        }
        let (waits, gate, record) = (Arc::clone(&stream.waits), Rc::clone(gate), Rc::clone(record));
        Ok(Some(Self { inner, left: most, progress: Rc::default(), waits, gate, record }))
    }

    /// What a head would not say in the client's name, trailers do not say either.
    fn strip(&self, trailers: &mut HeaderMap) {
        let set = self.record.found().map_or(&[][..], |route| &route.set_headers);
        forward::strip_trailers(trailers, &self.record.view().keys, set);
    }

    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_pending() {
            self.waits.waits_for_body(self.gate.beat.now());
        }
        let frame = ready!(polled);
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.waits.got_body(self.gate.beat.now(), data.map_or(0, Bytes::len));
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => {
                self.progress.cut.set(true);
                Some(Err(Cut::Client))
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.strip(trailers);
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => {
                        self.left = left;
                        Some(Ok(frame))
                    }
                    None => {
                        self.progress.too_large.set(true);
                        Some(Err(Cut::TooLarge))
                    }
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
