//! Keeps requests with an idempotency key in memory.

use std::collections::BTreeMap;

use super::data::Data;
use crate::ledger::ClaimChange;
use crate::ledger::store::RepeatRow;
use crate::types::{KeyHash, WallTime};

pub(super) type Rows = BTreeMap<KeyHash, RepeatRow>;

impl Data {
    /// Writes what happened to claims.
    pub(super) fn change_claims(&mut self, changes: &[(KeyHash, ClaimChange)]) {
        for (id, change) in changes {
            match change {
                ClaimChange::Made(row) => drop(self.repeats.insert(*id, row.clone())),
                ClaimChange::Answered(hold, answer) => {
                    if let Some(row) = self.repeats.get_mut(id).filter(|row| row.hold == *hold) {
                        row.answer = Some(answer.clone());
                    }
                }
                ClaimChange::Released(hold) => {
                    self.repeats.retain(|other, row| other != id || row.hold != *hold)
                }
            }
        }
    }

    /// Deletes requests whose time is over, at most `most`. True if there may be more.
    pub(super) fn prune_repeats(&mut self, now: WallTime, most: usize) -> bool {
        let mut over: Vec<&RepeatRow> = self.repeats.values().filter(|row| row.until <= now).collect();
        over.sort_by_key(|row| row.until);
        let ids: Vec<KeyHash> = over.into_iter().take(most).map(|row| row.id).collect();
        ids.iter().for_each(|id| drop(self.repeats.remove(id)));
        ids.len() == most
    }
}
