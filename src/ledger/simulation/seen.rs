//! Counts what the simulation did.

/// Counts events over all runs, to check that the simulation covers them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) capped: u64,
    pub(super) failed: u64,
    pub(super) cuts: u64,
    pub(super) doubts: u64,
    pub(super) given_back: u64,
    pub(super) bookings: u64,
    pub(super) kept_settled: u64,
    pub(super) polled: u64,
    pub(super) expired: u64,
    pub(super) refilled: u64,
    pub(super) replayed: u64,
    pub(super) lost: u64,
}

impl Seen {
    pub(super) fn is_enough(&self) {
        let Self { acknowledged, refused, failed, cuts, doubts, given_back, bookings, .. } = self;
        let Self { kept_settled, polled, expired, refilled, replayed, lost, capped, .. } = self;
        for (what, count) in [
            ("answers", acknowledged),
            ("refusals", refused),
            ("reached spending limits", capped),
            ("failures", failed),
            ("cuts", cuts),
            ("holds in doubt", doubts),
            ("given back", given_back),
            ("bookings", bookings),
            ("settlements of kept holds", kept_settled),
            ("jobs that workers settled", polled),
            ("expiries", expired),
            ("refills", refilled),
            ("repeated requests that were answered", replayed),
            ("answers that are lost", lost),
        ] {
            assert!(*count > 100, "too few {what}: {self:?}");
        }
    }
}
