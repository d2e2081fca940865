//! Reads the charge that a response names in its body or in its trailers, or that its size and duration decide.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::silence::SilenceTimer;
use crate::policy::price::{AnswerReader, Charged, End, Opened, Price, Verdict};
use crate::types::{Moment, StatusClass};
use crate::upstream::{ResponseFault, UpstreamBody};

/// Bytes of JSON that are parsed before other requests are polled: under half a millisecond of a worker's time, see
/// docs/performance.md.
const MAX_PARSED_AT_ONCE: usize = 64 * 1024;

/// Where the charge of a response is, as its head shows.
pub(super) enum ChargeSource {
    /// The head names the charge.
    Head(Charged),
    /// The rest of the response names the charge.
    Body(Box<BodyPrice>),
}

/// Reads a response's body for its charge.
pub(super) struct BodyPrice {
    reader: AnswerReader,
    silence: SilenceTimer,
    /// When the head arrived.
    since: Moment,
    /// Bytes parsed since other requests were polled.
    parsed: usize,
}

impl ChargeSource {
    /// Finds the charge of a response by its head, and the outcome of its request. `is_head`: the request was a HEAD.
    /// `body_timeout`: longest silence of the body.
    pub(super) fn of_response(
        price: &Arc<Price>,
        is_head: bool,
        (status, headers): (StatusCode, &HeaderMap),
        body_timeout: Option<Duration>,
        now: Moment,
    ) -> (Self, StatusClass) {
        let (opened, outcome) = AnswerReader::open(price, is_head, status, headers);
        let source = match opened {
            Opened::Known(charged) => Self::Head(charged),
            Opened::Reading(reader) => {
                let silence = SilenceTimer::new(body_timeout);
                Self::Body(Box::new(BodyPrice { reader: *reader, silence, since: now, parsed: 0 }))
            }
        };
        (source, outcome)
    }
}

impl BodyPrice {
    /// Reads a frame of the body.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.parsed += self.reader.read(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.reader.read_trailers(trailers);
        }
    }

    /// Counts bytes that passed through a tunnel.
    pub(super) fn count(&mut self, bytes: u64) {
        self.reader.count(bytes);
    }

    /// Polls the body for a frame and reads it. Also pending when other requests must be polled first.
    ///
    /// # Errors
    /// [`ResponseFault::Silent`] after the longest silence, whether or not the client is still connected.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut UpstreamBody,
        now: Moment,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        if self.parsed >= MAX_PARSED_AT_ONCE {
            self.parsed = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = ready!(self.silence.poll_frame(body, now, context));
        if let Some(Ok(frame)) = &frame {
            self.read(frame);
        }
        Poll::Ready(frame)
    }

    /// True if nothing that follows can change the charge.
    pub(super) fn is_decided(&self) -> bool {
        self.reader.is_decided()
    }

    /// True if nothing bounds the length of the response.
    pub(super) fn is_stream(&self) -> bool {
        self.reader.is_stream()
    }

    /// The outcome of a gRPC call, once its trailers arrived.
    pub(super) fn outcome(&self) -> Option<StatusClass> {
        self.reader.outcome()
    }

    /// What the response decides at its end.
    pub(super) fn verdict(self, end: End, now: Moment) -> Verdict {
        let millis = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.reader.finish(end, millis)
    }
}
