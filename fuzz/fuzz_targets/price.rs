//! Fuzzes prices: whatever cost an upstream's response declares, the charge is at least zero and at most the hold.
#![no_main]

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

use tollgate::policy::json::Pointer;
use tollgate::policy::price::{Amount, AnswerReader, AtHead, Charge, Decimal, End, Opened, Price, Source, StatusMatch, Term, Verdict};
use tollgate::types::Credits;

fuzz_target!(|input: (String, String, u16, Vec<u8>, Vec<u8>, u8)| {
    let (pattern, pointer, status, header, body, kind) = input;
    let hold: Credits = "50".parse().unwrap();
    let Some(status_match) = StatusMatch::parse(&pattern) else { return };
    let name = HeaderName::from_static("x-cost");
    let Some(pointer) = Pointer::parse(&pointer) else { return };
    let charge = |status, amount| Charge { status, when: Vec::new(), amount };
    let each = Decimal::parse("0.0000025").unwrap();
    let term = Term::Each { from: Source::Json(pointer.clone()), each, is_optional: kind & 1 == 1 };
    let charges = vec![
        charge(StatusMatch::parse("201").unwrap(), Amount::Read(Source::Json(pointer))),
        charge(StatusMatch::parse("200").unwrap(), Amount::Sum(vec![term])),
        charge(status_match, Amount::Read(Source::Header(name.clone()))),
    ];
    let price = Arc::new(Price { hold, charges, ..Price::default() });
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&header) {
        headers.insert(name, value);
    }
    let types = ["application/json", "text/event-stream", "application/jsonl", "text/plain"];
    headers.insert("content-type", HeaderValue::from_static(types[usize::from(kind >> 1 & 3)]));
    let codings = ["identity", "gzip", "deflate", "br", "zstd", "identity", "identity", "identity"];
    headers.insert("content-encoding", HeaderValue::from_static(codings[usize::from(kind >> 3 & 7)]));
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let (opened, _) = AnswerReader::open(&price, false, status, &headers);
    let charged = match opened {
        Opened::Known(charged) => charged,
        Opened::Reading(mut reader) => {
            body.chunks(7).for_each(|piece| _ = reader.read(piece));
            let Verdict::Charge(charged) = reader.finish(End::Complete, 5) else { panic!("no job") };
            charged
        }
    };
    let AtHead::Known(to_head) = price.at_head(status, &headers, true) else { panic!("a HEAD has no body") };
    assert!(!to_head.amount.is_negative() && to_head.amount <= hold);
    assert!(!charged.amount.is_negative() && charged.amount <= hold);
});
