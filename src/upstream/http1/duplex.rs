//! A response that begins before its request has ended: a task owns the connection, writes the rest of the request and
//! reads the response. The reader of the response may wait for the client, and the client may wait until its request is
//! read.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::PollSender;

use super::body_decoder::BodyDecoder;
use super::connection::Http1Connection;
use super::upload::{Upload, UploadError};
use crate::upstream::fault::ResponseFault;
use crate::upstream::request::OutgoingBody;

/// Most frames of a response that wait for its reader.
const MAX_FRAMES: usize = 1;

type Item = Result<Frame<Bytes>, ResponseFault>;

/// The reader's side of the task. The task ends with it, and with the response.
#[derive(Debug)]
pub(in crate::upstream) struct Duplex {
    frames: mpsc::Receiver<Item>,
    task: JoinHandle<()>,
    /// How many bytes are left, if the body's length is known.
    left: Option<u64>,
}

impl Duplex {
    pub(super) fn start<B: OutgoingBody>(
        connection: Box<Http1Connection>,
        decoder: BodyDecoder,
        upload: Upload<B>,
    ) -> Self {
        let (sender, frames) = mpsc::channel(MAX_FRAMES);
        let left = decoder.left();
        let task = tokio::task::spawn_local(relay(connection, decoder, upload, PollSender::new(sender)));
        Self { frames, task, left }
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let frame = ready!(self.frames.poll_recv(context));
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        if frame.is_none() {
            self.left = Some(0);
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay<B: OutgoingBody>(
    mut connection: Box<Http1Connection>,
    mut decoder: BodyDecoder,
    mut upload: Upload<B>,
    mut frames: PollSender<Item>,
) {
    let mut is_uploading = true;
    let ended = std::future::poll_fn(|context| {
        if is_uploading {
            match upload.poll(&mut connection.io, context) {
                Poll::Pending => {}
                Poll::Ready(Err(UploadError::Body)) => return Poll::Ready(Some(ResponseFault::Body)),
                Poll::Ready(Ok(()) | Err(UploadError::Connection(_))) => is_uploading = false,
            }
        }
        loop {
            if ready!(frames.poll_reserve(context)).is_err() {
                return Poll::Ready(None); // nobody reads the response
            }
            match ready!(connection.poll_body(context, &mut decoder)) {
                Some(Ok(frame)) => {
                    if frames.send_item(Ok(frame)).is_err() {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(fault)) => return Poll::Ready(Some(fault)),
                None => return Poll::Ready(None),
            }
        }
    });
    if let Some(fault) = ended.await {
        let send = std::future::poll_fn(|context| frames.poll_reserve(context));
        if send.await.is_ok() {
            let _ = frames.send_item(Err(fault)); // nobody reads the response
        }
    }
}
