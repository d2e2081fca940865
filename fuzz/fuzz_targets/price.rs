//! Fuzzes prices: whatever cost an upstream's response declares, the charge is at least zero and at most the hold.
#![no_main]

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use tollgate::policy::json::{Pointer, PointerReader};
use tollgate::policy::price::{Amount, AtHead, Charge, Price, StatusMatch};
use tollgate::types::Credits;

fuzz_target!(|input: (String, String, u16, Vec<u8>, Vec<u8>)| {
    let (pattern, pointer, status, header, body) = input;
    let hold: Credits = "50".parse().unwrap();
    let Some(status_match) = StatusMatch::parse(&pattern) else { return };
    let name = HeaderName::from_static("x-cost");
    let Some(pointer) = Pointer::parse(&pointer) else { return };
    let charges = vec![
        Charge { status: StatusMatch::parse("201").unwrap(), amount: Amount::Json(pointer) },
        Charge { status: status_match, amount: Amount::Header(name.clone()) },
    ];
    let price = Price { hold, charges, shadow: false };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&header) {
        headers.insert(name, value);
    }
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let charged = match price.at_head(status, &headers, false) {
        AtHead::Known(charged) => charged,
        AtHead::InBody(pointer) => {
            let mut reader = PointerReader::new(pointer.clone());
            body.chunks(7).for_each(|piece| reader.read(piece));
            price.at_end(reader.finish())
        }
    };
    let AtHead::Known(to_head) = price.at_head(status, &headers, true) else { panic!("a HEAD has no body") };
    assert!(!to_head.amount.is_negative() && to_head.amount <= hold);
    assert!(!charged.amount.is_negative() && charged.amount <= hold);
});
