//! Implements a worker's handle on a claim.

use super::{Claims, Found, NotFound, Repeatable, State, records};
use crate::ledger::adoption::Settlement;
use crate::ledger::outbox::{NotDurable, Ticket};
use crate::ledger::record::Record;
use crate::ledger::spender::{Commit, Settled, Spender};
use crate::types::{RequestId, WallTime};

/// The claim of the first request with an idempotency key. If it is dropped, it is released: the request may be made
/// again.
#[derive(Debug)]
pub struct Claim {
    spender: Spender,
    repeatable: Repeatable,
    /// The request, once the claim is recorded.
    hold: Option<RequestId>,
    is_decided: bool,
}

impl Claim {
    /// Finds a request with an idempotency key, or claims the key for it.
    ///
    /// # Errors
    /// [`NotFound`].
    pub async fn find(
        spender: &Spender,
        repeatable: Repeatable,
        now: WallTime,
    ) -> Result<Found<Self>, NotFound> {
        Ok(match spender.0.shared.claims.find(&spender.0.readers, repeatable, now).await? {
            Found::First(()) => {
                Found::First(Self { spender: spender.clone(), repeatable, hold: None, is_decided: false })
            }
            Found::InProgress => Found::InProgress,
            Found::Other => Found::Other,
            Found::Answered(answer) => Found::Answered(answer),
            Found::Lost => Found::Lost,
        })
    }

    /// Records the claim for a request whose hold was recorded before. Both are on disk when this returns.
    ///
    /// # Errors
    /// [`NotDurable`] if they cannot be written. The caller must then release the hold and the claim.
    pub async fn record(&mut self, hold: RequestId, until: WallTime) -> Result<(), NotDurable> {
        let Repeatable { id: repeat, request } = self.repeatable;
        self.claims().made(&repeat, hold, until);
        self.hold = Some(hold);
        let ticket = self.push(&[Record::Claim { id: hold, repeat, request, until }]);
        self.spender.0.waiters.durable(ticket.ok_or(NotDurable)?).await
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
        match self.hold {
            _ if self.is_decided => {}
            None => self.claims().forget(&id),
            Some(hold) => {
                self.claims().decide(&id, hold, State::Released);
                if self.push(&[Record::Unclaim { id: hold, repeat: id }]).is_none() {
                    drop(self.pass_on(hold, None));
                }
            }
        }
    }
}
