//! Compares the ledger with what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::store::BooksReader;
use crate::ledger::verify::verify;
use crate::types::{Credits, RequestId, WallTime};

/// More rows than any run creates.
const ALL: usize = 1_000_000;

/// What is certain of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nobody was told anything: the hold may be on disk or not.
    Nothing,
    /// The hold was on disk when the head of the response was sent.
    Head,
    /// Then it was settled. The client waits for the end of the response.
    Settled,
    /// The charge was on disk when the end of the response was sent.
    Charged,
    /// The request was given up by its gateway, which released the hold.
    Released,
}

/// A request that a gateway held credits for, in millionths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) account: usize,
    pub(super) hold: i64,
    pub(super) charge: i64,
    pub(super) told: Told,
}

impl Wish {
    /// True if a request may have been charged this. The hold is charged without a settlement only if it is in doubt.
    fn may_be(&self, charged: Option<i64>, is_in_doubt: bool) -> bool {
        if is_in_doubt {
            return charged == Some(self.hold) && (self.told != Told::Charged || self.charge == self.hold);
        }
        match self.told {
            Told::Nothing | Told::Released => charged.unwrap_or(0) == 0,
            Told::Head => false,
            Told::Settled | Told::Charged => charged == Some(self.charge),
        }
    }
}

/// Checks that each request was charged what its client was told, once, and each account all of that, and no more.
pub(super) fn judge(
    reader: &mut dyn BooksReader,
    wishes: &BTreeMap<RequestId, Wish>,
    granted: &[i64],
) -> usize {
    let verified = verify(reader).expect("a ledger that can be read");
    assert_eq!(verified.differences, []);
    let end = (WallTime(i64::MIN / 2), RequestId(0));
    let rows = reader.requests(end, WallTime(i64::MAX), ALL).expect("requests");
    let charged: BTreeMap<RequestId, i64> =
        rows.iter().map(|row| (row.id, row.charge.millionths())).collect();
    assert_eq!(charged.len(), rows.len(), "each request is listed once");
    let doubts: BTreeSet<RequestId> =
        reader.in_doubt().expect("holds in doubt").iter().map(|doubt| doubt.id).collect();
    for (id, wish) in wishes {
        let (charge, is_in_doubt) = (charged.get(id).copied(), doubts.contains(id));
        assert!(wish.may_be(charge, is_in_doubt), "{id} was charged {charge:?}, {is_in_doubt}: {wish:?}");
    }
    let mut left = granted.to_vec();
    for (id, charge) in &charged {
        let wish = wishes.get(id).expect("a request that was made");
        left[wish.account] -= charge;
    }
    let accounts = reader.accounts(None, ALL).expect("accounts");
    let balances: Vec<i64> = accounts.iter().map(|row| row.balance.millionths()).collect();
    assert_eq!(balances, left, "granted less charged is what is left");
    assert!(accounts.iter().all(|row| row.balance >= Credits::ZERO), "promise 2: {balances:?}");
    doubts.len()
}
