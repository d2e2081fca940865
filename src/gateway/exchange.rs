//! A request at the upstream: polled by the request's own task, and finished without it where the
//! client has gone. What it costs is decided by the upstream's answer either way.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use super::body::{Inbound, Progress};
use super::meter::Metered;
use super::permit::{Owed, Permit};
use super::stream::Lingering;
use super::websocket::Opening;
use crate::policy::outcome::Outcome;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::{Route, View};
use crate::upstream::{Answer, Asks, Outgoing, SendError};

type Sending = Pin<Box<dyn Future<Output = Result<Answer, SendError>>>>;

/// A request on its way. Ends with the answer's head and what is owed for it.
///
/// The head may take as long as the route allows after the last of the body. No timer is set for
/// that: the connection's own looks in when the time is up, see
/// [`super::connection::Connection::look`].
pub(super) struct Exchange(Option<Pending>);

struct Pending {
    sending: Sending,
    /// Where there is a body.
    progress: Option<Rc<Progress>>,
    permit: Permit,
}

impl Exchange {
    /// Sends a request. A response that is none to the upgrade it asks for costs nothing, whoever still
    /// waits for it.
    pub(super) fn begin(
        view: &View,
        route: &Route,
        outgoing: Outgoing<Inbound>,
        asks: Asks,
        permit: Permit,
        opening: Opening,
    ) -> Self {
        let progress = outgoing.body.as_ref().map(Inbound::progress);
        let gate = Rc::clone(permit.gate());
        permit.waits().awaits_answer(gate.beat.now(), route.response_timeout);
        let (view, route) = (view.clone(), route.index);
        let sending = Box::pin(async move {
            let upstream = &view.routes[route].upstream;
            let answer = gate.pool.send(upstream, outgoing, asks, gate.beat.now()).await?;
            if !opening.is_answered_by(answer.status, &answer.headers) {
                return Err(SendError::Broken);
            }
            Ok(answer)
        });
        Self(Some(Pending { sending, progress, permit }))
    }
}

impl Future for Exchange {
    type Output = Result<(Answer, Owed), Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pending) = &mut self.0 else { return Poll::Pending };
        let result = match pending.sending.as_mut().poll(context) {
            Poll::Ready(result) => result.map_err(|error| refusal(error, pending.progress.as_deref())),
            Poll::Pending if pending.permit.is_overdue() => Err(Reason::UpstreamTimeout.into()),
            Poll::Pending => return Poll::Pending,
        };
        let permit = self.0.take().map(|pending| pending.permit);
        if let Some(permit) = &permit {
            permit.waits().has_answer();
        }
        Poll::Ready(match (result, permit) {
            (Ok(answer), Some(permit)) => Ok((answer, permit.redeem())),
            (Err(refusal), _) => Err(refusal), // what was held is released with the permit
            (Ok(_), None) => Err(Reason::Overloaded.into()),
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(Pending { sending, permit, .. }) = self.0.take() else { return };
        let gate = Rc::clone(permit.gate());
        gate.stats.abandoned.fetch_add(1, Ordering::Relaxed);
        if permit.waits().has_lost_its_key() {
            permit.record().ended(Outcome::KeyEnded);
        }
        if !permit.is_paid() {
            return; // nothing to settle: what the client gave up need not go on upstream
        }
        // Bounded by the response timeout, by what `Metered` reads on, and in number.
        let lingering = Lingering::new(permit.stream());
        gate.outlive(async move {
            if let Some(answer) = finish(sending, &permit).await {
                permit.record().upstream(answer.status);
                drop(Metered::new(answer, permit.redeem())); // settles
            }
            drop(lingering);
        });
    }
}

/// Waits for the answer's head when no connection looks in any more.
async fn finish(mut sending: Sending, permit: &Permit) -> Option<Answer> {
    let clock = &permit.gate().clock;
    loop {
        let left = permit.waits().answer_left(clock.now()).unwrap_or(Duration::ZERO);
        if left.is_zero() {
            return None; // also where the rest of a body was awaited, which never comes now
        }
        if let Ok(result) = tokio::time::timeout(left, &mut sending).await {
            return result.ok();
        }
    }
}

fn refusal(error: SendError, progress: Option<&Progress>) -> Refusal {
    if progress.is_some_and(|progress| progress.too_large.get()) {
        return Reason::BodyTooLarge.into();
    }
    if progress.is_some_and(|progress| progress.cut.get()) {
        return Refusal::because(Reason::BadRequest, "The request's body ended early.");
    }
    match error {
        SendError::Unreachable | SendError::Broken => Reason::UpstreamUnreachable.into(),
        SendError::Overloaded => Reason::Overloaded.into(),
    }
}
