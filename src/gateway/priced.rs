//! A response whose price is known at its end: a JSON body, or a gRPC call's outcome.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use super::Gate;
use super::connection::MAX_SILENCE;
use super::permit::Payment;
use super::record::Record;
use crate::ledger::Hold;
use crate::policy::grpc;
use crate::policy::json::PointerReader;
use crate::policy::price::{AtHead, Charged, MAX_PRICED_JSON, Note, Price};
use crate::upstream::{AnswerBody, Fault};

/// Bytes of JSON that are read for a price before other requests get their turn: under half a
/// millisecond of a worker's time, see docs/performance.md.
const MAX_SLICE: usize = 64 * 1024;

/// A response whose price is read at its end.
pub(super) struct Priced {
    pub(super) hold: Hold,
    price: Arc<Price>,
    source: Source,
    silence: Silence,
    /// Bytes read since other requests had their turn.
    slice: usize,
}

/// Where the price stands.
enum Source {
    Json {
        reader: PointerReader,
        /// How much more of the body may be read; `None` where it is too long.
        left: Option<usize>,
    },
    /// A gRPC call: its outcome stands in the trailers, a price there or in the head.
    Call { head: HeaderMap, trailers: Option<HeaderMap> },
}

/// How long the upstream's body may be silent, whether or not its client is still there.
struct Silence {
    most: Duration,
    /// Set where the upstream was silent at all.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes came since it was set.
    moved: bool,
}

impl Silence {
    fn new(most: Duration) -> Self {
        Self { most, timer: None, moved: true }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let moved = std::mem::take(&mut self.moved);
        match &mut self.timer {
            Some(timer) if moved => timer.set(sleep(self.most)),
            Some(_) => {}
            None => self.timer = Some(Box::pin(sleep(self.most))),
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }
}

impl Priced {
    /// What a response with this head costs, or how that will be known. `timeout`: how long its route
    /// waits for an upstream that is silent.
    pub(super) fn at_head(
        payment: Payment,
        status: StatusCode,
        headers: &HeaderMap,
        timeout: Duration,
    ) -> Result<(Hold, Charged), Box<Self>> {
        let Payment { hold, price, to_head } = payment;
        let call = status == StatusCode::OK && grpc::is_call(headers);
        let outcome = if call { grpc::counts_as(headers) } else { Some(status) };
        let (source, silence) = match outcome.map(|status| price.at_head(status, headers, to_head)) {
            // Calls may stream, and be silent for long.
            None => (Source::Call { head: headers.clone(), trailers: None }, MAX_SILENCE),
            Some(AtHead::Known(charged)) => return Ok((hold, charged)),
            Some(AtHead::InBody(_)) if call => return Ok((hold, price.unreadable())),
            Some(AtHead::InBody(pointer)) => {
                let reader = PointerReader::new(pointer.clone());
                (Source::Json { reader, left: Some(MAX_PRICED_JSON) }, timeout)
            }
        };
        Err(Box::new(Self { hold, price, source, silence: Silence::new(silence), slice: 0 }))
    }

    /// Reads a piece of the response on its way.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        self.silence.moved = true;
        match &mut self.source {
            Source::Json { reader, left } => {
                let Some(data) = frame.data_ref() else { return };
                *left = left.and_then(|left| left.checked_sub(data.len()));
                if left.is_some() {
                    reader.read(data);
                    self.slice += data.len();
                }
            }
            Source::Call { trailers, .. } => *trailers = frame.trailers_ref().cloned(),
        }
    }

    /// The next piece of the body. Pending, too, where other requests are to have their turn.
    ///
    /// # Errors
    /// [`Fault::Silent`] past the time that its route waits for an upstream that is silent.
    pub(super) fn poll_body(
        &mut self,
        body: &mut AnswerBody,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.slice >= MAX_SLICE {
            self.slice = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.silence.poll(context));
        Poll::Ready(Some(Err(Fault::Silent)))
    }

    /// Whether nothing that still comes can change the price.
    fn is_decided(&self) -> bool {
        matches!(self.source, Source::Json { left: None, .. })
    }

    /// What the response costs, at its end; the hold where that never came, or says nothing.
    pub(super) fn charge(self, whole: bool) -> (Hold, Charged) {
        let Self { hold, price, source, .. } = self;
        let unreadable = price.unreadable();
        let charged = match source {
            _ if !whole => unreadable,
            Source::Json { left: None, .. } => unreadable,
            Source::Json { reader, .. } => price.at_end(reader.finish()),
            Source::Call { head, trailers } => call_price(&price, head, trailers).unwrap_or(unreadable),
        };
        (hold, charged)
    }
}

fn call_price(price: &Price, mut fields: HeaderMap, trailers: Option<HeaderMap>) -> Option<Charged> {
    let trailers = trailers?;
    let status = grpc::counts_as(&trailers)?;
    for (name, value) in &trailers {
        fields.append(name, value.clone());
    }
    match price.at_head(status, &fields, false) {
        AtHead::Known(charged) => Some(charged),
        AtHead::InBody(_) => None, // a call's messages are not JSON
    }
}

/// What is owed for a response whose client has gone: it is settled exactly as for a client that stayed.
pub(super) enum Unclaimed {
    /// The head said what it costs.
    Known(Hold, Charged),
    /// Its end says it. With the rest of the body, unless all of it was read.
    Priced(Box<Priced>, Option<AnswerBody>),
}

/// Settles once; where the task is cut off, by a stop that does not wait for it, with what is known then.
pub(super) struct Settling {
    unclaimed: Option<Unclaimed>,
    gate: Rc<Gate>,
    record: Rc<Record>,
}

impl Settling {
    pub(super) fn new(unclaimed: Unclaimed, gate: Rc<Gate>, record: Rc<Record>) -> Self {
        Self { unclaimed: Some(unclaimed), gate, record }
    }

    /// Waits for the hold, reads what is left of the response, and settles. Bounded by silence: see
    /// [`Priced::poll_body`].
    pub(super) async fn run(mut self) {
        let Some(unclaimed) = &mut self.unclaimed else { return };
        let committed = match unclaimed {
            Unclaimed::Known(_, charged) if charged.amount.is_zero() => Ok(()),
            Unclaimed::Known(hold, _) => hold.committed().await,
            Unclaimed::Priced(priced, _) => priced.hold.committed().await,
        };
        if committed.is_err() {
            self.unclaimed = None; // a client that stayed would have been refused: nothing is charged
            return;
        }
        let whole = match unclaimed {
            Unclaimed::Priced(priced, Some(body)) => read_on(priced, body).await,
            Unclaimed::Priced(_, None) | Unclaimed::Known(..) => true,
        };
        self.settle(whole);
    }

    fn settle(&mut self, whole: bool) {
        let (hold, charged) = match self.unclaimed.take() {
            None => return,
            Some(Unclaimed::Known(hold, charged)) => (hold, charged),
            Some(Unclaimed::Priced(priced, _)) => priced.charge(whole),
        };
        note(&self.gate, charged.note);
        self.record.charged(charged.amount);
        hold.settle(charged.amount);
    }
}

/// Reads a response to its end; whether that came.
async fn read_on(priced: &mut Priced, body: &mut AnswerBody) -> bool {
    while !priced.is_decided() {
        match std::future::poll_fn(|context| priced.poll_body(body, context)).await {
            None => return true,
            Some(Ok(frame)) => priced.read(&frame),
            Some(Err(_)) => return false,
        }
    }
    true
}

impl Drop for Settling {
    fn drop(&mut self) {
        let whole = matches!(self.unclaimed, Some(Unclaimed::Priced(_, None)));
        self.settle(whole);
    }
}

/// Counts what an operator should look at.
pub(super) fn note(gate: &Gate, note: Note) {
    let counter = match note {
        Note::Plain => return,
        Note::Capped => &gate.stats.capped,
        Note::Unreadable => &gate.stats.unreadable,
    };
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}
