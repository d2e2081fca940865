//! Ends a response body of an upstream that stops in the middle of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use crate::gateway::connection::MAX_SILENCE;
use crate::types::Moment;
use crate::upstream::{ResponseFault, UpstreamBody};

/// Limits the time between two frames of a body. Time in which nobody asks for a frame does not count.
#[derive(Debug)]
pub(in crate::gateway::request) struct SilenceTimer {
    longest: Duration,
    /// Since when the upstream is waited for.
    since: Option<Moment>,
    /// Created when the upstream is waited for the first time, and rarely set again.
    timer: Option<Pin<Box<Sleep>>>,
}

impl SilenceTimer {
    /// `longest`: the longest silence; `None` for [`MAX_SILENCE`].
    pub(in crate::gateway::request) fn new(longest: Option<Duration>) -> Self {
        Self { longest: longest.unwrap_or(MAX_SILENCE), since: None, timer: None }
    }

    /// Polls a body for a frame.
    ///
    /// # Errors
    /// [`ResponseFault::Silent`] after the longest silence.
    pub(in crate::gateway::request) fn poll_frame(
        &mut self,
        body: &mut UpstreamBody,
        now: Moment,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            self.since = None;
            return Poll::Ready(frame);
        }
        let since = *self.since.get_or_insert(now);
        loop {
            let Some(left) = self.longest.checked_sub(now.since(since)).filter(|left| !left.is_zero()) else {
                return Poll::Ready(Some(Err(ResponseFault::Silent)));
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(left)));
            ready!(timer.as_mut().poll(context));
            timer.set(sleep(left)); // it was set for an earlier frame
        }
    }
}
