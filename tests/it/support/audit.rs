//! Compares what clients received, what the upstream received and what the ledger has, request by request.
//!
//! Each request carries its own number to the upstream, which records it together with Tollgate's request id. Nearly
//! every request has its own price, so that the sums of the ledger show which requests were charged.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;
use tollgate::types::Credits;

use super::{Gateway, Seen};

/// The header that carries a request's number through the gateway.
pub const NUMBER: &str = "x-number";
/// Maximum number of uncertain charges in a round. All of their subsets are tried.
const MAX_OPEN: usize = 44;

/// What a client received of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// Nothing, or a part of the head.
    Nothing,
    /// The head, which has the charge, but not the end. With the request's id.
    Head(String),
    /// The whole response. With the request's id.
    Whole(String),
}

/// A line of a client's journal. Amounts are in millionths.
#[derive(Clone, Debug)]
pub struct Line {
    pub number: u64,
    pub hold: i64,
    pub price: i64,
    /// The body that the upstream was told to send.
    pub body: String,
    /// Every byte that was received.
    pub received: Vec<u8>,
}

impl Line {
    /// Parses the received bytes, and checks that they contain nothing of another request's response.
    pub fn saw(&self) -> Saw {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = head.parse(&self.received) else { return Saw::Nothing };
        let field = |name: &str| {
            let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8(found.value.to_vec()).unwrap())
        };
        let id = field("x-request-id").expect("every response has an id");
        if let Some(charged) = field("x-credits-used") {
            let code = head.code.unwrap_or_default();
            assert_eq!(charged.parse::<Credits>().unwrap().millionths(), self.price, "{id}: status {code}");
        }
        let body = &self.received[length..];
        assert!(self.body.as_bytes().starts_with(body), "{id} got another response's bytes");
        if body.len() == self.body.len() { Saw::Whole(id) } else { Saw::Head(id) }
    }
}

/// The sums of one account in the ledger. Amounts are in millionths.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pub granted: i64,
    pub charged: i64,
    pub requests: i64,
    pub doubts: BTreeMap<String, i64>,
}

pub fn millionths(value: &Value) -> i64 {
    value.to_string().parse::<Credits>().unwrap().millionths()
}

impl Books {
    /// Reads the sums, verifies the ledger, and compares the balance with the credits that can be spent.
    pub fn read(gateway: &Gateway, account: &str) -> Self {
        assert_eq!(gateway.json(&["ledger", "verify"])["differences"], serde_json::json!([]));
        let mut books = Self::default();
        for entry in gateway.rows(&["account", "statement", account]) {
            let amount = millionths(&entry["amount"]);
            match entry["kind"].as_str().unwrap() {
                "grant" | "adjustment" => books.granted += amount,
                "charge" => {
                    books.charged -= amount;
                    books.requests += entry["requests"].as_i64().unwrap();
                }
                "release" => assert_eq!(amount, 0),
                "in_doubt" | "given_back" => {}
                other => panic!("an entry of kind {other}"),
            }
        }
        let mut given_back = 0;
        for doubt in gateway.rows(&["ledger", "in-doubt"]) {
            let (id, amount) = (doubt["id"].as_str().unwrap().to_owned(), millionths(&doubt["amount"]));
            given_back += if doubt["given_back"].is_null() { 0 } else { amount };
            books.doubts.insert(id, amount);
        }
        let left = gateway.available(account).parse::<Credits>().unwrap().millionths();
        let spent = books.charged + books.doubts.values().sum::<i64>() - given_back;
        assert_eq!(left, books.granted - spent, "granted less charged is what is left");
        assert!(left >= 0, "promise 2");
        books
    }
}

/// The requests and charges between two reads of the ledger.
pub struct Round<'a> {
    pub seen: &'a [Seen],
    pub lines: &'a [Line],
    pub before: &'a Books,
    pub after: &'a Books,
    /// True if nothing was cut off: every request was completed, even if its client had disconnected.
    pub whole: bool,
}

impl Round<'_> {
    /// Holds in doubt that this round added.
    pub fn doubts(&self) -> BTreeSet<&str> {
        let new = self.after.doubts.keys().filter(|id| !self.before.doubts.contains_key(*id));
        new.map(String::as_str).collect()
    }

    /// Checks that every line is charged as promised, that nothing else is charged, and that the list of holds in doubt
    /// is exact.
    pub fn judge(&self) {
        let ids = self.ids();
        let (doubts, mut explained) = (self.doubts(), BTreeSet::new());
        let (mut must, mut may, mut unseen) = (Vec::new(), Vec::new(), 0);
        let mut known = HashSet::new();
        for line in self.lines {
            let Line { number, hold, price, .. } = line;
            let (at_upstream, saw) = (ids.get(number), line.saw());
            let id = match &saw {
                Saw::Whole(id) | Saw::Head(id) => {
                    assert!(known.insert(id.clone()), "each request has an id of its own");
                    assert_eq!(at_upstream.map(|(id, _)| *id), Some(&**id), "it went upstream under this id");
                    at_upstream.map(|(id, _)| *id)
                }
                Saw::Nothing => at_upstream.map(|(id, _)| *id),
            };
            let Some(id) = id else {
                unseen += 1; // refused, never forwarded, or held and cut off before it was forwarded
                continue;
            };
            if doubts.contains(id) {
                assert_eq!(self.after.doubts[id], *hold, "in doubt means: charged at the hold");
                let whole_and_cheaper = matches!(saw, Saw::Whole(_)) && price < hold && *price > 0;
                assert!(!whole_and_cheaper, "{id}: a charge is on disk before its last byte leaves");
                explained.insert(id);
                continue;
            }
            match saw {
                Saw::Whole(_) => must.push(*price),
                // Promise 3: the hold was on disk before the head was sent, so the request is charged or in doubt.
                Saw::Head(_) => must.push(*price),
                Saw::Nothing if self.whole => must.push(*price),
                // The upstream responded, but the client did not receive it: the request is charged at its price, or
                // not at all.
                Saw::Nothing if at_upstream.is_some_and(|(_, answered)| *answered) => may.push(*price),
                Saw::Nothing => {}
            }
        }
        assert!(!self.whole || doubts.is_empty(), "in doubt although nothing was cut: {doubts:?}");
        assert!(doubts.len() - explained.len() <= unseen, "in doubt without a request: {doubts:?}");
        must.retain(|price| *price > 0);
        may.retain(|price| *price > 0);
        assert!(may.len() <= MAX_OPEN, "{} charges that nobody can be sure of", may.len());
        let charged = self.after.charged - self.before.charged - must.iter().sum::<i64>();
        let requests = self.after.requests - self.before.requests - must.len() as i64;
        assert!(
            adds_up(charged, requests, &may),
            "{requests} more requests were charged {charged} than {} that must be; possible were {may:?}",
            must.len()
        );
    }

    /// For each number that reached the upstream: the request id, and true if the upstream responded.
    fn ids(&self) -> BTreeMap<u64, (&str, bool)> {
        let mut ids = BTreeMap::new();
        for seen in self.seen {
            let number = seen.header(NUMBER).unwrap().parse().unwrap();
            let before = ids.insert(number, (seen.header("x-request-id").unwrap(), seen.answered));
            assert_eq!(before, None, "no request reaches the upstream twice");
        }
        ids
    }
}

/// True if `count` of these amounts add up to `sum`. Looks up every subset of one half among the subsets of the other
/// half.
fn adds_up(sum: i64, count: i64, amounts: &[i64]) -> bool {
    let subsets = |amounts: &[i64]| -> HashSet<(i64, i64)> {
        let mut sums = HashSet::from([(0, 0)]);
        for amount in amounts {
            sums.extend(sums.clone().into_iter().map(|(sum, count)| (sum + amount, count + 1)));
        }
        sums
    };
    let (one, other) = amounts.split_at(amounts.len() / 2);
    let others = subsets(other);
    subsets(one).into_iter().any(|(part, some)| others.contains(&(sum - part, count - some)))
}
