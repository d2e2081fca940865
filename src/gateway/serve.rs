//! A connection from its first byte to its last: its protocol's machinery, its deadlines, its end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;

use super::Gate;
use super::arrive::{Protocol, arrive};
use super::connection::{Connection, Look, Rules};
use super::handle::handle;
use super::head::MAX_FIELDS;
use super::places::Place;
use super::record::Record;
use super::stream::Stream;
use super::target::is_trusted;
use super::watched::Watched;
use crate::policy::outcome::Outcome;
use crate::policy::reject::Reason;
use crate::types::Moment;

/// hyper's own least buffer.
const MIN_BUFFER: usize = 8192;
/// Requests that an HTTP/2 client may have in flight on one connection.
pub(super) const MAX_STREAMS: u32 = 100;
/// What a client may send of one body before it is read, and of all bodies of a connection.
/// The latter's half is also what h2 spends on keeping small frames that are not read yet, each with
/// an overhead of 256 bytes: so much that a call of messages of 8 bytes or more can fill its own
/// window.
const WINDOWS: (u32, u32) = (64 * 1024, 4 * 1024 * 1024);
/// What is kept of one answer until the client opens its window, and a piece (see [`super::pieces`]).
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that their client may reset before they were looked at (CVE-2023-44487); past it the
/// connection ends.
const MAX_RESETS: usize = 32;
/// Streams that may be reset for what their client did wrong (CVE-2025-8671), in all of a
/// connection's life: it may be a proxy's that has many clients.
const MAX_ERRORS: usize = 1024;

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Whether it is to speak TLS.
    pub(super) secure: bool,
    pub(super) place: Place,
}

/// Serves a connection until it ends, or until its time is up.
pub(super) async fn serve(gate: Rc<Gate>, number: u64, accepted: Accepted) {
    let Accepted { stream, peer, secure, mut place } = accepted;
    let at = gate.clock.now();
    let view = gate.views.load();
    // A trusted proxy speaks for many.
    let is_one = |peer: SocketAddr| !is_trusted(peer.ip(), &view.settings.trusted_proxies);
    if is_one(peer) && !place.is_within_share_of(peer.ip()) {
        return;
    }
    let deadline = gate.clock.instant(at.plus(view.settings.header_timeout));
    let arriving = Box::pin(arrive(stream, peer, secure, &view.settings));
    let arrived = tokio::select! {
        arrived = tokio::time::timeout_at(deadline.into(), arriving) => arrived,
        () = gate.stop.cancelled() => return,
    };
    let Ok(Some(arrived)) = arrived else { return };
    if arrived.peer != peer && is_one(arrived.peer) && !place.is_within_share_of(arrived.peer.ip()) {
        return;
    }
    let rules = Rules {
        is_proxy: !is_one(arrived.peer),
        half_close: view.settings.half_close,
        max_head: view.settings.max_header_size,
    };
    let connection = Arc::new(Connection::new(arrived, at, gate.clock.now(), place, &rules));
    drop(view);
    match connection.protocol {
        Protocol::Http1 => serve_http1(&gate, number, &connection, rules).await,
        Protocol::Http2 => serve_http2(&gate, number, &connection, rules).await,
    }
    gate.connections.borrow_mut().remove(&number);
    connection.close();
}

/// Requests one after the other. While there is none for a while, hyper's state and buffers go.
async fn serve_http1(gate: &Rc<Gate>, number: u64, connection: &Arc<Connection>, rules: Rules) {
    let mut many_fields = false;
    loop {
        connection.begin_parser(many_fields);
        let service = {
            let (gate, connection) = (Rc::clone(gate), Arc::clone(connection));
            service_fn(move |request| {
                let (gate, connection) = (Rc::clone(&gate), Arc::clone(&connection));
                async move {
                    let (waits, seen) = connection.begin();
                    handle(gate, Stream { connection, waits }, seen, request).await
                }
            })
        };
        let mut builder = http1::Builder::new();
        builder
            .half_close(rules.half_close)
            .header_read_timeout(None) // one deadline for heads, bodies and silence: `Connection`
            .max_header_size(beyond(rules.max_head))
            .max_buf_size(beyond(rules.max_head).max(MIN_BUFFER));
        if std::mem::take(&mut many_fields) {
            builder.max_headers(BEYOND_FIELDS);
        }
        let io = TokioIo::new(Watched(Arc::clone(connection)));
        let mut serving = Box::pin(builder.serve_connection(io, service).with_upgrades());
        let ended = drive(gate, number, connection, true, |context, finish| {
            if finish {
                serving.as_mut().graceful_shutdown();
            }
            let polled = serving.as_mut().poll(context);
            if let Poll::Ready(Err(error)) = &polled {
                refused_by_hyper(gate, error);
            }
            polled.map(|_| Ok::<_, Infallible>(())) // an error concerns this connection only
        });
        match ended.await {
            End::Rests => {}
            End::ManyFields => {
                many_fields = true;
                continue;
            }
            End::Done => {
                drop(serving);
                return connection.linger_on_socket().await;
            }
            End::Over => return,
        }
        drop(serving);
        let mut leaves = false;
        let ended = drive(gate, number, connection, false, |context, finish| {
            if finish {
                leaves = true;
                connection.say_goodbye(context);
                return Poll::Ready(Ok(()));
            }
            connection.poll_readable(context)
        });
        if ended.await == End::Over || leaves {
            return;
        }
    }
}

/// Several requests at once, each in a task of its own.
async fn serve_http2(gate: &Rc<Gate>, number: u64, connection: &Arc<Connection>, rules: Rules) {
    let tasks = StreamTasks { gate: Rc::clone(gate), called: Rc::default() };
    let service = {
        let (gate, connection, called) = (Rc::clone(gate), Arc::clone(connection), Rc::clone(&tasks.called));
        service_fn(move |request| {
            let (gate, connection) = (Rc::clone(&gate), Arc::clone(&connection));
            let (waits, seen) = connection.begin();
            let stream = Stream { connection, waits };
            *called.borrow_mut() = Some(stream.clone());
            // Boxed: hyper moves what it gets here several times on its way to a task.
            Box::pin(handle(gate, stream, seen, request))
        })
    };
    let mut builder = http2::Builder::new(tasks);
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_ERRORS)
        .max_header_list_size(u32::try_from(beyond(rules.max_head)).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    let io = TokioIo::new(Watched(Arc::clone(connection)));
    let mut serving = Box::pin(builder.serve_connection(io, service));
    drive(gate, number, connection, false, |context, finish| {
        if finish {
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context)
    })
    .await;
}

/// What hyper itself takes: more than a head may have, so that one that is too large comes to be refused
/// in words. Beyond this hyper answers a bare 431.
const BEYOND_FIELDS: usize = MAX_FIELDS + 56;
fn beyond(max_head: usize) -> usize {
    max_head.saturating_mul(2)
}

/// Logs and counts a request that hyper answered by itself, with a bare status.
fn refused_by_hyper(gate: &Rc<Gate>, error: &hyper::Error) {
    let reason = match (error.is_parse_too_large(), error.is_parse()) {
        (true, _) => Reason::HeaderTooLarge,
        (false, true) => Reason::BadRequest,
        (false, false) => return,
    };
    gate.stats.requests.fetch_add(1, Ordering::Relaxed);
    Record::new(gate, gate.views.load(), None).answered(reason.status(), Outcome::Refused(reason)); // logged when it is dropped
}

/// How a part of a connection's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself: what it was there for is done.
    Done,
    /// Nothing goes on: what is not needed for waiting can go.
    Rests,
    /// A head waits for a parser that takes many fields.
    ManyFields,
    /// Its time is up.
    Over,
}

/// Polls a connection's machinery, and looks at its deadlines: one timer for all of them.
/// `machine` is told once to finish what it serves, when the gateway stops or idleness ends. Where it
/// `may_rest`, it is given up for as long as nothing goes on.
async fn drive<E>(
    gate: &Gate,
    number: u64,
    connection: &Arc<Connection>,
    may_rest: bool,
    mut machine: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
) -> End {
    let settings = gate.views.load();
    let (header_timeout, idle_timeout) = (settings.settings.header_timeout, settings.settings.idle_timeout);
    drop(settings);
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut due = Moment::default(); // when the timer ends
    let (mut finish, mut finishing, mut done) = (false, false, false);
    std::future::poll_fn(|context| {
        let now = gate.beat.tick();
        connection.tick(now);
        if now >= due {
            connection.look_for_client();
        }
        finish |= gate.stopping.get();
        loop {
            let tell = finish && !std::mem::replace(&mut finishing, finish);
            if tell && gate.stopping.get() {
                connection.stop(now);
            }
            let polled = if done { Poll::Pending } else { machine(context, tell) };
            done |= polled.is_ready();
            // Where the protocol's state is lost, what tells of it goes out at once or not at all.
            match (polled, connection.poll_send(context)) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(End::Over),
                (_, Poll::Ready(Ok(()))) if done => return Poll::Ready(End::Done),
                (_, Poll::Ready(Ok(())) | Poll::Pending) => {}
            }
            let look = match connection.look(now, header_timeout, idle_timeout) {
                Look::Again(look) => look,
                Look::Rest(_) if may_rest && !finish => return Poll::Ready(End::Rests),
                Look::Rest(look) => look,
                Look::ManyFields => return Poll::Ready(End::ManyFields),
                Look::Goodbye if !finish => {
                    finish = true;
                    connection.leave(now);
                    continue;
                }
                Look::Goodbye | Look::Over => return Poll::Ready(End::Over),
            };
            // A timer that ends too early costs one look; to set it costs more.
            let wanted = now.plus(look);
            if now >= due || wanted < due || timer.is_elapsed() {
                if due == Moment::default() {
                    let known = (context.waker().clone(), Arc::downgrade(connection));
                    gate.connections.borrow_mut().insert(number, known);
                }
                due = wanted;
                timer.as_mut().reset(gate.clock.instant(due).into());
                // Outside the task's budget: else a busy turn would leave the timer with nobody to wake.
                if pin!(unconstrained(timer.as_mut())).poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
            }
            return Poll::Pending;
        }
    })
    .await
}

/// Runs the requests of an HTTP/2 connection, each in a task of this worker.
#[derive(Clone)]
struct StreamTasks {
    gate: Rc<Gate>,
    /// The request that hyper hands over next: it calls the service, then asks for its task.
    called: Rc<RefCell<Option<Stream>>>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamTasks {
    fn execute(&self, future: F) {
        let (gate, stream) = (Rc::clone(&self.gate), self.called.borrow_mut().take());
        self.gate.tasks.spawn_local(async move {
            let mut future = pin!(future);
            std::future::poll_fn(|context| {
                gate.beat.tick();
                if let Some(Stream { waits, .. }) = &stream {
                    if waits.is_cut() {
                        return Poll::Ready(()); // the stream is reset
                    }
                    waits.watch(context.waker());
                }
                future.as_mut().poll(context)
            })
            .await;
            // Also where the client gave it up: what outlives it upstream concerns no connection.
            if let Some(stream) = stream {
                stream.end(gate.clock.now());
            }
        });
    }
}
