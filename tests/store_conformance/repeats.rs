//! Claims idempotency keys, as workers do.

use proptest::prelude::*;
use tollgate::ledger::record::Record;
use tollgate::ledger::store::{BooksReader, Registration, RequestRow};
use tollgate::types::{KeyHash, RequestId, WallTime};

use crate::ALL;
use crate::driver::{Driver, outcome};

/// What happens to a claim.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Made,
    Answered(u8),
    Released,
}

pub fn what() -> impl Strategy<Value = What> {
    prop_oneof![2 => Just(What::Made), 2 => (0_u8..4).prop_map(What::Answered), 1 => Just(What::Released)]
}

fn hash(key: u8) -> KeyHash {
    KeyHash::of(&[b'k', key])
}

/// Everything that is stored of requests with an idempotency key.
pub fn all(reader: &mut dyn BooksReader) -> String {
    let rows: Vec<_> = (0..4).map(|key| reader.repeat(&hash(key)).unwrap()).collect();
    let unanswered = reader.unanswered(ALL).unwrap();
    assert_eq!(unanswered.len(), rows.iter().flatten().filter(|row| row.answer.is_none()).count());
    let requests = requests(reader);
    format!("{rows:?} {unanswered:?} {requests:?} {:?}", reader.listed_since().unwrap())
}

/// What requests were charged. Checks that pages and times select among them.
fn requests(reader: &mut dyn BooksReader) -> Vec<RequestRow> {
    let (first, end) = ((WallTime(i64::MIN), RequestId(0)), WallTime(i64::MAX));
    let all = reader.requests(first, end, ALL).unwrap();
    let mut pages = Vec::new();
    while let Ok(page) =
        reader.requests(pages.last().map_or(first, |row: &RequestRow| (row.at, row.id)), end, 2)
        && !page.is_empty()
    {
        pages.extend(page);
    }
    assert_eq!(pages, all);
    if let Some(last) = all.last() {
        let before: Vec<RequestRow> = all.iter().filter(|row| row.at < last.at).cloned().collect();
        assert_eq!(reader.requests(first, last.at, ALL).unwrap(), before);
    }
    all
}

impl Driver<'_> {
    /// Registers, and lists requests from then on, or no longer.
    pub fn register_at(&mut self, wanted: &Registration, at: WallTime) -> String {
        let registered = outcome(self.store.books.register(wanted, at));
        let Some(lists) = wanted.lists_requests.filter(|_| registered != "refused") else {
            return registered;
        };
        let fold = self.tally.fold();
        let folded = self.fold(fold, at);
        self.tally.list_requests(lists);
        registered + &folded
    }

    /// Prunes what is kept of requests.
    pub fn prune_requests(&mut self, at: WallTime) -> String {
        let requests = outcome(self.store.books.prune_requests(WallTime(at.0 - 10), 2));
        requests + &outcome(self.store.books.prune_repeats(at, 2))
    }

    /// Makes a claim, or decides the last one.
    pub fn claim(&mut self, key: u8, what: What, at: WallTime) -> String {
        let mut records = Vec::new();
        match (what, self.claimed.take()) {
            (What::Made, _) | (_, None) => {
                self.ids += 1;
                let id = RequestId(u128::from(self.ids));
                let until = WallTime(at.0 + i64::from(key) * 5);
                let request = KeyHash::of(&self.ids.to_le_bytes());
                Record::Claim { id, repeat: hash(key), request, until }.write(&mut records);
                self.claimed = Some((key, id));
            }
            (What::Answered(parts), Some((key, id))) => {
                for part in 0..=parts {
                    let (is_last, bytes) = (part == parts, vec![part; usize::from(parts)]);
                    Record::Answer { id, repeat: hash(key), is_last, part: bytes }.write(&mut records);
                }
            }
            (What::Released, Some((key, id))) => {
                Record::Unclaim { id, repeat: hash(key) }.write(&mut records);
            }
        }
        self.append(at, &records)
    }
}
