//! Passes an upstream's response body to the client, and waits for the ledger where a charge requires it.
//!
//! This keeps promise 3: the head of a charged response is sent only when its hold is on disk, and its last byte only
//! when a charge below the hold is on disk. It also keeps promise 1: once a request is charged, it is not refused.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::data_chunks::DataChunks;
use super::due::Commit;
use super::settlement::{Settlement, give_back};
use super::silence::SilenceTimer;
use crate::gateway::connection::Protocol;
use crate::gateway::request::permit::InFlight;
use crate::gateway::request::permit::waiting_payment::Unpaid;
use crate::gateway::request::repeats::answer::Answer;
use crate::ledger::outbox::NotDurable;
use crate::policy::outcome::Outcome;
use crate::policy::price::End;
use crate::policy::reject::{Reason, Refusal};
use crate::types::Credits;
use crate::upstream::{ResponseFault, UpstreamBody};

/// Why a response body is aborted.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum BodyError {
    #[error("the upstream aborted the response: {0}")]
    Upstream(#[from] ResponseFault),
    #[error(transparent)]
    Ledger(#[from] NotDurable),
}

/// Why a request has no response from its upstream.
#[derive(Debug)]
pub(in crate::gateway::request) enum NoResponse {
    /// It was refused, and cost nothing.
    Refused(Refusal),
    /// It was made before: the client gets the same response.
    Replayed(Box<Answer>),
    /// It was charged, and the charge could not be written in time: its connection is aborted.
    Aborted(NotDurable),
}

impl From<NotDurable> for NoResponse {
    /// A hold that cannot be written: nothing is charged.
    fn from(_: NotDurable) -> Self {
        Self::Refused(Reason::LedgerUnavailable.into())
    }
}

impl From<Unpaid> for NoResponse {
    fn from(unpaid: Unpaid) -> Self {
        match unpaid {
            Unpaid::Refused(refusal) => Self::Refused(refusal),
            Unpaid::Replayed(answer) => Self::Replayed(answer),
        }
    }
}

impl From<Refusal> for NoResponse {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The upstream's body on its way to the client.
pub(in crate::gateway) struct ResponseBody {
    request: Rc<InFlight>,
    state: BodyState,
    /// The rest of a frame that was not passed to h2 yet.
    chunks: DataChunks,
}

enum BodyState {
    /// The body is passed on; its request is settled. `commit` is awaited before the last frame.
    Streaming { upstream: UpstreamBody, silence: SilenceTimer, commit: Option<Commit> },
    /// The body is passed on, read for its charge, and kept for repeats of its request.
    Metering(Settlement),
    /// The upstream's body is complete: the last frame is sent when the charge is on disk.
    Closing { last: Option<Frame<Bytes>>, commit: Option<Commit> },
    /// The upstream aborted its body: the client gets the bytes before, then the abort.
    Aborting(BodyError),
    /// Every frame was passed on.
    Finished,
}

impl ResponseBody {
    /// Opens a response: returns when its head may be sent, with its body, and with the charge if that is known.
    ///
    /// # Errors
    /// [`Reason::LedgerUnavailable`] if the hold cannot be written: nothing is charged then. [`NoResponse::Aborted`]
    /// if the request was charged and has no body that could be aborted.
    pub(in crate::gateway::request) async fn open(
        mut settlement: Settlement,
    ) -> Result<(Self, Option<Credits>), NoResponse> {
        let last = settlement.take_arrived_body();
        if settlement.hold_committed().await.is_err() {
            settlement.release();
            return Err(Refusal::from(Reason::LedgerUnavailable).into());
        }
        let (request, charged) = (Rc::clone(settlement.request()), settlement.charge_at_head());
        let state = if last.is_some() {
            BodyState::Closing { last, commit: settlement.settle(End::Complete) }
        } else if settlement.is_body_read() {
            settlement.give_back_connection();
            if let Some(commit) = settlement.settle(End::Complete) {
                commit.await.map_err(NoResponse::Aborted)?; // a response without a body ends with its head
            }
            BodyState::Finished
        } else if settlement.settle_head().reads_body() {
            BodyState::Metering(settlement)
        } else {
            let commit = settlement.settle(End::Complete);
            let silence = SilenceTimer::new(request.body_timeout());
            let stream = |upstream| BodyState::Streaming { upstream, silence, commit };
            settlement.take_upstream().map_or(BodyState::Finished, stream)
        };
        Ok((Self { request, state, chunks: DataChunks::default() }, charged))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.state {
            BodyState::Streaming { upstream, .. } => upstream.size_hint(),
            BodyState::Metering(settlement) => settlement.size_hint(),
            BodyState::Closing { last, .. } => {
                let length = last.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                SizeHint::with_exact(length as u64)
            }
            BodyState::Aborting(_) | BodyState::Finished => SizeHint::with_exact(0),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + self.chunks.len());
        }
        hint.set_lower(hint.lower() + self.chunks.len());
        hint
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, BodyState::Finished) && self.chunks.is_empty()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> PolledFrame {
        let polled = match self.request.stream.connection.protocol {
            Protocol::Http2 => self.poll_chunk(context),
            Protocol::Http1 => self.poll_state(context), // the connection tracks whether the client reads
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.request.record.add_bytes_out(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    /// h2 polls for the next chunk when the client has opened its window for the last one.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> PolledFrame {
        let now = self.request.services.now();
        self.request.deadlines().chunk_taken(now);
        let chunk = match self.chunks.next(matches!(self.state, BodyState::Finished)) {
            Some(chunk) => chunk,
            None => match ready!(self.poll_state(context)) {
                Some(Ok(frame)) => self.chunks.split(frame, matches!(self.state, BodyState::Finished)),
                end => return Poll::Ready(end),
            },
        };
        self.request.deadlines().chunk_given(now, chunk.data_ref().map_or(0, Bytes::len));
        self.request.stream.connection.chunk_given();
        Poll::Ready(Some(Ok(chunk)))
    }

    fn poll_state(&mut self, context: &mut Context<'_>) -> PolledFrame {
        let polled = match &mut self.state {
            BodyState::Streaming { upstream, silence, .. } => {
                ready!(silence.poll_frame(upstream, self.request.services.now(), context))
            }
            BodyState::Metering(settlement) => ready!(settlement.poll_frame(context)),
            BodyState::Closing { .. } => return self.poll_closing(context),
            BodyState::Aborting(_) => {
                let BodyState::Aborting(error) = std::mem::replace(&mut self.state, BodyState::Finished)
                else {
                    return Poll::Ready(None);
                };
                return Poll::Ready(Some(Err(error)));
            }
            BodyState::Finished => return Poll::Ready(None),
        };
        match polled {
            Some(Ok(frame)) if !frame.is_trailers() && !self.is_upstream_read() => {
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(fault)) => {
                self.abort(fault);
                // With the error, hyper would drop the head and the bytes before it: let hyper send them first.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            last => {
                self.close(last.and_then(Result::ok));
                self.poll_closing(context)
            }
        }
    }

    fn is_upstream_read(&self) -> bool {
        match &self.state {
            BodyState::Streaming { upstream, .. } => upstream.is_end_stream(),
            BodyState::Metering(settlement) => settlement.is_body_read(),
            BodyState::Closing { .. } | BodyState::Aborting(_) | BodyState::Finished => true,
        }
    }

    /// Ends the upstream's body: gives its connection back to the pool, and settles the charge.
    fn close(&mut self, last: Option<Frame<Bytes>>) {
        let commit = match std::mem::replace(&mut self.state, BodyState::Finished) {
            BodyState::Streaming { upstream, commit, .. } => {
                give_back(&self.request.services, upstream);
                commit
            }
            BodyState::Metering(mut settlement) => {
                settlement.give_back_connection();
                settlement.settle(End::Complete)
            }
            BodyState::Closing { commit, .. } => commit,
            BodyState::Aborting(_) | BodyState::Finished => None,
        };
        self.state = BodyState::Closing { last, commit };
    }

    /// The upstream aborted its body: a charge that the head named remains valid, and a charge in the body counts as
    /// unreadable.
    fn abort(&mut self, fault: ResponseFault) {
        if !matches!(fault, ResponseFault::Body) {
            self.request.record.note_server_failure(fault.cause());
        }
        let state = std::mem::replace(&mut self.state, BodyState::Aborting(fault.into()));
        if let BodyState::Metering(mut settlement) = state {
            drop(settlement.settle(End::Aborted)); // the response has no last byte that could wait for the commit
        }
    }

    fn poll_closing(&mut self, context: &mut Context<'_>) -> PolledFrame {
        let BodyState::Closing { last, commit } = &mut self.state else { return Poll::Ready(None) };
        let committed = match commit {
            Some(commit) => ready!(commit.as_mut().poll(context)),
            None => Ok(()),
        };
        let last = last.take();
        self.state = BodyState::Finished;
        if let Err(error) = committed {
            self.request.record.set_outcome(Outcome::Cut);
            return Poll::Ready(Some(Err(error.into()))); // the client sees an incomplete response
        }
        Poll::Ready(last.map(Ok))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.request.stream.end(self.request.services.now());
    }
}

/// The body of a response, as it is passed to hyper.
pub(in crate::gateway) enum OutboundBody {
    /// Made by the gateway.
    Whole(Option<Bytes>),
    /// The upstream's.
    Upstream(Box<ResponseBody>),
}

impl Body for OutboundBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Upstream(body) => body.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Upstream(body) => body.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}
