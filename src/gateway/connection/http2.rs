//! Serves HTTP/2 connections: several requests at the same time, each in its own task.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::connections::Connections;
use super::handler::RequestHandler;
use super::http1::hyper_max_head;
use super::io::observed::ObservedIo;
use super::poll_loop::poll_until_end;
use super::protocol::MAX_STREAMS;
use super::state::{Connection, ConnectionSettings};
use super::stream::Stream;

/// Bytes that a client may send of one body before the gateway reads them.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes that a client may send of all bodies of a connection before the gateway reads them. h2 also allows
/// half as many bytes for the bookkeeping of small unread frames, 256 bytes each: enough for a call with
/// messages of 8 bytes to fill its stream's window.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that h2 buffers of one response until the client opens its window.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before the gateway accepts them (CVE-2023-44487); beyond it h2 closes the
/// connection.
const MAX_PENDING_RESETS: usize = 32;
/// Streams that h2 may reset because of a client's protocol errors (CVE-2025-8671), in the lifetime of a
/// connection, which may be that of a proxy with many clients.
const MAX_ERROR_RESETS: usize = 1024;

/// Serves an HTTP/2 connection until it ends.
pub(super) async fn serve_http2<H: RequestHandler>(
    connections: &Rc<Connections>,
    number: u64,
    connection: &Arc<Connection>,
    settings: ConnectionSettings,
    handler: H,
) {
    let tasks = StreamTasks { connections: Rc::clone(connections), started: Rc::default() };
    let started = Rc::clone(&tasks.started);
    let service = service_fn(|request| {
        let (stream, head) = Stream::start(Arc::clone(connection));
        *started.borrow_mut() = Some(stream.clone());
        // Boxed, because hyper moves the future several times on its way to a task.
        Box::pin(handler.clone().handle(stream, head, request))
    });
    let max_head = u32::try_from(hyper_max_head(settings.max_head)).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(tasks);
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(max_head)
        .enable_connect_protocol();
    let io = TokioIo::new(ObservedIo(Arc::clone(connection)));
    let mut serving = Box::pin(builder.serve_connection(io, service));
    poll_until_end(connections, number, connection, false, |context, shut_down| {
        if shut_down {
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context)
    })
    .await;
}

/// Runs the requests of an HTTP/2 connection, each in a task of this worker.
#[derive(Clone)]
struct StreamTasks {
    connections: Rc<Connections>,
    /// The request whose task hyper spawns next: hyper calls the service, and then spawns the task.
    started: Rc<RefCell<Option<Stream>>>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamTasks {
    fn execute(&self, future: F) {
        let (connections, stream) = (Rc::clone(&self.connections), self.started.borrow_mut().take());
        self.connections.tasks.spawn_local(async move {
            let mut future = pin!(future);
            std::future::poll_fn(|context| {
                connections.time.refresh();
                if let Some(Stream { deadlines, .. }) = &stream {
                    if deadlines.is_cancelled() {
                        return Poll::Ready(()); // the stream is reset
                    }
                    deadlines.set_waker(context.waker());
                }
                future.as_mut().poll(context)
            })
            .await;
            // Also if the client reset the stream: a request that continues upstream is not tracked here.
            if let Some(stream) = stream {
                stream.end(connections.clock.now());
            }
        });
    }
}
