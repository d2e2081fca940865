//! Prices: the most that a request can cost, and what its response makes it cost.

use http::{HeaderMap, HeaderName, StatusCode};

use super::json::{Found, Pointer};
use crate::types::Credits;

/// The most bytes of a JSON response that a price reads; past it, the hold is charged.
pub const MAX_PRICED_JSON: usize = 1024 * 1024;

/// The price of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The credits held when the request is admitted.
    pub hold: Credits,
    /// The first matching charge counts; without a match the request costs nothing.
    pub charges: Vec<Charge>,
}

/// One rule of a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The statuses that it applies to.
    pub status: StatusMatch,
    /// The amount that such a response costs.
    pub amount: Amount,
}

/// The source of an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Fixed; at most the hold.
    Fixed(Credits),
    /// A header of the response.
    Header(HeaderName),
    /// A JSON pointer into the response body.
    Json(Pointer),
}

/// The statuses that a charge applies to: one (`404`) or a class (`2xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMatch {
    /// Exactly this one.
    One(u16),
    /// The hundreds digit.
    Class(u16),
}

impl std::fmt::Display for StatusMatch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(status) => write!(out, "{status}"),
            Self::Class(class) => write!(out, "{class}xx"),
        }
    }
}

impl StatusMatch {
    /// Parses `404` or `2xx`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            let class = class.parse().ok().filter(|class| (1..=5).contains(class))?;
            return Some(Self::Class(class));
        }
        let status = text.parse().ok().filter(|status| (200..=599).contains(status))?;
        Some(Self::One(status))
    }

    fn covers(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status / 100 == class,
        }
    }
}

/// A charge, and how it was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// At most the hold.
    pub amount: Credits,
    /// Set if an operator should look at the price.
    pub note: Note,
}

/// How a charge was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// As the price says.
    Plain,
    /// The upstream asked for more than was held.
    Capped,
    /// The upstream's price was absent, unreadable, negative or too precise: the hold is charged.
    Unreadable,
}

/// What a response's head says about its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHead<'a> {
    /// Known now.
    Known(Charged),
    /// Stands in the body, at this JSON pointer.
    InBody(&'a Pointer),
}

impl Price {
    /// A route that costs nothing and never enters the ledger.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.hold.is_zero()
    }

    /// Whether any response's price stands in its body, so that the upstream must not compress it.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.charges.iter().any(|charge| matches!(charge.amount, Amount::Json(_)))
    }

    /// What a response with this head costs. 101 counts as 2xx.
    ///
    /// A response that cannot have a body (`to_head`: to a HEAD request; 204 and 304) costs nothing by a
    /// price that stands in the body. A HEAD costs at most what its GET would: a price header that its
    /// response leaves out costs nothing either, since only the GET's response would tell.
    #[must_use]
    pub fn at_head(&self, status: StatusCode, headers: &HeaderMap, to_head: bool) -> AtHead<'_> {
        const FREE: AtHead<'_> = AtHead::Known(Charged { amount: Credits::ZERO, note: Note::Plain });
        let bodiless = to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let status = match status {
            StatusCode::SWITCHING_PROTOCOLS => 200,
            other => other.as_u16(),
        };
        let Some(charge) = self.charges.iter().find(|charge| charge.status.covers(status)) else {
            return FREE;
        };
        AtHead::Known(match &charge.amount {
            Amount::Fixed(amount) => self.charged(Some(*amount)),
            Amount::Header(name) => {
                let mut values = headers.get_all(name).iter();
                let first = values.next();
                if to_head && first.is_none() {
                    return FREE;
                }
                let text = first.filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
                self.charged(text.and_then(|text| text.trim().parse().ok()))
            }
            Amount::Json(_) if bodiless => return FREE,
            Amount::Json(pointer) => return AtHead::InBody(pointer),
        })
    }

    /// What a whole JSON body costs, by what was found at the pointer. Numbers, and strings that hold one,
    /// are read as decimal text.
    #[must_use]
    pub fn at_end(&self, found: Option<Found>) -> Charged {
        self.charged(found.and_then(|found| match found {
            Found::Number(number) => Credits::from_json_number(&number).ok(),
            Found::Text(text) => text.parse().ok(),
        }))
    }

    /// The hold in full, where the upstream's price cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> Charged {
        Charged { amount: self.hold, note: Note::Unreadable }
    }

    fn charged(&self, amount: Option<Credits>) -> Charged {
        match amount.filter(|amount| !amount.is_negative()) {
            None => self.unreadable(),
            Some(amount) if amount > self.hold => Charged { amount: self.hold, note: Note::Capped },
            Some(amount) => Charged { amount, note: Note::Plain },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::json::PointerReader;

    fn credits(text: &str) -> Credits {
        text.parse().unwrap()
    }

    fn pointer() -> Pointer {
        Pointer::parse("/cost/total").unwrap()
    }

    fn price() -> Price {
        let charge = |status, amount| Charge { status: StatusMatch::parse(status).unwrap(), amount };
        Price {
            hold: credits("50"),
            charges: vec![
                charge("201", Amount::Json(pointer())),
                charge("204", Amount::Json(pointer())),
                charge("2xx", Amount::Header(HeaderName::from_static("x-cost"))),
                charge("404", Amount::Fixed(credits("1"))),
            ],
        }
    }

    #[test]
    fn the_first_matching_line_prices_the_answer() {
        let table = [
            (200, Some("40"), "40", Note::Plain),
            (200, Some(" 0.25 "), "0.25", Note::Plain),
            (101, Some("3"), "3", Note::Plain),
            (200, Some("50.000001"), "50", Note::Capped),
            (200, Some("-1"), "50", Note::Unreadable),
            (200, Some("0.0000001"), "50", Note::Unreadable),
            (200, Some("many"), "50", Note::Unreadable),
            (200, None, "50", Note::Unreadable),
            (404, None, "1", Note::Plain),
            (500, Some("40"), "0", Note::Plain),
        ];
        for (status, header, amount, note) in table {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-cost", header.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            let expected = AtHead::Known(Charged { amount: credits(amount), note });
            assert_eq!(price().at_head(status, &headers, false), expected, "{status} {header:?}");
        }
    }

    #[test]
    fn a_price_given_twice_is_unreadable() {
        let mut headers = HeaderMap::new();
        headers.append("x-cost", "1".parse().unwrap());
        headers.append("x-cost", "2".parse().unwrap());
        assert_eq!(price().at_head(StatusCode::OK, &headers, false), AtHead::Known(price().unreadable()));
    }

    #[test]
    fn a_json_price_is_read_as_decimal_text() {
        let price = price();
        let in_body = price.at_head(StatusCode::CREATED, &HeaderMap::new(), false);
        assert_eq!(in_body, AtHead::InBody(&pointer()));
        let table = [
            (r#"{"cost":{"total":0.3}}"#, "0.3", Note::Plain),
            (r#"{"cost":{"total":1e-05}}"#, "0.00001", Note::Plain),
            (r#"{"cost":{"total":"12.5"}}"#, "12.5", Note::Plain),
            (r#"{"cost":{"total":0.30000000000000004}}"#, "50", Note::Unreadable),
            (r#"{"cost":{"total":51}}"#, "50", Note::Capped),
            (r#"{"cost":{"total":null}}"#, "50", Note::Unreadable),
            (r#"{"cost":1}"#, "50", Note::Unreadable),
            (r#"{"cost":{"total":1}"#, "50", Note::Unreadable),
            ("", "50", Note::Unreadable),
        ];
        for (body, amount, note) in table {
            let expected = Charged { amount: credits(amount), note };
            let mut reader = PointerReader::new(pointer());
            reader.read(body.as_bytes());
            assert_eq!(price.at_end(reader.finish()), expected, "{body}");
        }
    }

    /// Promise 1: a HEAD costs at most what its GET would, by every source of a price.
    #[test]
    fn what_has_no_body_costs_nothing_by_a_price_in_the_body() {
        let header = |text: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-cost"), text.parse().unwrap())])
        };
        // status, header fields, to GET, to HEAD; `None`: known at the end only
        let table = [
            (201, HeaderMap::new(), None, "0"),
            (204, HeaderMap::new(), Some("0"), "0"),
            (200, header("40"), Some("40"), "40"),
            (200, header("many"), Some("50"), "50"),
            (200, HeaderMap::new(), Some("50"), "0"),
            (404, HeaderMap::new(), Some("1"), "1"),
            (500, HeaderMap::new(), Some("0"), "0"),
        ];
        for (status, headers, get, head) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let price = price();
            let cost = |to_head| match price.at_head(status, &headers, to_head) {
                AtHead::Known(charged) => Some(charged.amount),
                AtHead::InBody(_) => None,
            };
            assert_eq!(cost(false), get.map(credits), "GET {status}");
            assert_eq!(cost(true), Some(credits(head)), "HEAD {status}");
        }
    }
}
