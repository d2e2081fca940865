//! Upstreams that speak HTTP/2 from the first byte on (prior knowledge, RFC 9113, section 3.3), as
//! gRPC servers do. hyper's client; here is only which connection takes a request.

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

use super::body::{AnswerBody, Source};
use super::wire::{Answer, Fault};
use super::{Open, SendError};
use crate::types::NameId;

/// Requests that one connection carries at once; further ones get another. Servers allow as many,
/// or make them wait.
const MAX_STREAMS: usize = 100;
/// What an upstream may send of one answer before a client has taken it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all of a connection's. Its streams cannot fill it, so that slow clients do not keep
/// others waiting. h2 ends a connection once its unread frames of less than 256 bytes lack half as
/// much of that size together: 100 slow clients of calls with messages of 15 bytes do not reach it. That
/// half, 128 MiB, is also the most that such frames can make one connection keep.
const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
/// Largest head of an answer, in bytes.
const MAX_HEAD: u32 = 128 * 1024;
/// What is kept of one request's body until the upstream takes it.
const SEND_BUFFER: usize = 64 * 1024;

/// While requests wait, a connection proves this often that its other end still lives.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long that proof may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body. Lives on one thread, like all of a worker's.
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

/// Connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Sessions(RefCell<HashMap<NameId, Vec<Session>>>);

#[derive(Debug)]
struct Session {
    sender: SendRequest<AnyBody>,
    streams: Rc<Cell<usize>>,
}

/// A place among the streams of a connection, until the answer's end.
#[derive(Debug)]
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Sessions {
    fn find(&self, server: NameId) -> Option<(SendRequest<AnyBody>, Place)> {
        let mut sessions = self.0.borrow_mut();
        let list = sessions.get_mut(&server)?;
        list.retain(|session| !session.sender.is_closed());
        let session = list.iter().find(|session| session.streams.get() < MAX_STREAMS)?;
        Some((session.sender.clone(), Place::take(&session.streams)))
    }

    /// Closes connections that nothing is asked of, and forgets those that are gone.
    pub(super) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, list| {
            list.retain(|session| session.streams.get() > 0 && !session.sender.is_closed());
            !list.is_empty()
        });
    }

    /// Begins to speak HTTP/2 on a connection.
    async fn open(
        &self,
        server: NameId,
        stream: TcpStream,
        open: Open,
    ) -> Result<(SendRequest<AnyBody>, Place), SendError> {
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
            let _ = connection.await; // what it concerned was told
            drop(open);
        });
        let session = Session { sender: sender.clone(), streams: Rc::default() };
        let place = Place::take(&session.streams);
        self.0.borrow_mut().entry(server).or_default().push(session);
        Ok((sender, place))
    }

    /// Sends a request and waits for the answer's head. Sent again only where a connection turned
    /// out to be gone before it was handed over.
    pub(super) async fn send(
        &self,
        server: NameId,
        mut request: Request<AnyBody>,
        connect: impl AsyncFn() -> Result<(TcpStream, Open), SendError>,
    ) -> Result<Answer, SendError> {
        let mut again = false;
        loop {
            let (found, fresh) = match self.find(server).filter(|_| !again) {
                Some(found) => (found, false),
                None => {
                    let (stream, open) = Box::pin(connect()).await?;
                    (self.open(server, stream, open).await?, true)
                }
            };
            let (mut sender, place) = found;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(answer(response, place)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !fresh => (request, again) = (unsent, true),
                    _ => return Err(SendError::Broken),
                },
            }
        }
    }
}

fn answer(response: Response<Incoming>, place: Place) -> Answer {
    let (parts, incoming) = response.into_parts();
    let body = AnswerBody(Source::Stream(StreamBody { incoming, _place: place }));
    Answer { status: parts.status, headers: parts.headers, body }
}

/// One answer of several on a connection.
#[derive(Debug)]
pub(super) struct StreamBody {
    incoming: Incoming,
    _place: Place,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Pin::new(&mut self.incoming).poll_frame(context).map_err(|_| Fault::Closed)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Runs what hyper has to run on this worker's own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
