//! The fault harness: what clients saw, what the upstream saw and what the books say must be one
//! story, request by request.
//!
//! Each request carries a number of its own to the upstream, where Tollgate's id stands beside it, and
//! nearly each has a price of its own: so the sums of the books say which requests were charged.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;
use tollgate::types::Credits;

use super::{Gateway, Seen};

/// The header that carries a request's number through the gateway.
pub const NUMBER: &str = "x-number";
/// Charges that nobody can be sure of, of one round: their subsets are tried.
const MAX_OPEN: usize = 44;

/// What a client saw of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// Nothing, or a part of the head.
    Nothing,
    /// The head, which says what was charged; not the end. With the request's id.
    Head(String),
    /// All of it.
    Whole(String),
}

/// A line of a client's journal; amounts in millionths.
#[derive(Clone, Debug)]
pub struct Line {
    pub number: u64,
    pub hold: i64,
    pub price: i64,
    /// What the upstream was told to answer.
    pub body: String,
    /// Every byte that came back.
    pub received: Vec<u8>,
}

impl Line {
    /// What the bytes are; none but this request's answer may be among them.
    pub fn saw(&self) -> Saw {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = head.parse(&self.received) else { return Saw::Nothing };
        let field = |name: &str| {
            let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8(found.value.to_vec()).unwrap())
        };
        let id = field("x-request-id").expect("every answer has an id");
        if let Some(charged) = field("x-credits-used") {
            assert_eq!(charged.parse::<Credits>().unwrap().millionths(), self.price, "{id}");
        }
        let body = &self.received[length..];
        assert!(self.body.as_bytes().starts_with(body), "{id} got another answer's bytes");
        if body.len() == self.body.len() { Saw::Whole(id) } else { Saw::Head(id) }
    }
}

/// What the books of one account say; amounts in millionths.
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
    /// Reads them, verifies them, and compares what is left with what can be spent.
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

/// What happened between two looks at the books.
pub struct Round<'a> {
    pub seen: &'a [Seen],
    pub lines: &'a [Line],
    pub before: &'a Books,
    pub after: &'a Books,
    /// Nothing was cut: everything came to its end, also where the client had left.
    pub whole: bool,
}

impl Round<'_> {
    /// Holds in doubt that this round left.
    pub fn doubts(&self) -> BTreeSet<&str> {
        let new = self.after.doubts.keys().filter(|id| !self.before.doubts.contains_key(*id));
        new.map(String::as_str).collect()
    }

    /// Every line is charged as promised, no other is, and the list of holds in doubt is exact.
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
                unseen += 1; // refused, never forwarded, or held and cut before it was
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
                // Promise 3: its hold was on disk, so it is charged or in doubt.
                Saw::Head(_) => must.push(*price),
                Saw::Nothing if self.whole => must.push(*price),
                // The upstream answered, the client did not see it: charged or not, but at its price.
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

    /// Of each number that reached the upstream: the id, and whether it was answered.
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

/// Whether so many of these amounts add up to a sum: all subsets of one half, looked up in those of
/// the other.
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
