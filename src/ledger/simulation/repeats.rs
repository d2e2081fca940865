//! Simulates clients that repeat requests with an idempotency key, through crashes: each is forwarded once, and its answer
//! is never another.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fastrand::Rng;

use super::disk::Disk;
use super::judge::{Known, answer_of};
use crate::ledger::caps::KeyCaps;
use crate::ledger::claims::{Claim, Found, NotFound, Repeatable};
use crate::ledger::outbox::NotDurable;
use crate::ledger::purse::Purse;
use crate::ledger::spender::{Hold, HoldRequest, Settled, Spender};
use crate::types::{Credits, KeyHash, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// Most attempts in flight.
const MANY: usize = 6;
/// Number of idempotency keys at a time. Each is left after some attempts, for a new one.
const KEYS: u64 = 2;
/// Number of attempts with a key.
const ATTEMPTS: u64 = 60;

type Waiting<T> = Pin<Box<dyn Future<Output = T>>>;

enum Stage {
    Finding(Waiting<Result<Found<Claim>, NotFound>>),
    Recording(Waiting<(Hold, Claim, Result<(), NotDurable>)>),
    Forwarded(Hold, Box<Claim>),
    Ended(Settled),
}

struct Attempt {
    key: u64,
    id: RequestId,
    spender: Spender,
    stage: Stage,
}

/// The attempts in flight.
#[derive(Default)]
pub(super) struct Attempts {
    list: Vec<Attempt>,
    made: u64,
}

/// What an attempt pays.
const PRICE: Credits = Credits::from_millionths(3);

impl Attempts {
    /// Runs a random step of one attempt, or makes one. Returns the change of what the account can spend.
    pub(super) fn step(
        &mut self,
        random: &mut Rng,
        disk: &Disk,
        purse: &Arc<Purse>,
        spender: &Spender,
        id: RequestId,
    ) -> i64 {
        if self.list.len() < MANY && random.bool() {
            self.made += 1;
            let key = u64::try_from(id.0).expect("few requests") / ATTEMPTS * KEYS + random.u64(..KEYS);
            let repeatable = Repeatable { id: KeyHash::of(&key.to_le_bytes()), request: KeyHash::of(b"r") };
            let spender = spender.clone();
            let finder = spender.clone();
            let find = async move {
                Claim::find(&finder, (repeatable, id), (WallTime(0), WallTime(i64::MAX))).await
            };
            self.list.push(Attempt { key, id, spender, stage: Stage::Finding(Box::pin(find)) });
            return 0;
        }
        if self.list.is_empty() {
            return 0;
        }
        let at = random.usize(..self.list.len());
        let attempt = self.list.swap_remove(at);
        let (stage, change) =
            go_on(attempt.stage, (attempt.key, attempt.id), random, disk, purse, &attempt.spender);
        self.list.extend(stage.map(|stage| Attempt { stage, ..attempt }));
        change
    }

    /// Ends all attempts, as a clean stop does. Returns the credits that this releases.
    pub(super) fn stop(&mut self, disk: &Disk) -> i64 {
        let mut released = 0;
        for attempt in self.list.drain(..) {
            if matches!(attempt.stage, Stage::Forwarded(..)) {
                disk.look(|_, durable| durable.repeats.release(attempt.key));
            }
            if matches!(attempt.stage, Stage::Recording(_) | Stage::Forwarded(..)) {
                released += PRICE.millionths();
            }
        }
        released
    }
}

fn ready<T>(future: &mut Waiting<T>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn go_on(
    stage: Stage,
    (key, id): (u64, RequestId),
    random: &mut Rng,
    disk: &Disk,
    purse: &Arc<Purse>,
    spender: &Spender,
) -> (Option<Stage>, i64) {
    let known = |judge: &mut dyn FnMut(&mut Known)| disk.look(|_, durable| judge(&mut durable.repeats));
    match stage {
        Stage::Finding(mut find) => match ready(&mut find) {
            None => (Some(Stage::Finding(find)), 0),
            Some(Ok(Found::First(mut claim))) => {
                known(&mut |known| known.is_first(key));
                let wanted = HoldRequest {
                    purse,
                    caps: &KeyCaps::NONE,
                    key: KeyNum(1),
                    route: RouteNum(1),
                    amount: PRICE,
                    id,
                    claim: Some((&mut claim, WallTime(i64::MAX))),
                };
                let Ok(hold) = spender.hold_as(wanted) else { return (None, 0) };
                let record = async move {
                    let recorded = hold.committed().await;
                    (hold, claim, recorded)
                };
                (Some(Stage::Recording(Box::pin(record))), -PRICE.millionths())
            }
            Some(Ok(Found::Answered(answer))) => {
                known(&mut |known| {
                    known.see(key, &answer);
                    known.replayed += 1;
                });
                (None, 0)
            }
            Some(Ok(Found::Lost)) => {
                known(&mut |known| known.lose(key));
                (None, 0)
            }
            Some(Ok(Found::InProgress) | Err(_)) => (None, 0),
            Some(Ok(Found::Other)) => panic!("all requests are the same"),
        },
        // The client is gone, or has waited too long.
        Stage::Recording(_) if random.u32(..6) == 0 => (None, PRICE.millionths()),
        Stage::Recording(mut record) => match ready(&mut record) {
            None => (Some(Stage::Recording(record)), 0),
            Some((.., Err(_))) => (None, PRICE.millionths()), // both are released
            Some((hold, claim, Ok(()))) => {
                known(&mut |known| known.forward(key, id));
                (Some(Stage::Forwarded(hold, Box::new(claim))), 0)
            }
        },
        // The response costs nothing and is not kept: the request may be made again.
        Stage::Forwarded(..) if random.u32(..6) == 0 => {
            known(&mut |known| known.release(key));
            (None, PRICE.millionths())
        }
        Stage::Forwarded(hold, claim) => {
            drop(hold.settle(PRICE, StatusClass::Success));
            let inner = &spender.0;
            let can_keep = inner.shared.can_keep_answer(&inner.outbox, answer_of(id).len());
            if random.u32(..6) == 0 || !can_keep {
                drop(claim.lose());
                return (None, 0);
            }
            (Some(Stage::Ended(claim.answer(answer_of(id)))), 0)
        }
        Stage::Ended(settled) => {
            let committed = pin!(settled.committed()).poll(&mut Context::from_waker(Waker::noop()));
            match committed {
                // The client has the last byte.
                Poll::Ready(Ok(())) => known(&mut |known| known.see(key, &answer_of(id))),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => return (Some(Stage::Ended(settled)), 0),
            }
            (None, 0)
        }
    }
}
