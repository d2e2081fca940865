//! A request body that was read completely before it is forwarded.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use super::fault::BodyFault;
use super::streaming::StreamingBody;

/// The rest of a request body that was read completely.
#[derive(Clone, Debug)]
pub(in crate::gateway::request) struct BufferedBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl BufferedBody {
    /// Reads a body of at most `max` bytes to its end.
    ///
    /// # Errors
    /// [`BodyFault`] if it is larger, or the client aborted it.
    pub(super) async fn read(mut body: StreamingBody, max: u64) -> Result<Self, BodyFault> {
        body.limit(max);
        let (mut data, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame?.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self { data: data.freeze(), trailers })
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.data.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    pub(super) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.data)))
    }
}
