//! Keeps the response to the first request with an idempotency key, while it passes to the client.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::answer::Answer;
use super::claimed::Claimed;
use crate::gateway::request::response::silence::SilenceTimer;
use crate::gateway::request::services::Services;
use crate::ledger::{Claim, JobSlot, Settled};
use crate::policy::forward;
use crate::policy::price::End;
use crate::types::seal::SealKey;
use crate::types::{Credits, Moment};
use crate::upstream::{ResponseFault, UpstreamBody};

/// Most bytes of responses that a worker keeps while they are not complete. Further responses are not kept.
const MAX_KEPT: usize = 64 * 1024 * 1024;

/// Longest response head that is kept, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// A response that is kept. If it is dropped, the claim is released: the request may be made again.
#[derive(Debug)]
pub(in crate::gateway::request) struct Keeping {
    claim: Claim,
    /// The place of the job that the request opens.
    job: Option<JobSlot>,
    seal: SealKey,
    max_body: usize,
    status: StatusCode,
    headers: HeaderMap,
    /// `None` if the response is too large to be kept, or others need the memory.
    body: Option<Kept>,
    silence: SilenceTimer,
}

/// Bytes that count towards [`MAX_KEPT`].
#[derive(Debug)]
struct Kept(Rc<Services>, Vec<u8>);

impl Kept {
    /// Adds bytes. False if they are too many.
    fn add(&mut self, data: &[u8], max: usize) -> bool {
        let all = self.0.kept_bytes.get() + data.len();
        if self.1.len() + data.len() > max || all > MAX_KEPT {
            return false;
        }
        self.0.kept_bytes.set(all);
        self.1.extend_from_slice(data);
        true
    }
}

impl Kept {
    fn into_bytes(mut self) -> Vec<u8> {
        self.0.kept_bytes.set(self.0.kept_bytes.get() - self.1.len());
        std::mem::take(&mut self.1)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kept_bytes.set(self.0.kept_bytes.get() - self.1.len());
    }
}

impl Keeping {
    /// Keeps the response with this head.
    pub(in crate::gateway::request) fn new(
        claimed: Claimed,
        services: &Rc<Services>,
        (status, headers): (StatusCode, &HeaderMap),
        is_head: bool,
        body_timeout: Option<Duration>,
    ) -> Self {
        let mut headers = headers.clone();
        forward::to_client(&mut headers, false);
        headers.remove(TRAILER);
        let Claimed { claim, settings, seal, job } = claimed;
        let max_body = usize::try_from(settings.max_body).unwrap_or(usize::MAX);
        let length = headers.get(CONTENT_LENGTH).filter(|_| !is_head).and_then(|length| length.to_str().ok());
        let is_long =
            length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > max_body);
        let head: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let body = (!is_long && head <= MAX_HEAD).then(|| Kept(Rc::clone(services), Vec::new()));
        Self { claim, job, seal, max_body, status, headers, body, silence: SilenceTimer::new(body_timeout) }
    }

    /// Takes the place of the job that the request opens.
    pub(in crate::gateway::request) fn take_job(&mut self) -> Option<JobSlot> {
        self.job.take()
    }

    /// Polls the body for a frame, which is not kept yet.
    ///
    /// # Errors
    /// [`ResponseFault::Silent`] after the longest silence.
    pub(in crate::gateway::request) fn poll_frame(
        &mut self,
        body: &mut UpstreamBody,
        now: Moment,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        self.silence.poll_frame(body, now, context)
    }

    /// Keeps a frame of the body. Trailers are not kept (RFC 9110, section 6.5.1, allows to discard them).
    pub(in crate::gateway::request) fn read(&mut self, frame: &Frame<Bytes>) {
        let data = frame.data_ref().map_or(&b""[..], |data| data);
        if self.body.as_mut().is_some_and(|body| !body.add(data, self.max_body)) {
            self.body = None;
        }
    }

    /// True if more of the body would be kept.
    pub(in crate::gateway::request) fn wants_more(&self) -> bool {
        self.body.is_some()
    }

    /// Decides the claim at the end of the response. `charged`: `None` if the request opened a job.
    ///
    /// A response that cost nothing is not kept: the request may be made again.
    pub(in crate::gateway::request) fn finish(self, end: End, charged: Option<Credits>) -> Option<Settled> {
        if charged.is_some_and(Credits::is_zero) {
            return None;
        }
        let is_complete = matches!(end, End::Complete);
        let Some(body) = self.body.filter(|_| is_complete).map(Kept::into_bytes) else {
            return Some(self.claim.lose());
        };
        let answer = Answer { status: self.status, headers: self.headers, body: body.into(), charged };
        Some(match self.seal.seal(answer.encode()) {
            Some(sealed) => self.claim.answer(sealed),
            None => self.claim.lose(),
        })
    }
}
