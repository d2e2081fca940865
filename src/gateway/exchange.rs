//! A request at the upstream: polled by the request's own task, and finished without it where the
//! client has gone. What it costs is decided by the upstream's answer either way.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use super::Gate;
use super::body::{Inbound, Progress};
use super::meter::Metered;
use super::permit::{Owed, Permit};
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Route;
use crate::upstream::{Lease, SendError};

/// The upstream's answer and its connection.
pub(super) type Answer = (Response<Incoming>, Lease<Inbound>);

type Sending = Pin<Box<dyn Future<Output = Result<Answer, Refusal>>>>;

/// A request on its way. Ends with the answer's head and what is owed for it.
pub(super) struct Exchange(Option<(Sending, Permit)>);

impl Exchange {
    /// Sends a request.
    pub(super) fn begin(
        route: &Arc<Route>,
        request: Request<Inbound>,
        progress: Rc<Progress>,
        permit: Permit,
    ) -> Self {
        let (gate, route) = (Rc::clone(permit.gate()), Arc::clone(route));
        Self(Some((Box::pin(send(gate, route, request, progress)), permit)))
    }
}

impl Future for Exchange {
    type Output = Result<(Answer, Owed), Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((sending, _)) = &mut self.0 else { return Poll::Pending };
        let result = ready!(sending.as_mut().poll(context));
        let owed = self.0.take().map(|(_, permit)| permit.redeem());
        Poll::Ready(match (result, owed) {
            (Ok(answer), Some(owed)) => Ok((answer, owed)),
            (Err(refusal), _) => Err(refusal), // what was held is released with it
            (Ok(_), None) => Err(Reason::Overloaded.into()),
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some((sending, permit)) = self.0.take() else { return };
        let gate = Rc::clone(permit.gate());
        gate.stats.abandoned.fetch_add(1, Ordering::Relaxed);
        // Bounded by the response timeout, and by what `Metered` reads on.
        gate.outlive(async move {
            if let Ok((response, lease)) = sending.await {
                permit.record().upstream(response.status());
                drop(Metered::new(response, Some(lease), permit.redeem())); // settles
            }
        });
    }
}

/// Waits for the answer's head, for as long as the route allows after the last of the body. While
/// the client is awaited its own deadline counts: see [`super::connection::Connection::next_look`].
async fn send(
    gate: Rc<Gate>,
    route: Arc<Route>,
    request: Request<Inbound>,
    progress: Rc<Progress>,
) -> Result<Answer, Refusal> {
    let mut sending = std::pin::pin!(gate.pool.send(&route.upstream, request));
    loop {
        let waited = match progress.waits.get() {
            true => Duration::ZERO,
            false => gate.clock.now().since(progress.last.get()),
        };
        let left = route.response_timeout.checked_sub(waited).filter(|left| !left.is_zero());
        let Some(left) = left else { return Err(Reason::UpstreamTimeout.into()) };
        if let Ok(result) = tokio::time::timeout(left, &mut sending).await {
            return result.map_err(|error| refusal(error, &progress));
        }
    }
}

fn refusal(error: SendError, progress: &Progress) -> Refusal {
    if progress.too_large.get() {
        return Reason::BodyTooLarge.into();
    }
    if progress.cut.get() {
        return Refusal::because(Reason::BadRequest, "The request's body ended early.");
    }
    match error {
        SendError::Unreachable | SendError::Broken => Reason::UpstreamUnreachable.into(),
        SendError::Overloaded => Reason::Overloaded.into(),
    }
}
