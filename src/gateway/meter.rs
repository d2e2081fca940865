//! A response body on its way to the client: settles at the head, the end, an error or a drop.
//!
//! Promise 3 lives here. The head leaves only once the hold of a charged response is on disk; the
//! last byte only once a charge below its hold is. Promise 1 too: once a charge is settled, no refusal
//! follows it. And promise 5: dropped half-way, because the client has gone, what is not settled yet
//! is settled by [`Settling`] as if the client had stayed.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::Gate;
use super::arrive::Protocol;
use super::limits::Pass;
use super::permit::Owed;
use super::pieces::Pieces;
use super::priced::{Priced, Settling, Unclaimed, note};
use super::record::Record;
use super::stream::{Lingering, Stream};
use crate::ledger::journal::NotDurable;
use crate::ledger::{Hold, Settled};
use crate::policy::outcome::Outcome;
use crate::policy::price::Charged;
use crate::policy::reject::{Reason, Refusal};
use crate::types::Credits;
use crate::upstream::{Answer, AnswerBody, Fault};

/// How long a response waits for its charge while the ledger cannot write. Past it the client sees a cut
/// response: no refusal may say that it cost nothing.
const MAX_SETTLING: Duration = Duration::from_secs(10);
/// How often it is looked meanwhile whether the ledger's next try succeeded.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why an answer's body ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] Fault),
    #[error(transparent)]
    Ledger(#[from] NotDurable),
}

/// Why a request has no response from its upstream.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// It was refused, and cost nothing.
    Refused(Refusal),
    /// It was charged, and that could not be written in time: its connection is cut.
    Cut(NotDurable),
}

impl From<Refusal> for NoResponse {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The upstream's body, with what is owed for it.
#[derive(Debug)]
pub(super) struct Metered {
    /// Given back when it is read to its end; taken by the drop, to be read on.
    inner: Option<AnswerBody>,
    ending: Ending,
    /// The last frame, kept until the charge is on disk.
    last: Option<Frame<Bytes>>,
    /// What HTTP/2 was not handed yet of a frame.
    pieces: Pieces,
    broken: Option<BodyError>,
    state: Streaming,
    gate: Rc<Gate>,
    record: Rc<Record>,
    stream: Stream,
    pass: Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streaming {
    Flowing,
    /// The upstream's body is read; the charge is being written.
    Ending,
    /// The upstream broke it off: the client gets what came, then the cut.
    Broken,
    Over,
}

type Commit = Pin<Box<dyn Future<Output = Result<(), NotDurable>>>>;

/// What is to be done before the last byte leaves.
enum Ending {
    /// Nothing.
    Clear,
    /// Settle at the charge that the head named.
    Due(Hold, Charged),
    /// Read the price from the body.
    Priced(Box<Priced>),
    /// Wait until the charge is on disk.
    Commit(Commit),
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Clear => "Clear",
            Self::Due(..) => "Due",
            Self::Priced(_) => "Priced",
            Self::Commit(_) => "Commit",
        })
    }
}

impl Metered {
    /// Takes over an answer. From here on, dropping it settles it.
    pub(super) fn new(answer: Answer, owed: Owed) -> ((StatusCode, HeaderMap), Self) {
        let Answer { status, headers, body } = answer;
        let Owed { gate, record, stream, pass, payment } = owed;
        let timeout = record.found().map_or(Duration::ZERO, |route| route.response_timeout);
        let ending = match payment.map(|payment| Priced::at_head(payment, status, &headers, timeout)) {
            None => Ending::Clear,
            Some(Ok((hold, charged))) => Ending::Due(hold, charged),
            Some(Err(priced)) => Ending::Priced(priced),
        };
        let (inner, state) = (Some(body), Streaming::Flowing);
        let (last, pieces, broken) = (None, Pieces::default(), None);
        ((status, headers), Self { inner, ending, last, pieces, broken, state, gate, record, stream, pass })
    }

    /// The connection, where the answer is a switch to another protocol.
    pub(super) fn take_wire(&mut self) -> Option<AnswerBody> {
        self.inner.take()
    }

    /// Before the first byte: the hold is on disk, and the charge is made if the head names it.
    /// Answers what was charged, where that is known.
    ///
    /// # Errors
    /// [`Reason::LedgerUnavailable`] where the hold cannot be written: then nothing is charged. A cut
    /// where it was charged and has no body that could be cut.
    pub(super) async fn open(&mut self) -> Result<Option<Credits>, NoResponse> {
        self.take_what_came();
        let committed = match &self.ending {
            // An answer that costs nothing may leave before its hold is written.
            Ending::Due(hold, charged) if !charged.amount.is_zero() => hold.committed().await,
            Ending::Priced(priced) => priced.hold.committed().await,
            _ => Ok(()),
        };
        if committed.is_err() {
            self.ending = Ending::Clear; // drops the hold, which releases it
            return Err(NoResponse::Refused(Reason::LedgerUnavailable.into()));
        }
        let charge = match std::mem::replace(&mut self.ending, Ending::Clear) {
            Ending::Due(hold, charged) => {
                self.settle(hold, charged);
                Some(charged.amount)
            }
            Ending::Clear => Some(Credits::ZERO),
            other => {
                self.ending = other;
                None
            }
        };
        if self.last.is_some() {
            self.finish_body();
        } else if self.is_read() {
            self.close().await.map_err(NoResponse::Cut)?;
        }
        Ok(charge)
    }

    /// A small body has usually come with its head: then the upstream's connection serves others
    /// while this answer waits for the disk. Few connections that are busy cost less than many.
    fn take_what_came(&mut self) {
        let Some(data) = self.inner.as_mut().and_then(AnswerBody::take_whole) else { return };
        let frame = Frame::data(data);
        if let Ending::Priced(priced) = &mut self.ending {
            priced.read(&frame);
        }
        self.last = Some(frame);
        self.give_back();
        self.state = Streaming::Ending;
    }

    fn is_read(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    /// An answer without a body ends with its head.
    async fn close(&mut self) -> Result<(), NotDurable> {
        self.finish_body();
        let mut committed = Ok(());
        if let Ending::Commit(commit) = &mut self.ending {
            committed = commit.await;
            self.ending = Ending::Clear;
        }
        self.state = Streaming::Over;
        committed
    }

    fn settle(&mut self, hold: Hold, charged: Charged) {
        note(&self.gate, charged.note);
        self.record.charged(charged.amount);
        let settled = hold.settle(charged.amount);
        if settled.must_wait() {
            self.ending = Ending::Commit(Box::pin(written(settled)));
        }
    }

    fn give_back(&mut self) {
        if let Some(body) = self.inner.take() {
            self.gate.pool.give_back(body, self.gate.beat.now());
        }
    }

    /// The upstream's body is read to its end: its price is known now, its connection is free.
    fn finish_body(&mut self) {
        self.give_back();
        self.state = Streaming::Ending;
        if let Ending::Priced(_) = &self.ending
            && let Ending::Priced(priced) = std::mem::replace(&mut self.ending, Ending::Clear)
        {
            let (hold, charged) = priced.charge(true);
            self.settle(hold, charged);
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let last = self.last.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let (mut hint, more) = (SizeHint::with_exact(0), last + self.pieces.len());
        if self.state == Streaming::Flowing
            && let Some(inner) = &self.inner
        {
            hint = inner.size_hint();
        }
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + more);
        }
        hint.set_lower(hint.lower() + more);
        hint
    }

    /// Whether all of it was handed over.
    pub(super) fn is_over(&self) -> bool {
        self.state == Streaming::Over && self.pieces.is_empty()
    }

    /// The next piece for the client.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.stream.connection.protocol == Protocol::Http2 {
            return self.poll_piece(context);
        }
        self.poll_frame(context) // the socket says whether its client takes it
    }

    /// HTTP/2 asks for more once the client has opened its window for what was given.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.stream.waits.took(self.gate.beat.now());
        let piece = match self.pieces.next(self.state == Streaming::Over) {
            Some(piece) => piece,
            None => match ready!(self.poll_frame(context)) {
                Some(Ok(frame)) => self.pieces.cut(frame, self.state == Streaming::Over),
                end => return Poll::Ready(end),
            },
        };
        self.stream.waits.gave(self.gate.beat.now(), piece.data_ref().map_or(0, Bytes::len));
        self.stream.connection.lock().gave();
        Poll::Ready(Some(Ok(piece)))
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.state {
            Streaming::Flowing => self.poll_inner(context),
            Streaming::Ending => self.poll_ending(context),
            Streaming::Broken => Poll::Ready(self.broken.take().map(Err)),
            Streaming::Over => Poll::Ready(None),
        }
    }

    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = match &mut self.ending {
            Ending::Priced(priced) => priced.poll_body(inner, context),
            _ => Pin::new(inner).poll_frame(context),
        };
        let frame = match ready!(polled) {
            None => {
                self.finish_body();
                return self.poll_ending(context);
            }
            Some(Err(error)) => {
                self.break_off();
                // hyper would drop the head and what it was given with it: let it send that first.
                (self.state, self.broken) = (Streaming::Broken, Some(error.into()));
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Ok(frame)) => frame,
        };
        if let Ending::Priced(priced) = &mut self.ending {
            priced.read(&frame);
        }
        if frame.is_trailers() || self.is_read() {
            self.finish_body();
            self.last = Some(frame);
            return self.poll_ending(context);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn poll_ending(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Ending::Commit(commit) = &mut self.ending {
            let committed = ready!(commit.as_mut().poll(context));
            self.ending = Ending::Clear;
            if let Err(error) = committed {
                self.record.ended(Outcome::Cut);
                self.state = Streaming::Over;
                return Poll::Ready(Some(Err(error.into()))); // the client sees a cut answer
            }
        }
        self.state = Streaming::Over;
        Poll::Ready(self.last.take().map(Ok))
    }

    /// The upstream broke its response off: after its head the price holds, and it is unreadable.
    fn break_off(&mut self) {
        if let Ending::Priced(priced) = std::mem::replace(&mut self.ending, Ending::Clear) {
            let (hold, charged) = priced.charge(false);
            self.settle(hold, charged);
        }
    }

    /// The client has gone: what is owed still, and what is left to read for it.
    fn unclaimed(&mut self) -> Option<Unclaimed> {
        match std::mem::replace(&mut self.ending, Ending::Clear) {
            Ending::Due(hold, charged) => Some(Unclaimed::Known(hold, charged)),
            Ending::Priced(priced) => Some(Unclaimed::Priced(priced, self.inner.take())),
            Ending::Clear | Ending::Commit(_) => None,
        }
    }
}

/// Waits until a charge is on disk. Where its commit fails the charge stands all the same, and the
/// ledger tries again.
async fn written(settled: Settled) -> Result<(), NotDurable> {
    let (mut committed, mut waited) = (settled.committed().await, Duration::ZERO);
    while committed.is_err() && waited < MAX_SETTLING {
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
        committed = settled.committed().await;
    }
    committed
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.stream.waits.has_lost_its_key() {
            self.record.ended(Outcome::KeyEnded);
        }
        self.stream.end(self.gate.beat.now());
        let Some(unclaimed) = self.unclaimed() else { return };
        // From here on its drop charges, also where the task is never run.
        let settling = Settling::new(unclaimed, Rc::clone(&self.gate), Rc::clone(&self.record));
        let occupied = (std::mem::take(&mut self.pass), Lingering::new(&self.stream));
        self.gate.outlive(async move {
            settling.run().await;
            drop(occupied);
        });
    }
}
