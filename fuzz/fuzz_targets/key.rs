//! Fuzzes the reading of keys: a key comes from exactly one place, or the request is refused. Key checks and hints
//! never panic.
#![no_main]

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tollgate::policy::key::{KeySource, MAX_KEY};
use tollgate::policy::key::generate;

fuzz_target!(|input: (Vec<Vec<u8>>, Option<Vec<u8>>, Option<String>, String, bool)| {
    let (keys, authorization, query, text, bearer) = input;
    let header = HeaderName::from_static("x-api-key");
    let mut headers = HeaderMap::new();
    for value in keys.iter().take(4).filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(&header, value);
    }
    if let Some(value) = authorization.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
        headers.append(AUTHORIZATION, value);
    }
    let source = KeySource { header: header.clone(), bearer, refuse_query: vec!["api_key".to_owned()] };
    if let Ok(key) = source.read(&headers, query.as_deref()) {
        assert!(!key.is_empty() && key.len() <= MAX_KEY);
        assert!(headers.get_all(&header).iter().count() <= 1);
        assert!(!matches!(key, [b' ' | b'\t', ..] | [.., b' ' | b'\t']));
    }
    if generate::is_well_formed(&text) {
        assert!(!generate::hint(&text).contains(&text));
    }
});
