//! HTTP/2 connections to upstreams, with prior knowledge (RFC 9113, section 3.3), as gRPC servers expect. hyper is the
//! client; this module selects the connection for each request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::connection_count::CountedConnection;
use super::response::{ResponseFault, ResponseOf, SendError};
use crate::types::NameId;

/// Most requests in flight on one connection; further ones use another. Servers allow as many, or queue them.
const MAX_STREAMS: usize = 100;
/// Bytes that an upstream may send of one response before the client reads them.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes that an upstream may send of all responses of a connection before the clients read them. The streams of one
/// connection cannot fill this window, so that slow clients do not block others. h2 closes a connection when the
/// bookkeeping of its small unread frames, 256 bytes each, exceeds half of the window, 128 MiB: 100 slow clients of
/// calls with messages of 15 bytes do not reach that.
const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
/// Largest response head, in bytes.
const MAX_HEAD: u32 = 128 * 1024;
/// Bytes that h2 buffers of one request body until the upstream opens its window.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a connection with requests in flight is checked with PING.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the upstream may take to acknowledge a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn Error + Send + Sync>;

/// A request body of any type; not `Send`, because a worker never passes it to another thread.
pub(super) struct AnyBody(Option<Boxed>);

type Boxed = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;

impl AnyBody {
    pub(super) fn new<B>(body: Option<B>) -> Self
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map(|body| Box::pin(body.map_err(Into::into)) as Boxed))
    }
}

impl Body for AnyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(body) => body.as_mut().poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

/// The HTTP/2 connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Http2Connections(RefCell<HashMap<NameId, Vec<Http2Connection>>>);

#[derive(Debug)]
struct Http2Connection {
    sender: SendRequest<AnyBody>,
    streams: Rc<Cell<usize>>,
}

/// Counts a stream of a connection until the end of its response.
#[derive(Debug)]
struct CountedStream(Rc<Cell<usize>>);

impl CountedStream {
    fn count(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Http2Connections {
    fn find(&self, server: NameId) -> Option<(SendRequest<AnyBody>, CountedStream)> {
        let mut sessions = self.0.borrow_mut();
        let list = sessions.get_mut(&server)?;
        list.retain(|session| !session.sender.is_closed());
        let session = list.iter().find(|session| session.streams.get() < MAX_STREAMS)?;
        Some((session.sender.clone(), CountedStream::count(&session.streams)))
    }

    /// Closes connections without requests in flight, and removes connections that are closed.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, list| {
            list.retain(|session| session.streams.get() > 0 && !session.sender.is_closed());
            !list.is_empty()
        });
    }

    /// Starts HTTP/2 on a new TCP connection, and counts its first stream.
    async fn open(
        &self,
        server: NameId,
        stream: TcpStream,
        counted: CountedConnection,
    ) -> Result<(SendRequest<AnyBody>, CountedStream), SendError> {
        let mut builder = Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(SEND_BUFFER)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|_| SendError::Unreachable)?;
        tokio::task::spawn_local(async move {
            let _ = connection.await; // the error is returned to its requests
            drop(counted);
        });
        let session = Http2Connection { sender: sender.clone(), streams: Rc::default() };
        let counted_stream = CountedStream::count(&session.streams);
        self.0.borrow_mut().entry(server).or_default().push(session);
        Ok((sender, counted_stream))
    }

    /// Sends a request and waits for the response head. Retries only if the connection was closed before hyper accepted
    /// the request.
    pub(super) async fn send(
        &self,
        server: NameId,
        mut request: Request<AnyBody>,
        connect: impl AsyncFn() -> Result<(TcpStream, CountedConnection), SendError>,
    ) -> Result<ResponseOf<Http2Body>, SendError> {
        let mut again = false;
        loop {
            let (found, is_new) = match self.find(server).filter(|_| !again) {
                Some(found) => (found, false),
                None => {
                    let (stream, counted) = Box::pin(connect()).await?;
                    (self.open(server, stream, counted).await?, true)
                }
            };
            let (mut sender, counted) = found;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(upstream_response(response, counted)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => (request, again) = (unsent, true),
                    _ => return Err(SendError::Broken),
                },
            }
        }
    }
}

fn upstream_response(response: Response<Incoming>, counted: CountedStream) -> ResponseOf<Http2Body> {
    let (parts, incoming) = response.into_parts();
    let body = Http2Body { incoming, _counted: counted };
    ResponseOf { status: parts.status, headers: parts.headers, body }
}

/// The body of a response over HTTP/2.
#[derive(Debug)]
pub(super) struct Http2Body {
    incoming: Incoming,
    _counted: CountedStream,
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        Pin::new(&mut self.incoming).poll_frame(context).map_err(|_| ResponseFault::Closed)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Spawns hyper's tasks on this worker's thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
