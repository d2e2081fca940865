//! Connections to upstreams: one pool per worker, never shared between threads.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::snapshot::Upstream;
use crate::types::Moment;

/// Most connections of one worker to all its upstreams; beyond it, requests are refused as
/// `overloaded`.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Most idle connections of one worker to one upstream.
const MAX_IDLE: usize = 512;
/// How long a connection is kept without use: shorter than what servers usually allow, so that a
/// request rarely meets a connection that is being closed.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Largest head of an answer, in bytes.
const MAX_ANSWER_HEAD: usize = 128 * 1024;

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

/// Host and port.
type Server = (String, u16);

/// Connections of one worker. `B` is the body of requests.
#[derive(Debug)]
pub struct Pool<B> {
    idle: RefCell<HashMap<Server, Vec<Idle<B>>>>,
    open: Rc<Cell<usize>>,
    clock: Clock,
}

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    since: Moment,
}

/// An answer's connection. Give it back once the answer is read to its end; dropped before, it
/// is closed.
#[derive(Debug)]
pub struct Lease<B> {
    sender: SendRequest<B>,
    server: Server,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// An empty pool.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { idle: RefCell::default(), open: Rc::default(), clock }
    }

    /// Sends a request and waits for the answer's head. Sent again, on a new connection, only
    /// where an idle one turned out to be closed before a byte was written.
    ///
    /// # Errors
    /// Says whether the upstream may have seen the request: only with [`SendError::Broken`].
    pub async fn send(
        &self,
        upstream: &Upstream,
        request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), SendError> {
        let mut request = request;
        while let Some(mut sender) = self.take(&upstream.server) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender, upstream))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(&error.into_error(), upstream)),
                },
            }
        }
        let mut sender = self.connect(upstream).await?;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, self.lease(sender, upstream))),
            Err(error) => Err(broken(&error, upstream)),
        }
    }

    fn lease(&self, sender: SendRequest<B>, upstream: &Upstream) -> Lease<B> {
        Lease { sender, server: upstream.server.clone() }
    }

    /// The connection that was used last, if it still stands.
    fn take(&self, server: &Server) -> Option<SendRequest<B>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(server)?;
        let now = self.clock.now();
        let at = list.iter().rposition(|idle| {
            !idle.sender.is_closed() && idle.sender.is_ready() && now.since(idle.since) < IDLE_TIME
        })?;
        Some(list.remove(at).sender)
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn give_back(&self, lease: Lease<B>) {
        if lease.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(lease.server).or_default();
        let since = self.clock.now();
        if list.len() >= MAX_IDLE {
            list.remove(0);
        }
        list.push(Idle { sender: lease.sender, since });
    }

    /// Closes connections that were idle too long.
    pub fn sweep(&self) {
        let now = self.clock.now();
        self.idle.borrow_mut().retain(|_, list| {
            list.retain(|idle| !idle.sender.is_closed() && now.since(idle.since) < IDLE_TIME);
            !list.is_empty()
        });
    }

    async fn connect(&self, upstream: &Upstream) -> Result<SendRequest<B>, SendError> {
        if self.open.get() >= MAX_CONNECTIONS {
            return Err(SendError::Overloaded);
        }
        let open = Open::count(&self.open);
        let (host, port) = &upstream.server;
        let connecting = TcpStream::connect((host.as_str(), *port));
        let stream = match tokio::time::timeout(upstream.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::warn!(upstream = upstream.name, %error, "cannot connect");
                return Err(SendError::Unreachable);
            }
            Err(_) => {
                tracing::warn!(upstream = upstream.name, "connecting took too long");
                return Err(SendError::Unreachable);
            }
        };
        let _ = stream.set_nodelay(true); // an optimisation, not a need
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_ANSWER_HEAD);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| broken(&error, upstream))?;
        tokio::task::spawn_local(async move {
            let _ = connection.with_upgrades().await; // whoever waits for the answer is told
            drop(open);
        });
        Ok(sender)
    }
}

/// Counts a connection from its first attempt to its end.
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

fn broken(error: &hyper::Error, upstream: &Upstream) -> SendError {
    tracing::debug!(upstream = upstream.name, %error, "the upstream's connection broke");
    SendError::Broken
}
