//! The connection pool of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::net::TcpStream;

use super::connection_count::{ConnectionCount, CountedConnection};
use super::http1::{ExchangeError, Http1Connection};
use super::http2::{AnyBody, Http2Connections};
use super::request::{HeadBuffers, OutgoingHead, OutgoingRequest, Upload};
use super::response::{ResponseOf, SendError};
use super::response_body::{BodySource, UpstreamBody, UpstreamResponse};
use super::response_head::FramingContext;
use crate::snapshot::Upstream;
use crate::types::{Moment, NameId, Repeats, nanos};

/// Most idle connections of one worker to one upstream.
const MAX_IDLE: usize = 512;
/// How long an idle connection is kept: shorter than the keep-alive of most servers, so that a request rarely meets a
/// connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of one worker to its upstreams.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<NameId, Vec<Idle>>>,
    http2: Http2Connections,
    count: ConnectionCount,
    /// Failed connections by server; at most one entry for each server.
    failures: RefCell<HashMap<NameId, Failures>>,
    /// Memory for request heads.
    pub head_buffers: HeadBuffers,
}

/// Counts failed connections to one server. They are logged at a limited rate: otherwise every request could log one.
#[derive(Debug)]
struct Failures {
    upstream: String,
    repeats: Repeats,
}

#[derive(Debug)]
struct Idle {
    connection: Http1Connection,
    since: Moment,
}

impl Pool {
    /// Sends a request and waits for the response head. Retries only if an idle connection was closed before a byte of
    /// the request was written.
    ///
    /// # Errors
    /// [`SendError`]. Only with [`SendError::Broken`] may the upstream have received a part of the request.
    pub async fn send<B>(
        &self,
        upstream: &Upstream,
        outgoing: OutgoingRequest<B>,
        context: FramingContext,
        now: Moment,
    ) -> Result<UpstreamResponse, SendError>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let OutgoingRequest { head, body } = outgoing;
        let (head, chunked) = match head {
            OutgoingHead::Http1 { bytes, chunked } => (bytes, chunked),
            OutgoingHead::Http2(request) => {
                let request = request.map(|()| AnyBody::new(body));
                let connect = async || self.connect(upstream, now).await;
                return self.http2.send(upstream.id, request, connect).await.map(ResponseOf::into_any);
            }
        };
        let mut upload = Upload::new(head, chunked, body);
        loop {
            let (connection, is_new) = match self.take(upstream.id, now) {
                Some(connection) => (connection, false),
                None => {
                    let (stream, counted) = Box::pin(self.connect(upstream, now)).await?;
                    (Http1Connection::new(stream, counted), true)
                }
            };
            match connection.exchange(upload, context, upstream.id, &self.head_buffers).await {
                Ok(response) => return Ok(response.into_any()),
                Err(ExchangeError::Unsent(unsent)) if !is_new => upload = unsent,
                Err(ExchangeError::Unsent(_)) => return Err(SendError::Broken),
                Err(ExchangeError::Sent(fault)) => {
                    tracing::debug!(upstream = upstream.name, %fault, "an upstream connection failed");
                    return Err(SendError::Broken);
                }
            }
        }
    }

    /// Takes the most recently used idle connection that is still open.
    fn take(&self, server: NameId, now: Moment) -> Option<Http1Connection> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&server)?;
        let oldest = now.0.saturating_sub(nanos(IDLE_TIMEOUT));
        while let Some(Idle { connection, since }) = list.pop() {
            if since.0 < oldest {
                list.clear(); // the others are older
            } else if connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps the connection of a response that was read to its end; closes it otherwise.
    pub fn give_back(&self, body: UpstreamBody, now: Moment) {
        let BodySource::Http1(body) = body.0 else { return };
        let server = body.server;
        let Some(connection) = body.into_connection() else { return };
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(server).or_default();
        if list.len() >= MAX_IDLE {
            list.remove(0);
        }
        list.push(Idle { connection, since: now });
    }

    /// Closes connections that were idle for too long, or that the upstream closed. Also logs how many failed
    /// connections were left out of the log.
    pub fn sweep(&self, now: Moment) {
        self.http2.sweep();
        self.failures.borrow_mut().retain(|_, Failures { upstream, repeats }| {
            if let Some(more) = repeats.suppressed(now) {
                tracing::warn!(upstream, more, "further connection attempts failed");
            }
            !repeats.is_over(now)
        });
        self.idle.borrow_mut().retain(|_, list| {
            list.retain(|idle| now.since(idle.since) < IDLE_TIMEOUT && idle.connection.is_idle());
            !list.is_empty()
        });
    }

    async fn connect(
        &self,
        upstream: &Upstream,
        now: Moment,
    ) -> Result<(TcpStream, CountedConnection), SendError> {
        let counted = self.count.add().ok_or(SendError::Overloaded)?;
        let (host, port) = &upstream.server;
        let connecting = TcpStream::connect((host.as_str(), *port));
        match tokio::time::timeout(upstream.connect_timeout, connecting).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true); // only an optimisation: an error is ignored
                Ok((stream, counted))
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
        if let Some(more) = failures.entry(upstream.id).or_insert_with(new).repeats.should_log(now) {
            tracing::warn!(upstream = upstream.name, %error, more, "cannot connect");
        }
    }
}
