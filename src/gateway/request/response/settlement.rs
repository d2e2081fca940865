//! Settles the charge of a forwarded request, which is tracked from the upstream's response head on.
//!
//! This keeps promise 5: a client that disconnects does not change the charge. A [`Settlement`] that is dropped
//! unsettled continues in its own task, reads the response as far as the charge depends on it, and settles.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::body_price::ChargeSource;
use crate::gateway::connection::DetachedRequest;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::permit::{Funds, Held, InFlight, Permit};
use crate::gateway::request::services::Services;
use crate::ledger::outbox::NotDurable;
use crate::ledger::record::{ExternalId, Kept};
use crate::ledger::{Hold, Settled};
use crate::policy::price::{Charged, End, Note, Verdict};
use crate::snapshot::OnDisconnect;
use crate::types::{Credits, StatusClass, WallTime};
use crate::upstream::{ResponseFault, UpstreamBody, UpstreamResponse};

/// Longest time that a response waits for its charge while the ledger cannot write. Then the response is aborted:
/// a refusal would claim that the request cost nothing.
const MAX_COMMIT_WAIT: Duration = Duration::from_secs(10);
/// Longest time for which a stream is read whose client is gone. Then what was seen of it is charged.
const MAX_READ_ALONE: Duration = Duration::from_secs(15 * 60);
/// How often a failed commit is checked again, since the ledger retries it.
const COMMIT_CHECK_EVERY: Duration = Duration::from_millis(50);

/// Waits until a charge is on disk, at most for [`MAX_COMMIT_WAIT`].
pub(super) type Commit = Pin<Box<dyn Future<Output = Result<(), NotDurable>>>>;

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

struct Due {
    funds: Funds,
    charge: ChargeSource,
    /// The outcome of the request, as far as it is known from the response head.
    outcome: StatusClass,
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
            Funds::Hold(_) | Funds::Shadow => true,
        };
        let due = held.filter(may_settle).map(|Held { funds, price, is_head }| {
            let (timeout, now) = (request.body_timeout(), request.services.now());
            let (charge, outcome) =
                ChargeSource::of_response(&price, is_head, (status, &headers), timeout, now);
            Due { funds, charge, outcome }
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
        if let Some(Due { charge: ChargeSource::Body(price), .. }) = &mut self.due {
            price.read(&frame);
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
            (Some(body), Some(Due { charge: ChargeSource::Body(price), .. })) => {
                price.poll_frame(body, self.request.services.now(), context)
            }
            (Some(body), _) => Pin::new(body).poll_frame(context),
        }
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
        let end = match &self.due {
            Some(Due { charge: ChargeSource::Body(price), .. }) if price.is_stream() => {
                let read = tokio::time::timeout(MAX_READ_ALONE, self.read_for_charge()).await;
                read.unwrap_or(End::Abandoned)
            }
            _ => self.read_for_charge().await,
        };
        drop(self.settle(end)); // no response waits for the commit
    }

    /// Reads the body as far as the charge depends on it.
    async fn read_for_charge(&mut self) -> End {
        while let (Some(body), Some(Due { charge: ChargeSource::Body(price), .. })) =
            (&mut self.upstream, &mut self.due)
        {
            if price.is_decided() {
                return End::Complete;
            }
            let clock = &self.request.services.connections.clock;
            match std::future::poll_fn(|context| price.poll_frame(body, clock.now(), context)).await {
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
        let abandons = match self.due.as_ref().map(|due| &due.funds) {
            Some(Funds::Hold(_)) => self.request.on_disconnect() == OnDisconnect::Abandon,
            Some(Funds::Job(_)) => false, // the client may have what it paid for
            Some(Funds::Shadow) | None => return,
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

impl Due {
    fn settle(self, request: &InFlight, end: End) -> Option<Commit> {
        let Self { funds, charge, mut outcome } = self;
        let verdict = match charge {
            ChargeSource::Head(charged) => Verdict::Charge(charged),
            ChargeSource::Body(price) => {
                outcome = price.outcome().unwrap_or(outcome);
                price.verdict(end, request.services.connections.clock.now())
            }
        };
        let settled = match (funds, verdict) {
            (Funds::Hold(hold), Verdict::Charge(charged)) => {
                note_charge(request, &charged);
                hold.settle(charged.amount, outcome)
            }
            (Funds::Hold(hold), Verdict::Open(id)) => keep(request, hold, &id, outcome),
            (Funds::Job(job), Verdict::Charge(charged)) => {
                let (_, settled) = request.services.spender.settle_job(&job, charged.amount, outcome)?;
                note_charge(request, &charged);
                settled
            }
            (Funds::Shadow, Verdict::Charge(charged)) => {
                request.record.note_shadow_charge(charged.amount);
                return None;
            }
            (Funds::Job(_), Verdict::Unreadable) => {
                count_note(&request.services, &request.record, Note::Unreadable);
                return None;
            }
            (Funds::Hold(_) | Funds::Job(_) | Funds::Shadow, _) => return None,
        };
        settled.must_wait().then(|| Box::pin(charge_committed(settled)) as Commit)
    }
}

/// Keeps a hold for the job that its request opened. If the id cannot be kept, the hold is charged: nothing could settle it.
fn keep(request: &InFlight, hold: Hold, id: &str, outcome: StatusClass) -> Settled {
    let opens = request.record.route().and_then(|route| {
        let opens = route.price.opens.as_ref()?;
        Some((opens, ExternalId::of(&route.upstream.name, id)?))
    });
    let Some((opens, external_id)) = opens else {
        let charged = Charged { amount: hold.amount(), note: Note::Unreadable };
        note_charge(request, &charged);
        return hold.settle(charged.amount, outcome);
    };
    let millis = i64::try_from(opens.deadline.as_millis()).unwrap_or(i64::MAX);
    let deadline = WallTime(request.services.connections.clock.wall().0.saturating_add(millis));
    let charge_at_deadline = if opens.charges_at_deadline { hold.amount() } else { Credits::ZERO };
    hold.keep(Kept { external_id, deadline, charge_at_deadline }, request.take_job())
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

/// Waits until a charge is on disk. If its commit fails, the charge remains valid, and the ledger tries again.
async fn charge_committed(settled: Settled) -> Result<(), NotDurable> {
    let (mut committed, mut waited) = (settled.committed().await, Duration::ZERO);
    while committed.is_err() && waited < MAX_COMMIT_WAIT {
        tokio::time::sleep(COMMIT_CHECK_EVERY).await;
        waited += COMMIT_CHECK_EVERY;
        committed = settled.committed().await;
    }
    committed
}

/// Notes a charge, and counts those that an operator should look at.
fn note_charge(request: &InFlight, charged: &Charged) {
    request.record.set_charge(charged.amount);
    count_note(&request.services, &request.record, charged.note);
}

/// Counts a charge that an operator should look at.
pub(in crate::gateway::request) fn count_note(services: &Services, record: &AccessRecord, note: Note) {
    let counter = match note {
        Note::Plain => return,
        Note::Capped => &services.stats.capped,
        Note::Unreadable => &services.stats.unreadable,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    record.count_capped();
}
