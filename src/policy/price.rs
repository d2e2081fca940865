//! Computes what a request costs: its hold, and the charge for its response.

mod decimal;
mod decode;
mod events;
mod items;
mod reading;
mod terms;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

pub use decimal::Decimal;
pub use decode::readable_encodings;
pub use items::{ItemsFault, count_items};
pub use reading::{AnswerReader, End, MAX_PRICED_JSON, Opened, Verdict};
pub use terms::{Amount, Charge, Condition, Source, StatusMatch, Term};

use super::json::Pointer;
use crate::types::Credits;

/// The price of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The credits held when the request is admitted: the most that it can cost.
    pub hold: Credits,
    /// If the hold depends on the number of items in the request. `hold` is then the most for [`ItemHold::max_items`].
    pub per_item: Option<ItemHold>,
    /// The number of items in the request; 0 if they are not counted.
    pub items: u32,
    /// The first charge that matches applies; if none matches, the request costs nothing.
    pub charges: Vec<Charge>,
    /// If the hold outlives the request, for a job that the response names.
    pub opens: Option<Opens>,
    /// If the response tells about a job that an earlier request opened: the charges are those of the job.
    pub done: Option<Done>,
    /// True if nothing is held or charged, but counted.
    pub shadow: bool,
}

/// How a request opens a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opens {
    /// Where a 2xx response has the upstream's id of the job.
    pub id: Source,
    /// Longest time until the job is settled.
    pub deadline: Duration,
    /// True if the job is charged in full at its deadline; otherwise its hold is released.
    pub charges_at_deadline: bool,
}

/// How a response tells that a job is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The status of such a response.
    pub status: StatusMatch,
    /// What it must contain too.
    pub when: Vec<Condition>,
}

/// A hold for each item of a JSON array in the request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemHold {
    /// The credits held for each item.
    pub each: Credits,
    /// Where the array is.
    pub of: Pointer,
    /// Most items; a request with more is refused.
    pub max_items: u32,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHead {
    /// The charge is known.
    Known(Charged),
    /// It depends on the response body, its trailers or its duration.
    InBody,
}

/// What a response has at a [`Source`].
enum Found<'a> {
    /// A header, or a string in JSON.
    Text(Cow<'a, str>),
    /// A number in JSON.
    Number(&'a str),
    /// `true` or `false` in JSON.
    Bool(bool),
    /// What the gateway measured.
    Measured(Decimal),
    /// Nothing.
    Absent,
    /// A part of the response that could not be read.
    Unreadable,
    /// Not known yet.
    Later,
    /// A response like this cannot have it.
    Nowhere,
}

/// What is known about a response.
trait Facts {
    fn find(&self, source: &Source) -> Found<'_>;
}

/// What the head of a response tells.
struct HeadFacts<'a> {
    price: &'a Price,
    headers: &'a HeaderMap,
    /// The response to a HEAD request.
    to_head: bool,
    /// The response has no body.
    is_bodiless: bool,
}

impl Facts for HeadFacts<'_> {
    fn find(&self, source: &Source) -> Found<'_> {
        match source {
            Source::Header(name) => match header(self.headers, name) {
                Found::Absent if self.to_head => Found::Nowhere, // only the response to a GET must have it
                found => found,
            },
            Source::Items => Found::Measured(Decimal::from_count(self.price.items)),
            Source::Held => Found::Measured(self.price.hold.into()),
            _ if self.is_bodiless => Found::Nowhere,
            _ => Found::Later,
        }
    }
}

/// A field of a head or of trailers. A field that occurs twice is unreadable.
fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Found<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => {
            value.to_str().map_or(Found::Unreadable, |text| Found::Text(text.trim().into()))
        }
        (Some(_), Some(_)) => Found::Unreadable,
    }
}

/// Nothing is charged.
const FREE: AtHead = AtHead::Known(Charged { amount: Credits::ZERO, note: Note::Plain });

impl Price {
    /// True if nothing is held or charged, so that requests never enter the ledger.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.hold.is_zero()
    }

    /// True if a charge reads the response body, so that the upstream may compress it only in ways that can be read.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.sources().any(|source| source.pointer().is_some())
    }

    /// True if a charge depends on the size, the duration or the trailers of a response.
    fn measures(&self) -> bool {
        let measures = |it: &Source| matches!(it, Source::Mebibytes | Source::Seconds | Source::Trailer(_));
        self.sources().any(measures)
    }

    /// True if a response to a request about a job can tell that the job is done. `to_head`: the response to a HEAD.
    #[must_use]
    pub fn may_be_done(&self, status: StatusCode, to_head: bool) -> bool {
        let is_bodiless = to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let covers = |done: &Done| done.status.covers(status.as_u16());
        self.done.as_ref().is_some_and(covers) && !to_head && !(is_bodiless && self.reads_body())
    }

    /// All sources of the price.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let charges = self.charges.iter().flat_map(Charge::sources);
        let done = self.done.iter().flat_map(|done| &done.when).map(|condition| &condition.source);
        charges.chain(done).chain(self.opens.as_ref().map(|opens| &opens.id))
    }

    /// The price of a request with so many items.
    #[must_use]
    pub fn for_items(&self, items: u32) -> Self {
        let mut price = Self { items, ..self.clone() };
        if let Some(per_item) = self.per_item.as_ref().filter(|per_item| items < per_item.max_items) {
            let hold = per_item.each.millionths() * i64::from(items); // no more than that of `max_items`
            price.hold = Credits::from_millionths(hold);
        }
        price
    }

    /// Computes the charge for a response from its head. 101 counts as 2xx.
    ///
    /// A response that cannot have a body (204, 304, or `to_head`: the response to a HEAD request) costs
    /// nothing if its price would be in the body. A HEAD request costs at most what the same GET would cost:
    /// if its response has no price header, it costs nothing, since only the response to a GET must have one.
    #[must_use]
    pub fn at_head(&self, status: StatusCode, headers: &HeaderMap, to_head: bool) -> AtHead {
        match (&self.done, &self.opens) {
            (Some(_), _) => return AtHead::InBody,
            // A GET opens a job, which may cost nothing.
            (None, Some(_)) if status.is_success() && to_head => return FREE,
            (None, Some(_)) if status.is_success() => return AtHead::InBody,
            (None, _) => {}
        }
        let is_bodiless = to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.evaluate(status, &HeadFacts { price: self, headers, to_head, is_bodiless })
    }

    /// The full hold, charged if the upstream's price cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> Charged {
        Charged { amount: self.hold, note: Note::Unreadable }
    }

    fn evaluate(&self, status: StatusCode, facts: &impl Facts) -> AtHead {
        let status = match status {
            StatusCode::SWITCHING_PROTOCOLS => 200,
            other => other.as_u16(),
        };
        for charge in self.charges.iter().filter(|charge| charge.status.covers(status)) {
            match holds(&charge.when, facts) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(Unknown::Later) => return AtHead::InBody,
                Err(Unknown::Nowhere) => return FREE,
                Err(Unknown::Unreadable) => return AtHead::Known(self.unreadable()),
            }
            return match amount(&charge.amount, facts) {
                Ok(amount) => AtHead::Known(self.charged(amount)),
                Err(Unknown::Later) => AtHead::InBody,
                Err(Unknown::Nowhere) => FREE,
                Err(Unknown::Unreadable) => AtHead::Known(self.unreadable()),
            };
        }
        FREE
    }

    fn charged(&self, amount: Credits) -> Charged {
        if amount.is_negative() {
            self.unreadable()
        } else if amount > self.hold {
            Charged { amount: self.hold, note: Note::Capped }
        } else {
            Charged { amount, note: Note::Plain }
        }
    }
}

/// Why an amount is not known.
enum Unknown {
    Later,
    Nowhere,
    Unreadable,
}

/// True if a response has what all conditions ask for.
fn holds(conditions: &[Condition], facts: &impl Facts) -> Result<bool, Unknown> {
    for condition in conditions {
        let any = |is_met: &dyn Fn(&str) -> bool| condition.any_of.iter().any(|wanted| is_met(wanted));
        let is_met = match facts.find(&condition.source) {
            Found::Text(text) => any(&|wanted| text == wanted),
            Found::Number(text) => any(&|wanted| text == wanted || is_same(Decimal::parse(text), wanted)),
            Found::Measured(number) => any(&|wanted| is_same(Some(number), wanted)),
            Found::Bool(value) => any(&|wanted| wanted == if value { "true" } else { "false" }),
            Found::Absent => false,
            Found::Unreadable => return Err(Unknown::Unreadable),
            Found::Later => return Err(Unknown::Later),
            Found::Nowhere => return Err(Unknown::Nowhere),
        };
        if !is_met {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_same(number: Option<Decimal>, wanted: &str) -> bool {
    number.is_some_and(|number| Decimal::parse(wanted).is_some_and(|wanted| number.is_equal(wanted)))
}

fn amount(amount: &Amount, facts: &impl Facts) -> Result<Credits, Unknown> {
    match amount {
        Amount::Fixed(credits) => Ok(*credits),
        Amount::Read(source) => match facts.find(source) {
            Found::Text(text) => text.trim().parse().map_err(|_| Unknown::Unreadable),
            Found::Number(text) => Credits::from_json_number(text).map_err(|_| Unknown::Unreadable),
            Found::Measured(number) => number.credits().ok_or(Unknown::Unreadable),
            Found::Bool(_) | Found::Absent | Found::Unreadable => Err(Unknown::Unreadable),
            Found::Later => Err(Unknown::Later),
            Found::Nowhere => Err(Unknown::Nowhere),
        },
        Amount::Sum(terms) => {
            let mut sum = Decimal::default();
            for term in terms {
                sum = value(term, facts)?.and_then(|value| sum.plus(value)).ok_or(Unknown::Unreadable)?;
            }
            sum.credits().filter(|_| !sum.is_negative()).ok_or(Unknown::Unreadable)
        }
    }
}

/// The value of a term; `None` if it is not a number, negative or too large.
fn value(term: &Term, facts: &impl Facts) -> Result<Option<Decimal>, Unknown> {
    let (from, each, is_optional) = match term {
        Term::Fixed(credits) => return Ok(Some(Decimal::from(*credits))),
        Term::Each { from, each, is_optional } => (from, each, *is_optional),
    };
    let number = match facts.find(from) {
        Found::Text(text) => Decimal::parse(text.trim()),
        Found::Number(text) => Decimal::parse(text),
        Found::Measured(number) => Some(number),
        Found::Absent if is_optional => Some(Decimal::default()),
        Found::Bool(_) | Found::Absent => None,
        Found::Unreadable => return Err(Unknown::Unreadable),
        Found::Later => return Err(Unknown::Later),
        Found::Nowhere => return Err(Unknown::Nowhere),
    };
    Ok(number.filter(|number| !number.is_negative()).and_then(|number| number.times(*each)))
}

#[cfg(test)]
mod tests;
