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
    /// How many of the kept frames were read.
    read: usize,
    progress: BodyProgress,
}

#[derive(Debug)]
struct Shared {
    source: Box<StreamingBody>,
    /// The data frames that were read from the source.
    frames: Vec<Bytes>,
    /// Their bytes; `None` once the body cannot be sent again: it is too large, or has trailers.
    kept: Option<usize>,
}

impl KeptBody {
    pub(super) fn new(source: Box<StreamingBody>) -> Self {
        let progress = source.progress().clone();
        let shared = Shared { source, frames: Vec::new(), kept: Some(0) };
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
        if let Some(frame) = shared.frames.get(self.read) {
            self.read += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        let frame = ready!(Pin::new(&mut *shared.source).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    let kept = shared.kept.map(|kept| kept + data.len()).filter(|kept| *kept <= MAX_KEPT);
                    shared.kept = kept;
                    if kept.is_some() {
                        shared.frames.push(data.clone());
                        self.read += 1;
                    } else {
                        (shared.frames, self.read) = (Vec::new(), 0);
                    }
                }
                None => shared.kept = None,
            },
            Some(Err(_)) => shared.kept = None,
            None => {}
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        self.read == shared.frames.len() && shared.source.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.shared.borrow().source.size_hint() // only called before the first frame is taken
    }
}
