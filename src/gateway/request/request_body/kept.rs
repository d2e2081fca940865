//! A request body that is kept as far as it was sent, so that it can be sent again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::fault::{BodyFault, BodyProgress};
use super::streaming::StreamingBody;

/// Largest body that is kept, in bytes. A larger one is sent once.
const MAX_KEPT: usize = 64 * 1024;

/// A body that is kept while it is sent. Only the latest of its clones is read.
#[derive(Clone, Debug)]
pub(in crate::gateway::request) struct KeptBody {
    shared: Rc<RefCell<Shared>>,
    /// How many of the kept bytes were read.
    read: usize,
    progress: BodyProgress,
}

#[derive(Debug)]
struct Shared {
    source: Box<StreamingBody>,
    /// What was read from the source; `None` once the body cannot be sent again: it is too large, or has trailers. Copied,
    /// since many small frames would pin much more memory than their bytes.
    kept: Option<Vec<u8>>,
}

impl KeptBody {
    pub(super) fn new(source: Box<StreamingBody>) -> Self {
        let progress = source.progress().clone();
        let shared = Shared { source, kept: Some(Vec::new()) };
        Self { shared: Rc::new(RefCell::new(shared)), read: 0, progress }
    }

    /// The body from its beginning, if it was kept.
    pub(in crate::gateway::request) fn rewind(&self) -> Option<Self> {
        let is_kept = self.shared.borrow().kept.is_some() && self.progress.fault().is_none();
        is_kept.then(|| Self { read: 0, ..self.clone() })
    }

    pub(super) fn progress(&self) -> &BodyProgress {
        &self.progress
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let mut shared = self.shared.borrow_mut();
        let again = shared.unread(self.read);
        if !again.is_empty() {
            self.read += again.len();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(again)))));
        }
        let frame = ready!(Pin::new(&mut *shared.source).poll_frame(context));
        if let Some(frame) = &frame {
            let data = frame.as_ref().ok().and_then(Frame::data_ref);
            let kept = shared.kept.take().zip(data);
            shared.kept =
                kept.filter(|(kept, data)| kept.len() + data.len() <= MAX_KEPT).map(|(mut kept, data)| {
                    kept.extend_from_slice(data);
                    self.read = kept.len();
                    kept
                });
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.unread(self.read).is_empty() && shared.source.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.shared.borrow().source.size_hint() // only called before the first frame is taken
    }
}

impl Shared {
    /// The kept bytes after the first `read`.
    fn unread(&self, read: usize) -> &[u8] {
        self.kept.as_deref().and_then(|kept| kept.get(read..)).unwrap_or_default()
    }
}
