//! Tests prices in event streams, in JSON lines and in compressed responses.

use std::io::Write;

use proptest::prelude::*;

use super::*;

#[test]
fn a_price_is_read_from_the_last_event_that_has_it() {
    let chunk = r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":null}"#;
    let table = [
        (format!("{chunk}\n\n{chunk}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"), USAGE_COST, Note::Plain),
        (format!("{chunk}\r\n\r\ndata: {USAGE}\r\n\r\n{chunk}\r\n\r\n"), USAGE_COST, Note::Plain),
        (format!(": ping\n\nevent: end\ndata: {USAGE}"), USAGE_COST, Note::Plain),
        (format!("{chunk}\n\ndata: [DONE]\n\n"), "2", Note::Unreadable),
    ];
    for (body, amount, note) in &table {
        for piece in [1, 2, 3, 64, 4096] {
            let expected = Charged { amount: credits(amount), note: *note };
            let headers = typed("text/event-stream; charset=utf-8", None);
            assert_eq!(charge_of(&tokens(), 200, &headers, body.as_bytes(), piece), expected, "{body}");
        }
    }
    let lines = format!("{{\"usage\":null}}\n{USAGE}\n");
    assert_eq!(
        charge_of(&tokens(), 200, &typed("application/x-ndjson", None), lines.as_bytes(), 5).amount,
        credits(USAGE_COST)
    );
    // `last-event` takes the last JSON event, whether or not it has the value.
    let last = Amount::Read(Source::LastEvent(Pointer::parse("/cost").unwrap()));
    let price = Price { hold: credits("9"), charges: vec![charge("2xx", last)], ..Price::default() };
    let stream = typed("text/event-stream", None);
    let cost = |body: &str| charge_of(&price, 200, &stream, body.as_bytes(), 4);
    assert_eq!(cost("data: {\"cost\":1}\n\ndata: {\"cost\":2}\n\ndata: [DONE]\n\n").amount, credits("2"));
    assert_eq!(cost("data: {\"cost\":1}\n\ndata: {}\n\n"), price.unreadable());
}

fn compressed(coding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(body).unwrap();
            out
        }
        _ => zstd::stream::encode_all(body, 3).unwrap(),
    }
}

#[test]
fn prices_are_read_from_compressed_responses() {
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let headers = typed("application/json", Some(coding));
        let whole = compressed(coding, USAGE.as_bytes());
        for piece in [1, 5, 4096] {
            let charged = charge_of(&tokens(), 200, &headers, &whole, piece);
            assert_eq!(
                charged,
                Charged { amount: credits(USAGE_COST), note: Note::Plain },
                "{coding} by {piece}"
            );
        }
        let cut = &whole[..whole.len() - 1];
        if coding != "zstd" && coding != "br" {
            assert_eq!(charge_of(&tokens(), 200, &headers, cut, 9), tokens().unreadable(), "{coding} cut");
        }
        assert_eq!(
            charge_of(&tokens(), 200, &headers, USAGE.as_bytes(), 9),
            tokens().unreadable(),
            "not {coding}"
        );
        // What becomes too large is not read on.
        let bomb = compressed(coding, format!("{USAGE}{}", " ".repeat(8 * MAX_PRICED_JSON)).as_bytes());
        assert_eq!(
            charge_of(&tokens(), 200, &headers, &bomb, bomb.len()),
            tokens().unreadable(),
            "{coding} bomb"
        );
        let stream = format!("data: {USAGE}\n\n");
        let headers = typed("text/event-stream", Some(coding));
        let charged = charge_of(&tokens(), 200, &headers, &compressed(coding, stream.as_bytes()), 3);
        assert_eq!(charged.amount, credits(USAGE_COST), "{coding} events");
    }
    for coding in ["compress", "gzip, br"] {
        let headers = typed("application/json", Some(coding));
        assert_eq!(
            charge_of(&tokens(), 200, &headers, USAGE.as_bytes(), 9),
            tokens().unreadable(),
            "{coding}"
        );
    }
}

proptest! {
    /// However a stream is cut, and whatever stands in it, the charge is the same, and between zero and the hold.
    #[test]
    fn the_charge_does_not_depend_on_how_a_body_arrives(
        body in prop::collection::vec(prop_oneof![
            Just("data: ".to_owned()), Just("\n".to_owned()), Just("\r\n".to_owned()), Just(USAGE.to_owned()),
            Just("{\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}".to_owned()), "[a-z{}:\" \n]{0,8}",
        ], 0..20),
        piece in 1_usize..40,
        kind in 0_usize..3,
    ) {
        let body = body.concat();
        let headers = typed(["application/json", "text/event-stream", "application/jsonl"][kind], None);
        let whole = charge_of(&tokens(), 200, &headers, body.as_bytes(), usize::MAX);
        prop_assert_eq!(charge_of(&tokens(), 200, &headers, body.as_bytes(), piece), whole);
        prop_assert!(!whole.amount.is_negative() && whole.amount <= tokens().hold);
    }
}
