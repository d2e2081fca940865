//! Keeps requests with an idempotency key in memory, and what single requests were charged.

use std::collections::BTreeMap;

use crate::ledger::ClaimChange;
use crate::ledger::store::{ChargedRequest, RepeatRow};
use crate::types::{KeyHash, RequestId, WallTime};

/// What is kept of single requests.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestData {
    /// Those with an idempotency key.
    pub(super) repeats: BTreeMap<KeyHash, RepeatRow>,
    /// Since when each request is listed with its charge.
    pub(super) listed_since: Option<WallTime>,
    pub(super) charged: BTreeMap<(WallTime, RequestId), ChargedRequest>,
}

impl RequestData {
    /// Lists each request from now on, or no longer.
    pub(super) fn list(&mut self, lists: bool, at: WallTime) {
        self.listed_since = lists.then(|| self.listed_since.unwrap_or(at));
    }

    pub(super) fn add(&mut self, requests: &[ChargedRequest]) {
        self.charged.extend(requests.iter().map(|request| ((request.at, request.id), request.clone())));
    }

    /// Deletes what requests before a time were charged, at most `most`. True if there may be more.
    pub(super) fn prune_requests(&mut self, before: WallTime, most: usize) -> bool {
        let old: Vec<_> = self.charged.keys().filter(|(at, _)| *at < before).take(most).copied().collect();
        self.charged.retain(|place, _| !old.contains(place));
        old.len() == most
    }
}

impl RequestData {
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
                    self.repeats.retain(|other, row| other != id || row.hold != *hold);
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
