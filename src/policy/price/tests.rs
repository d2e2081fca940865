//! Tests prices: each rule of the contract, section 4.

mod streams;

use std::sync::Arc;

use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::*;

fn credits(text: &str) -> Credits {
    text.parse().unwrap()
}

fn pointer() -> Pointer {
    Pointer::parse("/cost/total").unwrap()
}

fn charge(status: &str, amount: Amount) -> Charge {
    Charge { status: StatusMatch::parse(status).unwrap(), when: Vec::new(), amount }
}

fn cost_header() -> Source {
    Source::Header(HeaderName::from_static("x-cost"))
}

fn price() -> Price {
    Price {
        hold: credits("50"),
        charges: vec![
            charge("201", Amount::Read(Source::Json(pointer()))),
            charge("204", Amount::Read(Source::Json(pointer()))),
            charge("2xx", Amount::Read(cost_header())),
            charge("404", Amount::Fixed(credits("1"))),
        ],
        ..Price::default()
    }
}

fn charged(verdict: Verdict) -> Charged {
    let Verdict::Charge(charged) = verdict else { panic!("no charge: {verdict:?}") };
    charged
}

/// The charge for a whole response.
fn charge_of(price: &Price, status: u16, headers: &HeaderMap, body: &[u8], piece: usize) -> Charged {
    let status = StatusCode::from_u16(status).unwrap();
    let (opened, _) = AnswerReader::open(&Arc::new(price.clone()), false, status, headers);
    match opened {
        Opened::Known(charged) => charged,
        Opened::Reading(mut reader) => {
            body.chunks(piece.max(1)).for_each(|piece| _ = reader.read(piece));
            charged(reader.finish(End::Complete, 0))
        }
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
    assert_eq!(price.at_head(StatusCode::CREATED, &HeaderMap::new(), false), AtHead::InBody);
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
        assert_eq!(charge_of(&price, 201, &HeaderMap::new(), body.as_bytes(), 3), expected, "{body}");
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
            AtHead::InBody => None,
        };
        assert_eq!(cost(false), get.map(credits), "GET {status}");
        assert_eq!(cost(true), Some(credits(head)), "HEAD {status}");
    }
}

fn term(from: Source, each: &str) -> Term {
    Term::Each { from, each: Decimal::parse(each).unwrap(), is_optional: false }
}

fn json(pointer: &str) -> Source {
    Source::Json(Pointer::parse(pointer).unwrap())
}

/// The price of a language model: 2.5 and 10 credits per million tokens, cached ones at half price.
fn tokens() -> Price {
    let cached = Term::Each {
        from: json("/usage/prompt_tokens_details/cached_tokens"),
        each: Decimal::parse("-0.00000125").unwrap(),
        is_optional: true,
    };
    let sum = Amount::Sum(vec![
        term(json("/usage/prompt_tokens"), "0.0000025"),
        term(json("/usage/completion_tokens"), "0.00001"),
        cached,
    ]);
    Price { hold: credits("2"), charges: vec![charge("2xx", sum)], ..Price::default() }
}

fn typed(content_type: &'static str, coding: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
    }
    headers
}

const USAGE: &str = r#"{"usage":{"prompt_tokens":1001,"completion_tokens":33,"prompt_tokens_details":{"cached_tokens":1000}}}"#;
/// 1001 × 2.5 + 33 × 10 − 1000 × 1.25 = 1582.5 millionths, rounded up.
const USAGE_COST: &str = "0.001583";

#[test]
fn a_sum_is_rounded_up_once() {
    let table = [
        (USAGE, USAGE_COST, Note::Plain),
        (r#"{"usage":{"prompt_tokens":1,"completion_tokens":0}}"#, "0.000003", Note::Plain),
        (r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#, "0", Note::Plain),
        (r#"{"usage":{"prompt_tokens":"4","completion_tokens":0}}"#, "0.00001", Note::Plain),
        (r#"{"usage":{"prompt_tokens":1000000000,"completion_tokens":0}}"#, "2", Note::Capped),
        (r#"{"usage":{"prompt_tokens":1}}"#, "2", Note::Unreadable),
        (r#"{"usage":{"prompt_tokens":-1,"completion_tokens":5}}"#, "2", Note::Unreadable),
        (r#"{"usage":{"prompt_tokens":1e99,"completion_tokens":5}}"#, "2", Note::Unreadable),
        (r#"{"usage":{"prompt_tokens":true,"completion_tokens":5}}"#, "2", Note::Unreadable),
        (
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":9}}}"#,
            "2",
            Note::Unreadable,
        ),
    ];
    for (body, amount, note) in table {
        let expected = Charged { amount: credits(amount), note };
        assert_eq!(
            charge_of(&tokens(), 200, &typed("application/json", None), body.as_bytes(), 7),
            expected,
            "{body}"
        );
    }
}

/// ApiOne and Enrow: what was found costs, what was not found does not.
#[test]
fn a_charge_may_depend_on_a_field_of_the_response() {
    let when = |text: &str, equals: &str| {
        let condition = Condition { source: json(text), any_of: vec![equals.to_owned()] };
        move |amount: &str| Charge {
            when: vec![condition.clone()],
            ..charge("2xx", Amount::Fixed(amount.parse().unwrap()))
        }
    };
    let price = Price {
        hold: credits("4"),
        charges: vec![
            when("/qualification", "found")("4"),
            when("/cached", "true")("0.5"),
            when("/matches", "2")("2"),
            charge("2xx", Amount::Fixed(credits("0.25"))),
            charge("404", Amount::Fixed(credits("1"))),
        ],
        ..Price::default()
    };
    let table = [
        (200, r#"{"qualification":"found"}"#, "4", Note::Plain),
        (200, r#"{"qualification":"not_found"}"#, "0.25", Note::Plain),
        (200, r#"{"cached":true}"#, "0.5", Note::Plain),
        (200, r#"{"cached":false}"#, "0.25", Note::Plain),
        (200, r#"{"cached":"true"}"#, "0.5", Note::Plain),
        (200, r#"{"matches":2.0}"#, "2", Note::Plain),
        (200, r#"{"matches":20}"#, "0.25", Note::Plain),
        (200, "not json", "4", Note::Unreadable),
        (404, "{}", "1", Note::Plain),
        (500, "{}", "0", Note::Plain),
    ];
    for (status, body, amount, note) in table {
        let expected = Charged { amount: credits(amount), note };
        assert_eq!(
            charge_of(&price, status, &HeaderMap::new(), body.as_bytes(), 4),
            expected,
            "{status} {body}"
        );
    }
    // A HEAD costs at most what its GET would.
    let to_head = |status| price.at_head(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), true);
    assert_eq!(to_head(200), AtHead::Known(Charged { amount: Credits::ZERO, note: Note::Plain }));
}

#[test]
fn items_bytes_seconds_and_trailers_have_prices() {
    let each = Credits::from_millionths(250_000);
    let per_item = ItemHold { each, of: Pointer::parse("/records").unwrap(), max_items: 5000 };
    let of_items = Amount::Sum(vec![term(Source::Items, "0.25")]);
    let price = Price {
        hold: credits("1250"),
        per_item: Some(per_item),
        charges: vec![charge("2xx", of_items)],
        ..Price::default()
    };
    for (items, cost) in [(0, "0"), (1, "0.25"), (3, "0.75"), (5000, "1250")] {
        let price = price.for_items(items);
        assert_eq!(price.hold, credits(cost));
        let known = AtHead::Known(Charged { amount: credits(cost), note: Note::Plain });
        assert_eq!(price.at_head(StatusCode::OK, &HeaderMap::new(), false), known);
    }
    let measured = Amount::Sum(vec![
        Term::Fixed(credits("1")),
        term(Source::Mebibytes, "0.5"),
        term(Source::Seconds, "0.1"),
        term(Source::Trailer(HeaderName::from_static("x-rows")), "0.001"),
    ]);
    let price = Price { hold: credits("100"), charges: vec![charge("2xx", measured)], ..Price::default() };
    let read = |trailers: &[(&'static str, &'static str)], end| {
        let (opened, _) =
            AnswerReader::open(&Arc::new(price.clone()), false, StatusCode::OK, &HeaderMap::new());
        let Opened::Reading(mut reader) = opened else { panic!("known at the head") };
        (0..3).for_each(|_| _ = reader.read(&vec![0; 1 << 19]));
        let trailers =
            trailers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        reader.read_trailers(&trailers.collect());
        charged(reader.finish(end, 2500))
    };
    let expected = Charged { amount: credits("2.017"), note: Note::Plain }; // 1 + 1.5 × 0.5 + 2.5 × 0.1 + 17 × 0.001
    assert_eq!(read(&[("x-rows", "17")], End::Complete), expected);
    assert_eq!(read(&[("x-rows", "17")], End::Abandoned), expected);
    assert_eq!(read(&[], End::Complete), price.unreadable());
}
