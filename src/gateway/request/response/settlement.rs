//! Settles the charge of a forwarded request, which is tracked from the upstream's response head on.
//!
//! This keeps promise 5: a client that disconnects does not change the charge. A [`Settlement`] that is dropped
//! unsettled continues in its own task, reads the response as far as the charge depends on it, and settles.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::body_price::ChargeSource;
use super::due::{Commit, Due};
use crate::gateway::connection::DetachedRequest;
use crate::gateway::request::permit::{Funds, Held, InFlight, Permit};
use crate::gateway::request::repeats::keeping::Keeping;
use crate::gateway::request::services::Services;
use crate::ledger::outbox::NotDurable;
use crate::policy::price::End;
use crate::snapshot::OnDisconnect;
use crate::types::Credits;
use crate::upstream::{ResponseFault, UpstreamBody, UpstreamResponse};

/// Longest time for which a stream is read whose client is gone. Then what was seen of it is charged.
const MAX_READ_ALONE: Duration = Duration::from_secs(15 * 60);

/// The charge of a forwarded request until it is settled, and the rest of the upstream's response.
pub(in crate::gateway::request) struct Settlement {
    request: Rc<InFlight>,
    /// `None` once it is settled, and on a free route.
    due: Option<Due>,
    /// The response body; `None` once it was read to its end, or became a tunnel.
    upstream: Option<UpstreamBody>,
    /// The client disconnected.
    is_detached: bool,
}

impl Settlement {
    /// Takes over a response and the permit of its request. Returns the response's head too.
    pub(in crate::gateway::request) fn new(
        response: UpstreamResponse,
        permit: Permit,
    ) -> ((StatusCode, HeaderMap), Self) {
        let UpstreamResponse { status, headers, body } = response;
        let (request, held) = permit.redeem();
        request.record.set_upstream_status(status);
        let may_settle = |held: &Held| match held.funds {
            Funds::Job(_) => held.price.may_be_done(status, held.is_head),
            Funds::Hold(_) | Funds::Settled(_) | Funds::Shadow => true,
        };
        let due = held.filter(may_settle).map(|Held { funds, price, is_head, claimed }| {
            let (timeout, now) = (request.body_timeout(), request.services.now());
            let head = (status, &headers);
            let (charge, outcome) = ChargeSource::of_response(&price, is_head, head, timeout, now);
            let keeping =
                claimed.map(|it| Box::new(Keeping::new(*it, &request.services, head, is_head, timeout)));
            Due { funds, charge, outcome, keeping }
        });
        let settlement = Self { request, due, upstream: Some(body), is_detached: false };
        ((status, headers), settlement)
    }

    /// The request in flight.
    pub(in crate::gateway::request) fn request(&self) -> &Rc<InFlight> {
        &self.request
    }

    /// The charge, if the head names it; zero on a free route.
    pub(super) fn charge_at_head(&self) -> Option<Credits> {
        match &self.due {
            None => Some(Credits::ZERO),
            Some(Due { funds: Funds::Shadow, charge: ChargeSource::Head(_), .. }) => Some(Credits::ZERO),
            Some(Due { charge: ChargeSource::Head(charged), .. }) => Some(charged.amount),
            Some(Due { charge: ChargeSource::Body(_), .. }) => None,
        }
    }

    /// Waits until the hold is on disk, unless the response costs nothing.
    ///
    /// # Errors
    /// [`NotDurable`] if the hold cannot be written: release it, and refuse the request.
    pub(super) async fn hold_committed(&self) -> Result<(), NotDurable> {
        match &self.due {
            Some(Due { funds: Funds::Hold(hold), .. })
                if self.charge_at_head().is_none_or(|charge| !charge.is_zero()) =>
            {
                hold.committed().await
            }
            _ => Ok(()),
        }
    }

    /// Releases the hold: the request costs nothing.
    pub(super) fn release(&mut self) {
        self.due = None;
    }

    /// Settles a charge that the head names, if the rest of the response is kept.
    pub(super) fn settle_head(&mut self) -> &Self {
        if let Some(due) = &mut self.due {
            due.settle_head(&self.request);
        }
        self
    }

    /// Settles with the charge as far as it is known when the response ends. Returns the commit to wait for before the
    /// last byte is sent, if the charge is below the hold.
    pub(super) fn settle(&mut self, end: End) -> Option<Commit> {
        self.due.take()?.settle(&self.request, end)
    }

    /// Takes the charge of a tunnel, if it depends on what passes through it, once the hold is on disk.
    ///
    /// # Errors
    /// [`NotDurable`] if the hold cannot be written: refuse the request, which costs nothing.
    pub(in crate::gateway::request) async fn take_tunnel_charge(
        &mut self,
    ) -> Result<Option<TunnelCharge>, NotDurable> {
        if self.charge_at_head().is_some() {
            return Ok(None);
        }
        if let Err(error) = self.hold_committed().await {
            self.release();
            return Err(error);
        }
        Ok(self.due.take().map(|due| TunnelCharge { request: Rc::clone(&self.request), due: Some(due) }))
    }

    /// Takes the whole body, if its length is known and it arrived with the head. The upstream's connection then
    /// serves other requests while this response waits for the disk, so that fewer connections are needed.
    pub(super) fn take_arrived_body(&mut self) -> Option<Frame<Bytes>> {
        let data = self.upstream.as_mut().and_then(UpstreamBody::take_whole)?;
        let frame = Frame::data(data);
        if let Some(due) = &mut self.due {
            due.read(&frame);
        }
        self.give_back_connection();
        Some(frame)
    }

    /// Takes the rest of the body, which no charge depends on.
    pub(in crate::gateway::request) fn take_upstream(&mut self) -> Option<UpstreamBody> {
        self.upstream.take()
    }

    /// Polls the body for a frame, and reads it for the charge.
    ///
    /// # Errors
    /// As the upstream's body, and after the longest silence that a charge in the body allows.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match (&mut self.upstream, &mut self.due) {
            (None, _) => Poll::Ready(None),
            (Some(body), Some(due)) => due.poll_frame(body, self.request.services.now(), context),
            (Some(body), None) => Pin::new(body).poll_frame(context),
        }
    }

    /// True if the body passes through this settlement, because of its charge or to be kept.
    pub(super) fn reads_body(&self) -> bool {
        self.charge_at_head().is_none() || self.due.as_ref().is_some_and(|due| due.keeping.is_some())
    }

    /// True if the body was read to its end.
    pub(super) fn is_body_read(&self) -> bool {
        self.upstream.as_ref().is_none_or(Body::is_end_stream)
    }

    /// The size of the rest of the body.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.upstream.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }

    /// Gives the upstream's connection back to the pool, if the body was read to its end; closes it otherwise.
    pub(super) fn give_back_connection(&mut self) {
        if let Some(body) = self.upstream.take() {
            give_back(&self.request.services, body);
        }
    }

    /// Settles without the client, exactly as if it were still connected: waits for the hold, then reads the body
    /// as far as the charge depends on it. Bounded by the longest silence of the body, a stream by [`MAX_READ_ALONE`] too.
    pub(in crate::gateway::request) async fn finish_without_client(mut self) {
        self.is_detached = true;
        if self.hold_committed().await.is_err() {
            return self.release(); // with its client, the request would have been refused
        }
        self.settle_head();
        let end = match &self.due {
            Some(due) if due.may_be_endless() => {
                let read = tokio::time::timeout(MAX_READ_ALONE, self.read_for_charge()).await;
                read.unwrap_or(End::Abandoned)
            }
            _ => self.read_for_charge().await,
        };
        drop(self.settle(end)); // no response waits for the commit
    }

    /// Reads the body as far as the charge depends on it, and as far as it is kept.
    async fn read_for_charge(&mut self) -> End {
        while let (Some(body), Some(due)) = (&mut self.upstream, &mut self.due) {
            if due.is_decided() {
                return End::Complete;
            }
            let clock = &self.request.services.connections.clock;
            match std::future::poll_fn(|context| due.poll_frame(body, clock.now(), context)).await {
                None => return End::Complete,
                Some(Ok(_)) => {}
                Some(Err(_)) => return End::Aborted,
            }
        }
        End::Complete
    }
}

/// Settles a request that ends early, whatever the reason is.
impl Drop for Settlement {
    fn drop(&mut self) {
        let abandons = match &self.due {
            Some(Due { keeping: Some(_), .. }) => false, // the client may repeat the request
            Some(Due { funds: Funds::Hold(_), .. }) => self.request.on_disconnect() == OnDisconnect::Abandon,
            Some(Due { funds: Funds::Job(_), .. }) => false, // the client may have what it paid for
            Some(Due { funds: Funds::Settled(_) | Funds::Shadow, .. }) | None => return,
        };
        if self.is_detached {
            // The worker ended before the rest could be read: settle with the charge as far as it is known.
            let end = if self.upstream.is_none() { End::Complete } else { End::Aborted };
            drop(self.settle(end));
            return;
        }
        if abandons {
            let end = if self.upstream.is_none() { End::Complete } else { End::Abandoned };
            drop(self.settle(end)); // the upstream's connection closes with its body
            return;
        }
        let (request, due, upstream) = (Rc::clone(&self.request), self.due.take(), self.upstream.take());
        let settlement = Self { request, due, upstream, is_detached: true };
        let detached = DetachedRequest::new(&self.request.stream);
        self.request.services.connections.spawn_detached(async move {
            settlement.finish_without_client().await;
            drop(detached);
        });
    }
}

/// The charge of a tunnel, which depends on how much the upstream sends and how long it lasts. Settled when dropped.
pub(in crate::gateway::request) struct TunnelCharge {
    request: Rc<InFlight>,
    due: Option<Due>,
}

impl TunnelCharge {
    /// Counts bytes of the upstream.
    pub(in crate::gateway::request) fn count(&mut self, bytes: u64) {
        if let Some(Due { charge: ChargeSource::Body(price), .. }) = &mut self.due {
            price.count(bytes);
        }
    }
}

impl Drop for TunnelCharge {
    fn drop(&mut self) {
        if let Some(due) = self.due.take() {
            drop(due.settle(&self.request, End::Complete)); // no response waits for the commit
        }
    }
}

/// Gives an upstream's connection back to the pool.
pub(super) fn give_back(services: &Services, body: UpstreamBody) {
    body.give_back(services.now());
}
