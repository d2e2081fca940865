//! Compares [`PointerReader`] with serde_json, which reads a whole document into a tree.

use proptest::prelude::*;

use super::*;

/// The value that serde_json finds at the pointer.
fn reference(document: &[u8], pointer: &str) -> Option<Scalar> {
    let tree: serde_json::Value = serde_json::from_slice(document).ok()?;
    match tree.pointer(pointer)? {
        serde_json::Value::Number(number) => Some(Scalar::Number(number.as_str().to_owned())),
        serde_json::Value::String(text) => Some(Scalar::Text(text.clone())),
        serde_json::Value::Bool(value) => Some(Scalar::Bool(*value)),
        _ => None,
    }
}

/// The value that the reader finds, with exponents written as serde_json writes them. `cuts`: lengths of the pieces.
fn read(document: &[u8], pointer: &str, cuts: &[usize]) -> Option<Scalar> {
    let mut reader = PointerReader::new(Pointer::parse(pointer).unwrap());
    let mut rest = document;
    for cut in cuts {
        let (piece, more) = rest.split_at((*cut).min(rest.len()));
        reader.read(piece);
        rest = more;
    }
    reader.read(rest);
    reader.finish().map(|found| match found {
        Scalar::Number(text) => match text.replace('E', "e").split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with(['+', '-']) => {
                Scalar::Number(format!("{mantissa}e+{exponent}"))
            }
            Some((mantissa, exponent)) => Scalar::Number(format!("{mantissa}e{exponent}")),
            None => Scalar::Number(text),
        },
        text => text,
    })
}

#[test]
fn the_value_at_the_pointer_is_found() {
    let number = |text: &str| Some(Scalar::Number(text.to_owned()));
    let text = |text: &str| Some(Scalar::Text(text.to_owned()));
    let table = [
        (r#"{"a":1}"#, "/a", number("1")),
        (r#" {"b":[1,{"a":2}], "a" : -0.50e+2 } "#, "/a", number("-0.50e+2")),
        (r#"{"a":{"a":{"b":3}}}"#, "/a/a/b", number("3")),
        (r#"{"a":{"x":1},"b":2}"#, "/a/b", None),
        (r#"{"a":{"b":1},"a":{}}"#, "/a/b", None),
        (r#"{"a":{"b":1},"a":{"b":2}}"#, "/a/b", number("2")),
        (r#"{"a":1,"a":null}"#, "/a", None),
        (r#"[[0],[1,[2,3]]]"#, "/1/1/1", number("3")),
        (r#"[1,2]"#, "/01", None),
        (r#"{"01":7}"#, "/01", number("7")),
        (r#"{"a/b":{"~":1}}"#, "/a~1b/~0", number("1")),
        (r#"{"":{"":4}}"#, "//", number("4")),
        (r#"{"\u0061":"\ud83d\ude00\n"}"#, "/a", text("😀\n")),
        (r#"{"a":1}x"#, "/a", None),
        (r#"{"a":1"#, "/a", None),
        (r#"{"a":01}"#, "/a", None),
        (r#"{"a":1,}"#, "/a", None),
        (r#"{"a":1,"b":"\ud800"}"#, "/a", None),
        ("", "/a", None),
    ];
    for (document, pointer, expected) in table {
        assert_eq!(reference(document.as_bytes(), pointer), expected, "{document}");
        assert_eq!(read(document.as_bytes(), pointer, &[]), expected, "{document}");
        assert_eq!(read(document.as_bytes(), pointer, &[1; 64]), expected, "{document}, byte by byte");
    }
}

#[test]
fn nesting_is_bounded_as_serde_json_bounds_it() {
    for depth in [1, 126, 127, 128, 129, 5000] {
        let document = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let pointer = "/0".repeat(depth);
        assert_eq!(
            read(document.as_bytes(), &pointer, &[]),
            reference(document.as_bytes(), &pointer),
            "{depth}"
        );
    }
}

/// Promise 8 of the contract (bounded memory): the state does not grow with the document.
#[test]
fn nothing_of_the_document_is_kept() {
    let long = format!(r#"{{"x":"{}","a":"{}"}}"#, "y".repeat(1 << 20), "1".repeat(1 << 20));
    let mut reader = PointerReader::new(Pointer::parse("/a").unwrap());
    for piece in long.as_bytes().chunks(1000) {
        reader.read(piece);
        assert!(reader.kept.capacity() <= 2 * MAX_FOUND, "{}", reader.kept.capacity());
    }
    assert!(size_of::<PointerReader>() <= 192, "{}", size_of::<PointerReader>());
    assert_eq!(reader.finish(), None, "too long for an amount");
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("0"), Just("1"), Just(""), Just("a/b"), Just("é"), Just("\n")]
        .prop_map(str::to_owned)
}

fn quoted(text: &str, escape: bool) -> String {
    match escape {
        true => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        }
        false => serde_json::to_string(text).unwrap(),
    }
}

/// Generates documents with repeated member names, escapes and white space.
fn document() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,8})?([eE][+-]?[0-9]{1,3})?";
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        number,
        (".{0,6}", any::<bool>()).prop_map(|(text, escape)| quoted(&text, escape)),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        let member = (name(), any::<bool>(), inner.clone())
            .prop_map(|(name, escape, value)| format!("{} : {value}", quoted(&name, escape)));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(member, 0..5).prop_map(|items| format!("{{{}}}", items.join(",\n"))),
        ]
    })
}

fn pointer() -> impl Strategy<Value = String> {
    let token = prop_oneof![Just("a"), Just("b"), Just("0"), Just("1"), Just(""), Just("a~1b"), Just("é")];
    prop::collection::vec(token, 1..5).prop_map(|tokens| format!("/{}", tokens.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_finds_what_serde_json_finds(
        document in document(), pointer in pointer(), cuts in prop::collection::vec(0_usize..9, 0..20),
    ) {
        let expected = reference(document.as_bytes(), &pointer);
        prop_assert_eq!(read(document.as_bytes(), &pointer, &cuts), expected);
    }

    /// Compares damaged documents: a byte is changed, removed or inserted, or the end is missing.
    #[test]
    fn it_accepts_what_serde_json_accepts(
        document in document(), at: prop::sample::Index, byte: u8, change in 0..4, pointer in pointer(),
    ) {
        let mut bytes = document.into_bytes();
        let at = at.index(bytes.len());
        match change {
            0 => bytes[at] = byte,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, byte),
            _ => bytes.truncate(at),
        }
        prop_assert_eq!(read(&bytes, &pointer, &[3, 1, 4]), reference(&bytes, &pointer));
        let wrapped = [&b"{\"a\":1,\"b\":"[..], &bytes, b"}"].concat();
        prop_assert_eq!(read(&wrapped, "/a", &[]), reference(&wrapped, "/a"));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        prop_assert_eq!(read(&bytes, "/a", &[2]), reference(&bytes, "/a"));
    }
}
