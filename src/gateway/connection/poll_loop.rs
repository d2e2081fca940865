//! Polls a connection's protocol machinery and checks its deadlines, with one timer for all of them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use super::connections::Connections;
use super::deadlines::connection::Verdict;
use super::protocol::Protocol;
use super::state::Connection;
use crate::types::Moment;

/// Why polling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The protocol machinery has finished.
    Done,
    /// The connection is idle: hyper's state can be dropped.
    Dormant,
    /// A withheld head waits for a parser that accepts many fields.
    NeedsParser,
    /// The connection must be closed: a deadline has passed, or it failed.
    Closed,
}

/// Polls `machinery` until it is done or the connection ends. The second argument of `machinery` is true once,
/// when it must shut down gracefully: when the gateway stops, or the connection was idle for too long.
/// `may_be_dormant`: polling ends when the connection becomes dormant.
pub(super) async fn poll_until_end<E>(
    connections: &Connections,
    number: u64,
    connection: &Arc<Connection>,
    may_be_dormant: bool,
    mut machinery: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
) -> End {
    let view = connections.views.load();
    let (header_timeout, idle_timeout) = (view.settings.header_timeout, view.settings.idle_timeout);
    drop(view);
    let mut state = PollLoop {
        connections,
        number,
        connection,
        may_be_dormant,
        header_timeout,
        idle_timeout,
        timer: pin!(tokio::time::sleep(Duration::ZERO)),
        check_at: Moment::default(),
        is_shutting_down: false,
        is_shutdown_told: false,
        is_done: false,
    };
    std::future::poll_fn(|context| state.poll(context, &mut machinery)).await
}

struct PollLoop<'a> {
    connections: &'a Connections,
    number: u64,
    connection: &'a Arc<Connection>,
    may_be_dormant: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    timer: Pin<&'a mut Sleep>,
    /// When the timer fires.
    check_at: Moment,
    is_shutting_down: bool,
    is_shutdown_told: bool,
    /// The protocol machinery has finished.
    is_done: bool,
}

impl PollLoop<'_> {
    fn poll<E>(
        &mut self,
        context: &mut Context<'_>,
        machinery: &mut impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
    ) -> Poll<End> {
        let now = self.connections.time.refresh();
        self.connection.start_poll(now);
        if now >= self.check_at {
            self.connection.check_client();
        }
        let ends_now = self.connections.is_winding_down() && self.connection.protocol == Protocol::Http2;
        self.is_shutting_down |= ends_now || self.connections.is_draining();
        loop {
            if let Some(end) = self.poll_machinery(now, context, machinery) {
                return Poll::Ready(end);
            }
            let verdict = self.connection.check_deadlines(now, self.header_timeout, self.idle_timeout);
            let left = match verdict {
                Verdict::Continue(left) => left,
                Verdict::Dormant(_) if self.may_be_dormant && !self.is_shutting_down => {
                    return Poll::Ready(End::Dormant);
                }
                Verdict::Dormant(left) => left,
                Verdict::NeedsParser => return Poll::Ready(End::NeedsParser),
                Verdict::ShutDown if !self.is_shutting_down => {
                    self.is_shutting_down = true;
                    self.connection.shut_down(now);
                    continue;
                }
                Verdict::ShutDown | Verdict::Close => return Poll::Ready(End::Closed),
            };
            self.set_timer(now, now.plus(left), context);
            return Poll::Pending;
        }
    }

    /// Polls the machinery and sends what it wrote.
    fn poll_machinery<E>(
        &mut self,
        now: Moment,
        context: &mut Context<'_>,
        machinery: &mut impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
    ) -> Option<End> {
        let tell =
            self.is_shutting_down && !std::mem::replace(&mut self.is_shutdown_told, self.is_shutting_down);
        if tell && self.connections.is_winding_down() {
            self.connection.stop(now);
        }
        let polled = if self.is_done { Poll::Pending } else { machinery(context, tell) };
        self.is_done |= polled.is_ready();
        // If the machinery failed, this is the last chance to send its last message.
        match (polled, self.connection.poll_flush(context)) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Some(End::Closed),
            (_, Poll::Ready(Ok(()))) if self.is_done => Some(End::Done),
            (_, Poll::Ready(Ok(())) | Poll::Pending) => None,
        }
    }

    /// Resets the timer if it would fire too late. A timer that fires too early costs one check, which is
    /// cheaper than a reset.
    fn set_timer(&mut self, now: Moment, wanted: Moment, context: &mut Context<'_>) {
        if now < self.check_at && wanted >= self.check_at && !self.timer.is_elapsed() {
            return;
        }
        if self.check_at == Moment::default() {
            self.connections.register(self.number, context.waker(), self.connection);
        }
        self.check_at = wanted;
        self.timer.as_mut().reset(self.connections.clock.instant(wanted).into());
        // Exempt from tokio's task budget: a poll that has used it up would leave the timer without a waker.
        if pin!(unconstrained(self.timer.as_mut())).poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}
