//! A client's body on its way to the upstream: counted, bounded, watched.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Gate;
use super::record::Record;
use super::stream::Stream;
use super::waits::Waits;
use crate::policy::forward;
use crate::policy::reject::{Reason, Refusal};

/// A piece of this size goes upstream by itself; smaller ones that came together go together, up to as
/// much again. Each piece becomes a write to the upstream, which costs as much as copying 16 KiB.
const MAX_GATHERED: usize = 16 * 1024;

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
    gathered: Gathered,
    progress: Rc<Progress>,
    waits: Arc<Waits>,
    gate: Rc<Gate>,
    record: Rc<Record>,
}

/// Small pieces of a body that came together.
#[derive(Debug, Default)]
struct Gathered {
    data: BytesMut,
    /// The client was asked for more since the last of them: hyper hands over one piece at a time.
    asked: bool,
    /// What came behind them: trailers, the end, or an error.
    next: Option<Option<Result<Frame<Bytes>, Cut>>>,
}

impl Gathered {
    fn take(&mut self) -> Frame<Bytes> {
        self.asked = false;
        Frame::data(self.data.split().freeze())
    }
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
        Ok(Some(Self {
            inner,
            left: most,
            gathered: Gathered::default(),
            progress: Rc::default(),
            waits,
            gate,
            record,
        }))
    }

    /// What a head would not say in the client's name, trailers do not say either.
    fn strip(&self, trailers: &mut HeaderMap) {
        let set = self.record.found().map_or(&[][..], |route| &route.set_headers);
        forward::strip_trailers(trailers, &self.record.view().keys, set);
    }

    /// The next piece as the client sent it, counted.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_pending() && self.gathered.data.is_empty() {
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
        if let Some(next) = self.gathered.next.take() {
            return Poll::Ready(next);
        }
        loop {
            let piece = match self.poll_piece(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending if self.gathered.data.is_empty() => return Poll::Pending,
                Poll::Pending if self.gathered.asked => return Poll::Ready(Some(Ok(self.gathered.take()))),
                Poll::Pending => {
                    self.gathered.asked = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            let data = match piece {
                Some(Ok(frame)) if frame.is_data() => frame.into_data().unwrap_or_default(),
                end if self.gathered.data.is_empty() => return Poll::Ready(end),
                end => {
                    self.gathered.next = Some(end);
                    return Poll::Ready(Some(Ok(self.gathered.take())));
                }
            };
            let ends = self.inner.is_end_stream();
            if self.gathered.data.is_empty() && (ends || data.len() >= MAX_GATHERED) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.gathered.data.extend_from_slice(&data);
            self.gathered.asked = false;
            if ends || self.gathered.data.len() >= MAX_GATHERED {
                return Poll::Ready(Some(Ok(self.gathered.take())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.data.is_empty() && self.gathered.next.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint() // asked before the first piece is taken
    }
}
