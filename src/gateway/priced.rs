//! An answer whose price is known at its end: a JSON body, or a gRPC call's outcome.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};

use super::Gate;
use super::meter::note;
use super::record::Record;
use crate::ledger::Hold;
use crate::policy::grpc;
use crate::policy::price::{AtHead, Charged, MAX_PRICED_JSON, Price};
use crate::upstream::AnswerBody;

/// How long such an answer is read on after its client has gone.
const READ_ON: Duration = Duration::from_secs(60);

/// An answer whose price is read at its end.
pub(super) struct Priced {
    pub(super) hold: Hold,
    price: Arc<Price>,
    source: Source,
}

/// Where the price stands.
enum Source {
    Json {
        pointer: String,
        body: Vec<u8>,
        too_long: bool,
    },
    /// A gRPC call: its outcome stands in the trailers, a price there or in the head.
    Call {
        head: HeaderMap,
        trailers: Option<HeaderMap>,
    },
}

impl Priced {
    /// What an answer with this head costs, or how that will be known.
    pub(super) fn at_head(
        hold: Hold,
        price: Arc<Price>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(Hold, Charged), Box<Self>> {
        let call = status == StatusCode::OK && grpc::is_call(headers);
        let outcome = if call { grpc::counts_as(headers) } else { Some(status) };
        let Some(status) = outcome else {
            let source = Source::Call { head: headers.clone(), trailers: None };
            return Err(Box::new(Self { hold, price, source }));
        };
        let source = match price.at_head(status, headers) {
            AtHead::Known(charged) => return Ok((hold, charged)),
            AtHead::InBody(_) if call => return Ok((hold, price.unreadable())),
            AtHead::InBody(pointer) => {
                Source::Json { pointer: pointer.to_owned(), body: Vec::new(), too_long: false }
            }
        };
        Err(Box::new(Self { hold, price, source }))
    }

    /// Looks at a piece of the answer on its way.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        match &mut self.source {
            Source::Json { body, too_long, .. } => {
                let Some(data) = frame.data_ref() else { return };
                if body.len() + data.len() > MAX_PRICED_JSON {
                    (*too_long, *body) = (true, Vec::new());
                }
                if !*too_long {
                    body.extend_from_slice(data);
                }
            }
            Source::Call { trailers, .. } => *trailers = frame.trailers_ref().cloned(),
        }
    }

    /// The hold in full, where the end never came.
    pub(super) fn unreadable(&self) -> Charged {
        self.price.unreadable()
    }

    /// What the answer costs, now that all of it was read.
    pub(super) fn charged(&self) -> Charged {
        match &self.source {
            Source::Json { too_long: true, .. } => self.unreadable(),
            Source::Json { pointer, body, .. } => self.price.at_end(pointer, body),
            Source::Call { head, trailers } => {
                let Some(trailers) = trailers else { return self.unreadable() };
                let Some(status) = grpc::counts_as(trailers) else { return self.unreadable() };
                let mut fields = head.clone();
                for (name, value) in trailers {
                    fields.append(name, value.clone());
                }
                match self.price.at_head(status, &fields) {
                    AtHead::Known(charged) => charged,
                    AtHead::InBody(_) => self.unreadable(), // a call's messages are not JSON
                }
            }
        }
    }
}

/// An answer that is read on after its client has gone, and owed for until its end: where that is cut
/// off, by a stop that does not wait for it, at the hold.
pub(super) struct ReadOn {
    priced: Option<Box<Priced>>,
    gate: Rc<Gate>,
    record: Rc<Record>,
}

impl ReadOn {
    pub(super) fn new(priced: Box<Priced>, gate: Rc<Gate>, record: Rc<Record>) -> Self {
        Self { priced: Some(priced), gate, record }
    }

    /// Reads what is left, and settles.
    pub(super) async fn run(mut self, mut inner: AnswerBody) {
        let rest = async {
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut inner).poll_frame(cx)).await {
                let (Ok(frame), Some(priced)) = (frame, &mut self.priced) else { return false };
                priced.read(&frame);
            }
            true
        };
        if tokio::time::timeout(READ_ON, rest).await.unwrap_or(false) {
            self.settle(Priced::charged);
        }
    }

    fn settle(&mut self, charge: impl FnOnce(&Priced) -> Charged) {
        let Some(priced) = self.priced.take() else { return };
        let charged = charge(&priced);
        note(&self.gate, charged.note);
        self.record.charged(charged.amount);
        priced.hold.settle(charged.amount);
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        self.settle(Priced::unreadable);
    }
}
