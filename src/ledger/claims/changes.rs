//! Computes what a fold writes about claims. Pure: the same records give the same changes.

use std::collections::BTreeMap;

use crate::ledger::store::RepeatRow;
use crate::types::{KeyHash, RequestId, WallTime};

/// What happened to a claim since the last fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimChange {
    /// It was made, and perhaps answered.
    Made(RepeatRow),
    /// The claim of this request, which a fold stored, was answered.
    Answered(RequestId, Vec<u8>),
    /// The claim of this request ended: the request may be made again.
    Released(RequestId),
}

impl ClaimChange {
    /// The request whose claim is decided; `None` if it is in progress.
    pub(super) fn decided(&self) -> Option<RequestId> {
        match self {
            Self::Made(row) => row.answer.is_some().then_some(row.hold),
            Self::Answered(hold, _) | Self::Released(hold) => Some(*hold),
        }
    }
}

/// What happened to claims since the last fold. Records of two requests with the same idempotency key may come in any
/// order within a batch: the claim of the second stands, whatever follows about the first.
#[derive(Debug, Default)]
pub(in crate::ledger) struct ClaimChanges {
    changes: BTreeMap<KeyHash, ClaimChange>,
    /// Parts of answers whose last part follows in the same batch.
    parts: BTreeMap<RequestId, Vec<u8>>,
}

impl ClaimChanges {
    pub(in crate::ledger) fn claim(
        &mut self,
        hold: RequestId,
        id: KeyHash,
        request: KeyHash,
        until: WallTime,
    ) {
        let row = RepeatRow { id, request, hold, until, answer: None };
        self.changes.insert(id, ClaimChange::Made(row));
    }

    pub(in crate::ledger) fn answer(&mut self, hold: RequestId, id: KeyHash, part: Vec<u8>, is_last: bool) {
        let answer = match self.parts.remove(&hold) {
            Some(mut before) => {
                before.extend(part);
                before
            }
            None => part,
        };
        if !is_last {
            self.parts.insert(hold, answer);
            return;
        }
        match self.changes.get_mut(&id) {
            Some(ClaimChange::Made(row)) if row.hold == hold => row.answer = Some(answer),
            Some(ClaimChange::Made(_)) => {} // of a later request
            _ => drop(self.changes.insert(id, ClaimChange::Answered(hold, answer))),
        }
    }

    pub(in crate::ledger) fn unclaim(&mut self, hold: RequestId, id: KeyHash) {
        if !matches!(self.changes.get(&id), Some(ClaimChange::Made(row)) if row.hold != hold) {
            self.changes.insert(id, ClaimChange::Released(hold));
        }
    }

    /// Takes the changes.
    pub(in crate::ledger) fn take(&mut self) -> Vec<(KeyHash, ClaimChange)> {
        std::mem::take(&mut self.changes).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_claim_stands_in_any_order() {
        let (id, request, until) = (KeyHash::of(b"k"), KeyHash::of(b"r"), WallTime(9));
        let row = |hold, answer: Option<&[u8]>| {
            let (hold, answer) = (RequestId(hold), answer.map(<[u8]>::to_vec));
            ClaimChange::Made(RepeatRow { id, request, hold, until, answer })
        };
        let mut changes = ClaimChanges::default();
        changes.claim(RequestId(1), id, request, until);
        assert_eq!(changes.take(), [(id, row(1, None))]);
        changes.answer(RequestId(1), id, b"a".to_vec(), false);
        changes.answer(RequestId(1), id, b"b".to_vec(), true);
        assert_eq!(changes.take(), [(id, ClaimChange::Answered(RequestId(1), b"ab".to_vec()))]);
        changes.claim(RequestId(2), id, request, until);
        changes.unclaim(RequestId(1), id);
        changes.answer(RequestId(1), id, b"c".to_vec(), true);
        changes.answer(RequestId(2), id, Vec::new(), true);
        assert_eq!(changes.take(), [(id, row(2, Some(b"")))]);
        changes.unclaim(RequestId(2), id);
        assert_eq!(changes.take(), [(id, ClaimChange::Released(RequestId(2)))]);
        changes.claim(RequestId(3), id, request, until);
        changes.unclaim(RequestId(3), id);
        assert_eq!(changes.take(), [(id, ClaimChange::Released(RequestId(3)))]);
    }
}
