//! HTTP/2 connections to servers, by ALPN or with prior knowledge (RFC 9113, section 3.3), as gRPC servers expect. hyper
//! is the client; this module selects the connection for each request.

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
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::connection_count::CountedConnection;
use super::fault::{Cause, ResponseFault, SendError, Sent, Stage};
use super::io::Io;
use super::local::Turn;
use super::request::OutgoingBody;
use super::response::ResponseOf;

/// Most requests in flight on one connection; further ones use another. Servers allow as many, or queue them.
const MAX_STREAMS: usize = 100;
/// The number of streams that is assumed until the server has said how many it allows.
const UNKNOWN_STREAMS: usize = MAX_STREAMS - 1;
/// How often, and how many times, it is looked whether the server has said that. Requests that wait for their turn to open
/// a connection wait no longer.
const SETTINGS_LOOK_EVERY: Duration = Duration::from_millis(2);
const SETTINGS_LOOKS: usize = 500;
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

/// A request body, if there is one.
#[derive(Debug)]
pub(super) struct MaybeBody<B>(pub(super) Option<B>);

impl<B: OutgoingBody> Body for MaybeBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The HTTP/2 connections of one worker, by the number of their server.
#[derive(Debug)]
pub(super) struct Http2Connections<B>(RefCell<HashMap<u64, Vec<Http2Connection<B>>>>);

#[derive(Debug)]
struct Http2Connection<B> {
    sender: SendRequest<MaybeBody<B>>,
    streams: Rc<Cell<usize>>,
    /// Most streams that the server allows at the same time.
    allowed: Rc<Cell<usize>>,
}

/// A stream of a connection, for one request.
pub(super) struct Http2Stream<B> {
    sender: SendRequest<MaybeBody<B>>,
    counted: CountedStream,
}

/// Why a stream has no response.
pub(super) enum StreamError<B> {
    /// hyper did not accept the request, because the connection was closed before.
    Unsent(Option<B>),
    /// The request failed.
    Failed(SendError),
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

impl<B> Default for Http2Connections<B> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<B: OutgoingBody> Http2Connections<B> {
    /// A stream of an open connection; `None` if all streams are in use, or there is no connection.
    pub(super) fn find(&self, server: u64) -> Option<Http2Stream<B>> {
        let mut connections = self.0.borrow_mut();
        let list = connections.get_mut(&server)?;
        list.retain(|connection| !connection.sender.is_closed());
        let is_free = |it: &&Http2Connection<B>| it.streams.get() < it.allowed.get().min(MAX_STREAMS);
        list.iter().find(is_free).map(Http2Connection::stream)
    }

    /// Closes connections without requests in flight, and removes connections that are closed.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, list| {
            list.retain(|connection| connection.streams.get() > 0 && !connection.sender.is_closed());
            !list.is_empty()
        });
    }

    /// Starts HTTP/2 on a new connection. Returns its first stream. `turn` ends when the server has said how many streams
    /// it allows, so that requests which wait for their turn find the free ones.
    pub(super) async fn open(
        &self,
        server: u64,
        io: Io,
        counted: CountedConnection,
        turn: Option<Turn>,
    ) -> Result<Http2Stream<B>, SendError> {
        let mut builder = Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(UNKNOWN_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(SEND_BUFFER)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let handshake = builder.handshake::<_, MaybeBody<B>>(TokioIo::new(io)).await;
        let failed = |error: hyper::Error| SendError::unsent(Stage::Connect, Cause::Http2(error.to_string()));
        let (sender, mut connection) = handshake.map_err(failed)?;
        let allowed = Rc::new(Cell::new(UNKNOWN_STREAMS));
        let known = Rc::clone(&allowed);
        tokio::task::spawn_local(async move {
            // hyper reads the server's settings in another task, so they are looked for again and again.
            let (mut turn, mut looks) = (turn, tokio::time::interval(SETTINGS_LOOK_EVERY));
            let mut looks_left = SETTINGS_LOOKS;
            let run = std::future::poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                loop {
                    known.set(connection.current_max_send_streams().max(1));
                    if known.get() != UNKNOWN_STREAMS || looks_left == 0 {
                        turn = None;
                        return polled;
                    }
                    if looks.poll_tick(context).is_pending() {
                        return polled;
                    }
                    looks_left -= 1;
                }
            });
            let _ = run.await; // the error is returned to its requests
            drop((counted, turn));
        });
        let connection = Http2Connection { sender, streams: Rc::default(), allowed };
        let stream = connection.stream();
        self.0.borrow_mut().entry(server).or_default().push(connection);
        Ok(stream)
    }
}

impl<B> Http2Connection<B> {
    fn stream(&self) -> Http2Stream<B> {
        Http2Stream { sender: self.sender.clone(), counted: CountedStream::count(&self.streams) }
    }
}

impl<B: OutgoingBody> Http2Stream<B> {
    /// Sends a request and waits for the response head.
    pub(super) async fn send(
        mut self,
        request: Request<Option<B>>,
    ) -> Result<ResponseOf<Http2Body>, StreamError<B>> {
        match self.sender.try_send_request(request.map(MaybeBody)).await {
            Ok(response) => Ok(upstream_response(response, self.counted)),
            Err(mut failed) => {
                let unsent = failed.take_message().map(|unsent| StreamError::Unsent(unsent.into_body().0));
                Err(unsent.unwrap_or_else(|| StreamError::Failed(send_error(failed.error()))))
            }
        }
    }
}

/// A stream that the server refused, or that is younger than its last one (GOAWAY), was not processed (RFC 9113,
/// section 8.7).
fn send_error(error: &hyper::Error) -> SendError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let is_left_out = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let sent = match error.is_remote() && (is_refused || is_left_out) {
                true => Sent::Nothing,
                false => Sent::Something,
            };
            return SendError { stage: Stage::Exchange, sent, cause: Cause::Http2(error.to_string()) };
        }
        source = inner.source();
    }
    SendError::sent(Cause::Http2(error.to_string()))
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
