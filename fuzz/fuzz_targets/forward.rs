//! Fuzzes the head of the upstream request: it is one well-formed head, names the account exactly once, and never
//! contains the key.
#![no_main]

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::Method;
use libfuzzer_sys::fuzz_target;
use tollgate::policy::forward::{Facts, Framing, Identity, write_head};
use tollgate::types::{AccountId, KeyHash, KeyId};

fuzz_target!(|input: (Vec<(Vec<u8>, Vec<u8>)>, u64, u8)| {
    let (fields, length, flags) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().take(32) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers.insert("x-api-key", HeaderValue::from_static("the-secret-key"));
    let (id, host) = (HeaderValue::from_static("req_1"), HeaderValue::from_static("up.test"));
    let account: AccountId = "acme".parse().unwrap();
    let framing = match flags & 3 {
        0 => Framing::None,
        1 => Framing::Chunked,
        _ => Framing::Length(length),
    };
    let facts = Facts {
        key_header: &HeaderName::from_static("x-api-key"),
        strip_authorization: flags & 4 != 0,
        identity: Some(Identity { account: &account, key: KeyId::of_hash(&KeyHash([7; 32])), plan: None }),
        request_id: &id,
        peer: "192.0.2.1",
        secure: flags & 8 != 0,
        http2: flags & 16 != 0,
        trusted: flags & 32 != 0,
        client_host: None,
        upstream_host: &host,
        framing,
        upgrade: None,
        readable_encodings: flags & 64 != 0,
        trace: None,
        set_headers: &[],
    };
    let mut head = Vec::new();
    write_head(&mut head, &Method::GET, ("/a", None), &headers, &facts);
    let lines: Vec<&[u8]> = head.strip_suffix(b"\r\n\r\n").expect("an end").split(|&byte| byte == b'\n').collect();
    let mut names = Vec::new();
    for line in &lines[1..] {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control()), "{line:?}");
        let colon = line.iter().position(|&byte| byte == b':').expect("a name");
        names.push(String::from_utf8(line[..colon].to_vec()).unwrap());
    }
    let count = |name: &str| names.iter().filter(|known| *known == name).count();
    for name in ["host", "x-request-id", "x-tollgate-account", "x-tollgate-key", "x-forwarded-for"] {
        assert_eq!(count(name), 1, "{name}");
    }
    assert!(count("via") >= 1, "others stand before it");
    let twins = names.iter().filter(|name| name.contains('_')).map(|name| name.replace('_', "-"));
    assert!(!twins.into_iter().any(|twin| twin.starts_with("x-tollgate-") || twin == "x-api-key"));
    assert!(count("content-length") + count("transfer-encoding") <= 1);
    assert_eq!(count("x-api-key") + count("x_api_key"), 0);
});
