//! Serves HTTP/1.1 connections: one request after the other. hyper's state is dropped while a connection is idle.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::connections::Connections;
use super::handler::RequestHandler;
use super::io::observed::ObservedIo;
use super::poll_loop::{End, poll_until_end};
use super::state::{Connection, ConnectionSettings};
use super::stream::Stream;
use crate::policy::reject::Reason;
use crate::policy::request_head::MAX_FIELDS;

/// hyper's smallest read buffer, in bytes.
const MIN_BUFFER: usize = 8192;
/// Fields that hyper accepts when it is configured for many: more than [`MAX_FIELDS`], so that a request with
/// too many is refused with an error body. Beyond this, hyper responds with a bare 431.
const HYPER_MAX_FIELDS: usize = MAX_FIELDS + 56;

/// Bytes of a head that hyper accepts: more than `max_header_size`, so that the gateway itself refuses a head
/// that is too large, with an error body.
pub(super) fn hyper_max_head(max_head: usize) -> usize {
    max_head.saturating_mul(2)
}

/// Serves an HTTP/1.1 connection until it ends.
pub(super) async fn serve_http1<H: RequestHandler>(
    connections: &Rc<Connections>,
    number: u64,
    connection: &Arc<Connection>,
    settings: ConnectionSettings,
    handler: H,
) {
    let mut many_fields = false;
    loop {
        match serve_requests(connections, number, connection, settings, &handler, many_fields).await {
            End::Dormant => many_fields = false,
            End::NeedsParser => {
                many_fields = true;
                continue;
            }
            End::Done => return connection.linger().await,
            End::Closed => return,
        }
        let mut is_shutting_down = false;
        let ended = poll_until_end(connections, number, connection, false, |context, shut_down| {
            let polled = connection.poll_readable(context);
            if shut_down && polled.is_pending() {
                is_shutting_down = true;
                connection.close_idle(context);
                return Poll::Ready(Ok::<_, std::io::Error>(()));
            }
            polled
        });
        if ended.await == End::Closed || is_shutting_down {
            return;
        }
    }
}

/// Serves requests with one connection state of hyper, until the connection ends, becomes dormant or needs
/// another parser.
async fn serve_requests<H: RequestHandler>(
    connections: &Rc<Connections>,
    number: u64,
    connection: &Arc<Connection>,
    settings: ConnectionSettings,
    handler: &H,
    many_fields: bool,
) -> End {
    connection.start_parser(many_fields);
    let service = service_fn(|request| {
        let (connection, handler) = (Arc::clone(connection), handler.clone());
        async move {
            let (stream, head) = Stream::start(connection);
            handler.handle(stream, head, request).await
        }
    });
    let max_head = hyper_max_head(settings.max_head);
    let mut builder = http1::Builder::new();
    builder
        .half_close(settings.half_close)
        .header_read_timeout(None) // `Connection` has all deadlines
        .max_header_size(max_head)
        .max_buf_size(max_head.max(MIN_BUFFER));
    if many_fields {
        builder.max_headers(HYPER_MAX_FIELDS);
    }
    let io = TokioIo::new(ObservedIo(Arc::clone(connection)));
    let mut serving = Box::pin(builder.serve_connection(io, service).with_upgrades());
    poll_until_end(connections, number, connection, true, |context, shut_down| {
        let mut polled = serving.as_mut().poll(context);
        if shut_down && polled.is_pending() {
            // Only now: a request that has arrived is read, and served.
            serving.as_mut().graceful_shutdown();
            polled = serving.as_mut().poll(context);
        }
        if let Poll::Ready(Err(error)) = &polled {
            match (error.is_parse_too_large(), error.is_parse()) {
                (true, _) => handler.refused_by_hyper(Reason::HeaderTooLarge),
                (false, true) => handler.refused_by_hyper(Reason::BadRequest),
                (false, false) => {}
            }
        }
        polled.map(|_| Ok::<_, Infallible>(())) // an error concerns this connection only
    })
    .await
}
