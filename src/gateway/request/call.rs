//! Sends a request to its upstream. The request's own task polls this call; if the client disconnects while credits are
//! held, another task continues it. In both cases the upstream's response decides what the request costs.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::permit::progress::PaymentProgress;
use super::permit::waiting_payment::{Unpaid, WaitingPayment};
use super::permit::{Payment, Permit};
use super::request_body::{BodyProgress, RequestBody};
use super::response::settlement::Settlement;
use super::upstream_request::{UpstreamPool, UpstreamRequest};
use super::websocket::ExpectedUpgrade;
use crate::gateway::connection::DetachedRequest;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::OnDisconnect;
use crate::upstream::{Cause, LocalServer, SendError, UpstreamResponse};

type Sending = Pin<Box<dyn Future<Output = Result<UpstreamResponse, SendError>>>>;

/// A call in progress. Resolves to the response, when its head has arrived, and the request's permit.
///
/// The head may take as long as the route's `response_timeout` after the end of the request body. No timer is
/// set for that: the connection's timer polls the call when the time is up.
pub(super) struct Call(Option<Pending>);

struct Pending {
    sending: Sending,
    /// `None` if the request has no body.
    body: Option<BodyProgress>,
    permit: Permit,
}

/// A call that can start as soon as it is paid for.
pub(super) struct PreparedCall {
    pub(super) pool: Rc<UpstreamPool>,
    pub(super) outgoing: Box<UpstreamRequest>,
    pub(super) expected: ExpectedUpgrade,
}

/// A call that was started, or will be once it is paid for.
pub(super) enum CallStart {
    /// Started.
    Ready(Call),
    /// It waits for its payment. If it is dropped, the request costs nothing.
    Waiting(Pin<Box<dyn Future<Output = Result<Call, Unpaid>>>>),
}

impl PreparedCall {
    /// Starts the call now, or as soon as it is paid for.
    #[inline]
    pub(super) fn start(self, payment: PaymentProgress) -> CallStart {
        match payment {
            PaymentProgress::Ready(payment) => CallStart::Ready(self.start_paid(payment)),
            PaymentProgress::Waiting(payment) => CallStart::Waiting(Box::pin(self.start_when_paid(payment))),
        }
    }

    async fn start_when_paid(mut self, payment: WaitingPayment) -> Result<Call, Unpaid> {
        let mut bytes = Bytes::new();
        if let Some(needed) = payment.needed_body
            && let Some(body) = self.outgoing.body.take()
        {
            let (body, read) = body.buffer(needed.max).await.map_err(|fault| needed.refuse(fault))?;
            (self.outgoing.body, bytes) = (Some(body), read);
        }
        let payment = payment.finish(bytes).await?;
        Ok(self.start_paid(payment))
    }

    /// Sends a request to the route that was paid for. A response that does not accept the requested upgrade costs
    /// nothing, whether or not the client still waits for it.
    #[inline]
    fn start_paid(self, payment: Payment) -> Call {
        let Self { pool, mut outgoing, expected } = self;
        let permit = Permit::new(Rc::clone(&outgoing.request), payment);
        let body = outgoing.body.as_ref().and_then(RequestBody::progress);
        let services = Rc::clone(&permit.request().services);
        let (view, route) = permit.route();
        let (view, timeout) = (view.clone(), view.routes[route].response_timeout);
        outgoing.route = route;
        permit.request().deadlines().await_response(services.now(), timeout);
        let sending = Box::pin(async move {
            let upstream = &view.routes[route].upstream;
            let record = Rc::clone(&outgoing.request.record);
            let on_server = |server: &Rc<LocalServer>| record.set_server(server);
            let response = pool.send(upstream, outgoing, services.now(), on_server).await?;
            if !expected.is_answered_by(response.status, &response.headers) {
                return Err(SendError::sent(Cause::Upgrade));
            }
            Ok(response)
        });
        Call(Some(Pending { sending, body, permit }))
    }
}

impl Future for Call {
    type Output = Result<(UpstreamResponse, Permit), Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pending) = &mut self.0 else { return Poll::Pending };
        let result = match pending.sending.as_mut().poll(context) {
            Poll::Ready(result) => result.map_err(|error| refusal(&error, pending.body.as_ref())),
            Poll::Pending if pending.is_overdue() => {
                pending.permit.request().record.note_server_failure(Cause::NoResponse);
                Err(refusal(&SendError::sent(Cause::NoResponse), None))
            }
            Poll::Pending => return Poll::Pending,
        };
        let Some(Pending { permit, .. }) = self.0.take() else { return Poll::Pending };
        permit.request().deadlines().stop_awaiting_response();
        // A permit that is dropped with a refusal releases its hold.
        Poll::Ready(result.map(|response| (response, permit)))
    }
}

impl Pending {
    /// True if the upstream took longer than its route allows.
    fn is_overdue(&self) -> bool {
        let request = self.permit.request();
        request.deadlines().response_time_left(request.services.now()).is_some_and(|left| left.is_zero())
    }

    /// Waits for the response without the client, and settles. Bounded by the response timeout.
    async fn finish_without_client(self) {
        let Self { mut sending, permit, .. } = self;
        let request = Rc::clone(permit.request());
        let clock = &request.services.connections.clock;
        loop {
            // `None` means that the rest of the request body was awaited: it cannot arrive any more.
            let Some(left) = request.deadlines().response_time_left(clock.now()) else { return };
            if left.is_zero() {
                request.record.note_server_failure(Cause::NoResponse);
                return;
            }
            match tokio::time::timeout(left, &mut sending).await {
                Ok(Ok(response)) => {
                    let (_, settlement) = Settlement::new(response, permit);
                    return settlement.finish_without_client().await;
                }
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
    }
}

/// The client disconnected before the response began. The call is cancelled, unless credits are held for it.
impl Drop for Call {
    fn drop(&mut self) {
        let Some(pending) = self.0.take() else { return };
        let request = Rc::clone(pending.permit.request());
        request.services.stats.abandoned.fetch_add(1, Ordering::Relaxed);
        let abandons = !pending.permit.is_claimed() && request.on_disconnect() == OnDisconnect::Abandon;
        if pending.permit.is_paid() && abandons {
            if request.record.has_server() {
                pending.permit.charge_hold(); // the upstream may have done its work, of which nothing was seen
            }
        } else if pending.permit.is_paid() {
            let detached = DetachedRequest::new(&request.stream);
            request.services.connections.spawn_detached(async move {
                pending.finish_without_client().await;
                drop(detached);
            });
        }
    }
}

fn refusal(error: &SendError, body: Option<&BodyProgress>) -> Refusal {
    if let Some(fault) = body.and_then(BodyProgress::fault) {
        return fault.into();
    }
    let reason = match error.cause {
        Cause::Host => return Refusal::because(Reason::BadRequest, "The request's Host is malformed."),
        Cause::Full | Cause::TooManyConnections => Reason::Overloaded,
        Cause::NoResponse => Reason::UpstreamTimeout,
        _ => Reason::UpstreamUnreachable,
    };
    Refusal { proxy_error: Some(error.proxy_error()), ..reason.into() }
}
