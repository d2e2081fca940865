//! Decides what a request is charged once its response has ended, and keeps the response for repeats of the request.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};

use super::body_price::ChargeSource;
use crate::gateway::request::access_log::AccessRecord;
use crate::gateway::request::permit::{Funds, InFlight};
use crate::gateway::request::repeats::keeping::Keeping;
use crate::gateway::request::services::Services;
use crate::ledger::outbox::NotDurable;
use crate::ledger::record::{ExternalId, Kept};
use crate::ledger::{Hold, JobSlot, Settled};
use crate::policy::price::{Charged, End, Note, Verdict};
use crate::types::{Credits, Moment, StatusClass};
use crate::upstream::{ResponseFault, UpstreamBody};

/// Longest time that a response waits for its charge while the ledger cannot write. Then the response is aborted:
/// a refusal would claim that the request cost nothing.
const MAX_COMMIT_WAIT: Duration = Duration::from_secs(10);
/// How often a failed commit is checked again, since the ledger retries it.
const COMMIT_CHECK_EVERY: Duration = Duration::from_millis(50);

/// Waits until a charge is on disk, at most for [`MAX_COMMIT_WAIT`].
pub(super) type Commit = Pin<Box<dyn Future<Output = Result<(), NotDurable>>>>;

/// What is due for a forwarded request.
pub(super) struct Due {
    pub(super) funds: Funds,
    pub(super) charge: ChargeSource,
    /// The outcome of the request, as far as it is known from the response head.
    pub(super) outcome: StatusClass,
    /// Keeps the response for repeats of the request.
    pub(super) keeping: Option<Box<Keeping>>,
}

impl Due {
    /// Reads a frame of the body.
    pub(super) fn read(&mut self, frame: &Frame<Bytes>) {
        if let ChargeSource::Body(price) = &mut self.charge {
            price.read(frame);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.read(frame);
        }
    }

    /// Polls the body for a frame, and reads it.
    ///
    /// # Errors
    /// As the upstream's body, and after the longest silence that a charge in the body allows.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut UpstreamBody,
        now: Moment,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        let frame = match (&mut self.charge, &mut self.keeping) {
            (ChargeSource::Body(price), _) => ready!(price.poll_frame(body, now, context)),
            (ChargeSource::Head(_), Some(keeping)) => ready!(keeping.poll_frame(body, now, context)),
            (ChargeSource::Head(_), None) => return Pin::new(body).poll_frame(context),
        };
        if let (Some(Ok(frame)), Some(keeping)) = (&frame, &mut self.keeping) {
            keeping.read(frame);
        }
        Poll::Ready(frame)
    }

    /// True if nothing that follows can change the charge, or is kept.
    pub(super) fn is_decided(&self) -> bool {
        let is_charge_decided = match &self.charge {
            ChargeSource::Head(_) => true,
            ChargeSource::Body(price) => price.is_decided(),
        };
        is_charge_decided && self.keeping.as_ref().is_none_or(|keeping| !keeping.wants_more())
    }

    /// True if nothing bounds the length of what must be read.
    pub(super) fn may_be_endless(&self) -> bool {
        self.keeping.is_some() || matches!(&self.charge, ChargeSource::Body(price) if price.is_stream())
    }

    /// Settles a charge that the head names, if the rest of the response is kept. What costs nothing is not kept.
    pub(super) fn settle_head(&mut self, request: &InFlight) {
        let (ChargeSource::Head(charged), Some(_)) = (&self.charge, &self.keeping) else { return };
        self.funds = match std::mem::replace(&mut self.funds, Funds::Shadow) {
            Funds::Hold(hold) => {
                note_charge(request, charged);
                Funds::Settled(hold.settle(charged.amount, self.outcome))
            }
            other => other,
        };
        if charged.amount.is_zero() {
            self.keeping = None;
        }
    }

    /// Settles with the charge as far as it is known. Returns the commit to wait for before the last byte is sent.
    pub(super) fn settle(self, request: &InFlight, end: End) -> Option<Commit> {
        let Self { funds, charge, mut outcome, mut keeping } = self;
        let mut known = None;
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
                known = Some(charged.amount);
                hold.settle(charged.amount, outcome)
            }
            (Funds::Settled(settled), Verdict::Charge(charged)) => {
                known = Some(charged.amount);
                settled
            }
            (Funds::Hold(hold), Verdict::Open(id)) => {
                let slot =
                    keeping.as_mut().and_then(|keeping| keeping.take_job()).or_else(|| request.take_job());
                keep(request, hold, &id, outcome, slot)
            }
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
            (Funds::Hold(_) | Funds::Settled(_) | Funds::Job(_) | Funds::Shadow, _) => return None,
        };
        match keeping.and_then(|keeping| keeping.finish(end, known)) {
            None => settled.must_wait().then(|| Box::pin(charge_committed(settled)) as Commit),
            Some(answered) => Some(Box::pin(async move {
                charge_committed(settled).await?;
                charge_committed(answered).await
            })),
        }
    }
}

/// Keeps a hold for the job that its request opened. If the id cannot be kept, the hold is charged: nothing could settle it.
fn keep(request: &InFlight, hold: Hold, id: &str, outcome: StatusClass, slot: Option<JobSlot>) -> Settled {
    let opens = request.record.route().and_then(|route| {
        let opens = route.price.opens.as_ref()?;
        Some((opens, ExternalId::of(&route.upstream.name, id)?))
    });
    let Some((opens, external_id)) = opens else {
        let charged = Charged { amount: hold.amount(), note: Note::Unreadable };
        note_charge(request, &charged);
        return hold.settle(charged.amount, outcome);
    };
    let deadline = request.services.connections.clock.wall().plus(opens.deadline);
    let charge_at_deadline = if opens.charges_at_deadline { hold.amount() } else { Credits::ZERO };
    hold.keep(Kept { external_id, deadline, charge_at_deadline }, slot)
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
