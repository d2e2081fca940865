//! Counts what the simulation did.

/// Counts events over all runs, to check that the simulation covers them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) acknowledged: u64,
    pub(super) leased: u64,
    pub(super) refused: u64,
    pub(super) unavailable: u64,
    pub(super) crashes: u64,
    pub(super) cuts: u64,
    pub(super) faults: u64,
    pub(super) given_up: u64,
    pub(super) doubts: u64,
    pub(super) grants: u64,
}

impl Seen {
    pub(super) fn is_enough(&self) {
        let Self { acknowledged, leased, refused, unavailable, crashes, .. } = self;
        let Self { cuts, faults, given_up, doubts, grants, .. } = self;
        for (what, count) in [
            ("answers", acknowledged),
            ("requests that waited for a lease", leased),
            ("requests without credits", refused),
            ("requests while the ledger was unavailable", unavailable),
            ("crashes", crashes),
            ("gateways that were cut off", cuts),
            ("messages that were lost, unanswered or late", faults),
            ("gateways that were given up", given_up),
            ("holds in doubt", doubts),
            ("grants", grants),
        ] {
            let least = if std::ptr::eq(count, given_up) { 1 } else { 10 }; // few are given up in a short run
            assert!(*count >= least, "too few {what}: {self:?}");
        }
    }
}
