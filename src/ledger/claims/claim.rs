//! Implements a worker's handle on a claim.

use std::sync::Arc;

use super::{Claims, Found, NotFound, Released, Repeatable, State, records};
use crate::ledger::adoption::Settlement;
use crate::ledger::fleet::FleetClaim;
use crate::ledger::outbox::Ticket;
use crate::ledger::record::Record;
use crate::ledger::spender::{Commit, Settled, Spender};
use crate::ledger::store::RepeatRow;
use crate::types::{RequestId, WallTime};

/// The claim of the first request with an idempotency key. If it is dropped, it is released: the request may be made
/// again.
#[derive(Debug)]
pub struct Claim {
    spender: Spender,
    repeatable: Repeatable,
    /// The request, once the claim is recorded.
    hold: Option<RequestId>,
    /// The claim of the fleet, until it is recorded here.
    of_fleet: Option<FleetClaim>,
    is_decided: bool,
}

impl Claim {
    /// Finds a request with an idempotency key, or claims the key for it. `hold`: the request's id. `until`: until when a
    /// repeated request gets the same answer.
    ///
    /// # Errors
    /// [`NotFound`].
    pub async fn find(
        spender: &Spender,
        (repeatable, hold): (Repeatable, RequestId),
        (now, until): (WallTime, WallTime),
    ) -> Result<Found<Self>, NotFound> {
        let Repeatable { id, request } = repeatable;
        let wanted = RepeatRow { id, request, hold, until, answer: None };
        let (shared, readers) = (&spender.0.shared, &spender.0.readers);
        Ok(match shared.claims.find(readers, shared.desk.as_ref(), &wanted, now).await? {
            Found::First(of_fleet) => {
                let spender = spender.clone();
                Found::First(Self { spender, repeatable, hold: None, of_fleet, is_decided: false })
            }
            Found::InProgress => Found::InProgress,
            Found::Other => Found::Other,
            Found::Answered(answer) => Found::Answered(answer),
            Found::Lost => Found::Lost,
        })
    }

    /// The record of the claim for a request, which must be added together with that of its hold.
    pub(in crate::ledger) fn record(&self, id: RequestId, until: WallTime) -> Record {
        let Repeatable { id: repeat, request } = self.repeatable;
        Record::Claim { id, repeat, request, until }
    }

    /// Notes that the record was added.
    pub(in crate::ledger) fn recorded(&mut self, id: RequestId, until: WallTime) {
        self.claims().made(&self.repeatable.id, id, until);
        self.hold = Some(id);
        if let Some(mut claim) = self.of_fleet.take() {
            claim.recorded();
        }
    }

    /// Keeps the encrypted answer. It is not kept while the ledger cannot write, or too many records wait to be written.
    pub fn answer(self, sealed: Vec<u8>) -> Settled {
        match self.spender.0.shared.can_keep_answer(&self.spender.0.outbox, sealed.len()) {
            true => self.decide(sealed),
            false => self.lose(),
        }
    }

    /// Ends the claim without an answer: repeated requests are refused.
    pub fn lose(self) -> Settled {
        self.decide(Vec::new())
    }

    fn decide(mut self, sealed: Vec<u8>) -> Settled {
        self.is_decided = true;
        let id = self.repeatable.id;
        let Some(hold) = self.hold else {
            self.claims().forget(&id);
            return Settled(None);
        };
        let Some(ticket) = self.push(&records(hold, id, &sealed)) else {
            return Settled(Some(self.pass_on(hold, Some(sealed))));
        };
        self.claims().decide(&id, hold, State::of(sealed, &self.spender.0.outbox, ticket));
        self.spender.0.shared.want_fold_soon();
        Settled(Some(Commit::Own(self.spender.clone(), ticket)))
    }

    /// Adds records; `None` if the ledger was handed over.
    fn push(&self, records: &[Record]) -> Option<Ticket> {
        let ticket = self.spender.0.outbox.push_all(records)?;
        self.spender.0.shared.record_added();
        Some(ticket)
    }

    fn pass_on(&self, hold: RequestId, answer: Option<Vec<u8>>) -> Commit {
        let settlement = Settlement::Claim(self.repeatable.id, answer);
        Commit::Successor(self.spender.0.shared.successor.pass_on(hold, settlement))
    }

    fn claims(&self) -> &Claims {
        &self.spender.0.shared.claims
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let id = self.repeatable.id;
        if self.is_decided {
            return;
        }
        let Some(hold) = self.hold else { return self.claims().forget(&id) };
        let outbox = Arc::clone(&self.spender.0.outbox);
        match self.push(&[Record::Unclaim { id: hold, repeat: id }]) {
            Some(ticket) => {
                self.claims().decide(&id, hold, State::Released(Released { hold, outbox, ticket }));
                self.spender.0.shared.want_fold_soon();
            }
            None => drop(self.pass_on(hold, None)),
        }
    }
}
