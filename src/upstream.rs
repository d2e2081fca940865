//! Connections to upstreams: one pool per worker, never shared between threads.
//!
//! HTTP/2 is hyper's; HTTP/1.1 is on httparse, polled in the request's own task. A client connection of hyper's is a task
//! of its own, and costs two wake-ups and a channel for each request: see `docs/performance.md`.

mod answer;
mod body;
mod decode;
mod http2;
mod upload;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::net::TcpStream;

pub use answer::{Asks, Malformed};
pub use body::AnswerBody;
pub use upload::{Head, Outgoing, Spare};
pub use wire::{Answer, Fault};

use crate::snapshot::Upstream;
use crate::types::{Moment, NameId, Repeats, nanos};
use body::Source;
use http2::{AnyBody, Sessions};
use upload::Upload;
use wire::{Broken, Wire};

/// Most connections of one worker to all its upstreams; beyond it, requests are refused as
/// `overloaded`.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Most idle connections of one worker to one upstream.
const MAX_IDLE: usize = 512;
/// How long a connection is kept without use: shorter than what servers usually allow, so that a
/// request rarely meets a connection that is being closed.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection in time, or none at all.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// The connection ended before the answer's head was whole, or that was no HTTP.
    #[error("the upstream's connection broke")]
    Broken,
    /// [`MAX_CONNECTIONS`] are open.
    #[error("too many upstream connections")]
    Overloaded,
}

/// Connections of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<NameId, Vec<Idle>>>,
    sessions: Sessions,
    open: Rc<Cell<usize>>,
    /// Connections that could not be made, by server: no more than there were servers.
    failures: RefCell<HashMap<NameId, Failures>>,
    /// What heads are written in.
    pub spare: Spare,
}

/// Failed connections to a server: a message each would be as many lines as there are requests.
#[derive(Debug)]
struct Failures {
    upstream: String,
    repeats: Repeats,
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    since: Moment,
}

impl Pool {
    /// Sends a request and waits for the answer's head. Sent again only where an idle connection
    /// turned out to be closed before a byte was written.
    ///
    /// # Errors
    /// Says whether the upstream may have seen the request: only with [`SendError::Broken`].
    pub async fn send<B>(
        &self,
        upstream: &Upstream,
        outgoing: Outgoing<B>,
        asks: Asks,
        now: Moment,
    ) -> Result<Answer, SendError>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Outgoing { head, body } = outgoing;
        let (head, chunked) = match head {
            Head::Http1 { bytes, chunked } => (bytes, chunked),
            Head::Http2(request) => {
                let request = request.map(|()| AnyBody::new(body));
                return self
                    .sessions
                    .send(upstream.id, request, async || self.connect(upstream, now).await)
                    .await;
            }
        };
        let mut upload = Upload::new(head, chunked, body);
        loop {
            let (wire, fresh) = match self.take(upstream.id, now) {
                Some(wire) => (wire, false),
                None => {
                    let (stream, open) = Box::pin(self.connect(upstream, now)).await?;
                    (Wire::new(stream, open), true)
                }
            };
            match wire.exchange(upload, asks, upstream.id, &self.spare).await {
                Ok(answer) => return Ok(answer),
                Err(Broken::Unsent(unsent)) if !fresh => upload = unsent,
                Err(Broken::Unsent(_)) => return Err(SendError::Broken),
                Err(Broken::Sent(fault)) => {
                    tracing::debug!(upstream = upstream.name, %fault, "the upstream's connection broke");
                    return Err(SendError::Broken);
                }
            }
        }
    }

    /// The connection that was used last, if it still stands.
    fn take(&self, server: NameId, now: Moment) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&server)?;
        let oldest = now.0.saturating_sub(nanos(IDLE_TIME));
        while let Some(Idle { wire, since }) = list.pop() {
            if since.0 < oldest {
                list.clear(); // the others are older
            } else if wire.is_idle() {
                return Some(wire);
            }
        }
        None
    }

    /// Keeps the connection of an answer that was read to its end; closes it otherwise.
    pub fn give_back(&self, body: AnswerBody, now: Moment) {
        let Source::Wire(body) = body.0 else { return };
        let server = body.server;
        let Some(wire) = body.into_wire() else { return };
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(server).or_default();
        if list.len() >= MAX_IDLE {
            list.remove(0);
        }
        list.push(Idle { wire, since: now });
    }

    /// Closes connections that were idle too long, or that the upstream closed.
    pub fn sweep(&self, now: Moment) {
        self.sessions.sweep();
        self.failures.borrow_mut().retain(|_, Failures { upstream, repeats }| {
            if let Some(more) = repeats.untold(now) {
                tracing::warn!(upstream, more, "further connections failed");
            }
            !repeats.is_over(now)
        });
        self.idle.borrow_mut().retain(|_, list| {
            list.retain(|idle| now.since(idle.since) < IDLE_TIME && idle.wire.is_idle());
            !list.is_empty()
        });
    }

    async fn connect(&self, upstream: &Upstream, now: Moment) -> Result<(TcpStream, Open), SendError> {
        if self.open.get() >= MAX_CONNECTIONS {
            return Err(SendError::Overloaded);
        }
        let open = Open::count(&self.open);
        let (host, port) = &upstream.server;
        let connecting = TcpStream::connect((host.as_str(), *port));
        match tokio::time::timeout(upstream.connect_timeout, connecting).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true); // an optimisation, not a need
                Ok((stream, open))
            }
            Ok(Err(error)) => {
                self.failed(upstream, now, &error);
                Err(SendError::Unreachable)
            }
            Err(elapsed) => {
                self.failed(upstream, now, &elapsed);
                Err(SendError::Unreachable)
            }
        }
    }

    fn failed(&self, upstream: &Upstream, now: Moment, error: &dyn std::fmt::Display) {
        let mut failures = self.failures.borrow_mut();
        let new = || Failures { upstream: upstream.name.clone(), repeats: Repeats::default() };
        if let Some(more) = failures.entry(upstream.id).or_insert_with(new).repeats.says(now) {
            tracing::warn!(upstream = upstream.name, %error, more, "cannot connect");
        }
    }
}

/// Counts a connection from its first attempt to its end.
#[derive(Debug)]
struct Open(Rc<Cell<usize>>);

impl Open {
    fn count(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
