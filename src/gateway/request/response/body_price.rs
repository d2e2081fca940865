//! Reads the charge that a response names in its body: in JSON, or in the trailers of a gRPC call.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::silence::SilenceTimer;
use crate::policy::grpc;
use crate::policy::json::PointerReader;
use crate::policy::price::{AtHead, Charged, MAX_PRICED_JSON, Price};
use crate::types::{Moment, StatusClass};
use crate::upstream::{ResponseFault, UpstreamBody};

/// Bytes of JSON that are parsed before other requests are polled: under half a millisecond of a worker's time, see
/// docs/performance.md.
const MAX_PARSED_AT_ONCE: usize = 64 * 1024;

/// Where the charge of a response is, as its head shows.
pub(super) enum ChargeSource {
    /// The head names the charge.
    Head(Charged),
    /// The body or the trailers name the charge.
    Body(Box<BodyPrice>),
}

/// Reads a response's body for its charge.
pub(super) struct BodyPrice {
    price: Arc<Price>,
    source: PriceSource,
    silence: SilenceTimer,
    /// Bytes parsed since other requests were polled.
    parsed: usize,
}

enum PriceSource {
    Json {
        reader: PointerReader,
        /// How many more bytes may be parsed; `None` if the body is too long.
        left: Option<usize>,
    },
    /// A gRPC call: its status is in the trailers, a price header there or in the head.
    Grpc { head: HeaderMap, trailers: Option<HeaderMap> },
}

impl ChargeSource {
    /// Finds the charge of a response by its head, and the outcome of its request. `is_head`: the request was a HEAD.
    /// `body_timeout`: longest silence of the body.
    pub(super) fn of_response(
        price: Arc<Price>,
        is_head: bool,
        status: StatusCode,
        headers: &HeaderMap,
        body_timeout: Option<Duration>,
    ) -> (Self, StatusClass) {
        let is_call = status == StatusCode::OK && grpc::is_call(headers);
        let counted_as = if is_call { grpc::counts_as(headers) } else { Some(status) };
        let outcome = counted_as.map_or(StatusClass::None, |status| StatusClass::of_status(status.as_u16()));
        let source = match counted_as.map(|status| price.at_head(status, headers, is_head)) {
            None => PriceSource::Grpc { head: headers.clone(), trailers: None },
            Some(AtHead::Known(charged)) => return (Self::Head(charged), outcome),
            Some(AtHead::InBody(_)) if is_call => return (Self::Head(price.unreadable()), outcome),
            Some(AtHead::InBody(pointer)) => {
                let reader = PointerReader::new(pointer.clone());
                PriceSource::Json { reader, left: Some(MAX_PRICED_JSON) }
            }
        };
        let silence = SilenceTimer::new(body_timeout);
        (Self::Body(Box::new(BodyPrice { price, source, silence, parsed: 0 })), outcome)
    }
}

impl BodyPrice {
    /// Reads a frame of the body.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        match &mut self.source {
            PriceSource::Json { reader, left } => {
                let Some(data) = frame.data_ref() else { return };
                *left = left.and_then(|left| left.checked_sub(data.len()));
                if left.is_some() {
                    reader.read(data);
                    self.parsed += data.len();
                }
            }
            PriceSource::Grpc { trailers, .. } => *trailers = frame.trailers_ref().cloned(),
        }
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
        matches!(self.source, PriceSource::Json { left: None, .. })
    }

    /// The outcome of a gRPC call, once its trailers arrived.
    pub(super) fn outcome(&self) -> Option<StatusClass> {
        let PriceSource::Grpc { trailers, .. } = &self.source else { return None };
        grpc::counts_as(trailers.as_ref()?).map(|status| StatusClass::of_status(status.as_u16()))
    }

    /// The charge at the end of the body; the hold if the body is incomplete or names none.
    pub(super) fn charge(self, is_complete: bool) -> Charged {
        let Self { price, source, .. } = self;
        let unreadable = price.unreadable();
        match source {
            _ if !is_complete => unreadable,
            PriceSource::Json { left: None, .. } => unreadable,
            PriceSource::Json { reader, .. } => price.at_end(reader.finish()),
            PriceSource::Grpc { head, trailers } => grpc_charge(&price, head, trailers).unwrap_or(unreadable),
        }
    }
}

fn grpc_charge(price: &Price, mut headers: HeaderMap, trailers: Option<HeaderMap>) -> Option<Charged> {
    let trailers = trailers?;
    let status = grpc::counts_as(&trailers)?;
    for (name, value) in &trailers {
        headers.append(name, value.clone());
    }
    match price.at_head(status, &headers, false) {
        AtHead::Known(charged) => Some(charged),
        AtHead::InBody(_) => None, // gRPC messages are not JSON
    }
}
