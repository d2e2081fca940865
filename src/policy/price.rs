//! Computes what a request costs: its hold, and the charge for its response.

use http::{HeaderMap, HeaderName, StatusCode};

use super::json::{Pointer, Scalar};
use crate::types::Credits;

/// Largest JSON response body, in bytes, in which a price is read. For a larger one the hold is charged.
pub const MAX_PRICED_JSON: usize = 1024 * 1024;

/// The price of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The credits held when the request is admitted.
    pub hold: Credits,
    /// The first charge with a matching status applies; if none matches, the request costs nothing.
    pub charges: Vec<Charge>,
    /// True if nothing is held or charged, but counted.
    pub shadow: bool,
}

/// One rule of a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The response statuses that the charge applies to.
    pub status: StatusMatch,
    /// The amount that a response with such a status costs.
    pub amount: Amount,
}

/// The source of an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Fixed; at most the hold.
    Fixed(Credits),
    /// Read from this header of the response.
    Header(HeaderName),
    /// Read from the response body at this JSON pointer.
    Json(Pointer),
}

/// The statuses that a charge applies to: one (`404`) or a class (`2xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMatch {
    /// Exactly this status.
    One(u16),
    /// All statuses with this first digit.
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

    /// True if this status matches.
    #[must_use]
    pub fn covers(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status / 100 == class,
        }
    }
}

/// A charge, and how it was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The credits charged, at most the hold.
    pub amount: Credits,
    /// [`Note::Plain`], unless an operator should check the price.
    pub note: Note,
}

/// How a charge was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The charge is exactly the price.
    Plain,
    /// The price exceeded the hold: the hold is charged.
    Capped,
    /// The upstream's price was absent, unreadable, negative or too precise: the hold is charged.
    Unreadable,
}

/// The charge for a response, as far as its head determines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHead<'a> {
    /// The charge is known.
    Known(Charged),
    /// The price is in the response body, at this JSON pointer.
    InBody(&'a Pointer),
}

impl Price {
    /// True if nothing is held or charged, so that requests never enter the ledger.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.hold.is_zero()
    }

    /// True if a charge reads its amount from the response body, so that the upstream must not compress the body.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.charges.iter().any(|charge| matches!(charge.amount, Amount::Json(_)))
    }

    /// Computes the charge for a response from its head. 101 counts as 2xx.
    ///
    /// A response that cannot have a body (204, 304, or `to_head`: the response to a HEAD request) costs
    /// nothing if its price would be in the body. A HEAD request costs at most what the same GET would cost:
    /// if its response has no price header, it costs nothing, since only the response to a GET must have one.
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

    /// Computes the charge for a complete JSON body from the value found at the pointer. Numbers, and strings
    /// that contain a number, are read as decimal text.
    #[must_use]
    pub fn at_end(&self, found: Option<Scalar>) -> Charged {
        self.charged(found.and_then(|found| match found {
            Scalar::Number(number) => Credits::from_json_number(&number).ok(),
            Scalar::Text(text) => text.parse().ok(),
        }))
    }

    /// The full hold, charged if the upstream's price cannot be read.
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
            shadow: false,
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

    /// Promise 1 of the contract: a HEAD costs at most what its GET would, for every kind of [`Amount`].
    #[test]
    fn what_has_no_body_costs_nothing_by_a_price_in_the_body() {
        let header = |text: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-cost"), text.parse().unwrap())])
        };
        // status, response headers, cost of a GET (`None`: known only at the end of the body), cost of a HEAD
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
