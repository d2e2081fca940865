//! Tests the header fields of upstream requests, responses and trailers.

use super::*;

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

/// The header fields of the upstream request for a client request with these fields.
fn forwarded_headers(pairs: &[(&'static str, &str)], trusted: bool) -> HeaderMap {
    let key_header = HeaderName::from_static("x-api-key");
    let (request_id, host) = (HeaderValue::from_static("req_1"), HeaderValue::from_static("api.example.com"));
    let facts = Facts {
        key_header: &key_header,
        strip_authorization: false,
        identity: Some(Identity { account: &"acme".parse().unwrap(), key: KeyId(0x1a), plan: None }),
        request_id: &request_id,
        peer: "192.0.2.7",
        secure: false,
        http2: false,
        trusted,
        client_host: Some(&host),
        upstream_host: &HeaderValue::from_static("127.0.0.1:9000"),
        framing: Framing::Length(3),
        upgrade: None,
        readable_encodings: false,
        trace: None,
        set_headers: &[
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer the upstream's")),
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer ours")),
        ],
    };
    let mut out = Vec::new();
    write_head(&mut out, &Method::POST, ("/a", Some("b=c")), &map(pairs), &facts);
    let text = String::from_utf8(out).unwrap();
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    assert_eq!(lines.next(), Some("POST /a?b=c HTTP/1.1"));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

#[test]
fn a_client_cannot_speak_in_tollgates_name() {
    let headers = forwarded_headers(
        &[
            ("x-api-key", "secret"),
            ("x_api_key", "twin"),
            ("x-tollgate-account", "victim"),
            ("x_tollgate_plan", "gold"),
            ("x-tollgate-anything", "1"),
            ("x-request-id", "theirs"),
            ("x-forwarded-for", "203.0.113.1"),
            ("forwarded", "for=203.0.113.1"),
            ("connection", "x-tollgate-account, close, x-hop, content-length"),
            ("x-hop", "1"),
            ("authorization", "Bearer theirs"),
            ("content-length", "3"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("expect", "100-continue"),
            ("cookie", "kept"),
        ],
        false,
    );
    let expected = map(&[
        ("cookie", "kept"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.example.com"),
        ("host", "127.0.0.1:9000"),
        ("via", "1.1 tollgate"),
        ("x-request-id", "req_1"),
        ("x-tollgate-account", "acme"),
        ("x-tollgate-key", "key_000000000000001a"),
        ("content-length", "3"),
        ("authorization", "Bearer ours"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn trailers_say_nothing_that_a_head_would_not() {
    let keys =
        KeySource { header: HeaderName::from_static("x-api-key"), bearer: false, refuse_query: Vec::new() };
    let set = [(HeaderName::from_static("x-set"), HeaderValue::from_static("1"))];
    let mut trailers = map(&[
        ("x-api-key", "secret"),
        ("x_api_key", "twin"),
        ("x-tollgate-plan", "gold"),
        ("x_tollgate_plan", "gold"),
        ("x-forwarded-for", "203.0.113.1"),
        ("x-request-id", "theirs"),
        ("x-set", "theirs"),
        ("x-checksum", "kept"),
    ]);
    strip_trailers(&mut trailers, &keys, &set);
    assert_eq!(trailers, map(&[("x-checksum", "kept")]));
}

#[test]
fn a_trusted_proxys_list_is_continued() {
    let sent = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "https")];
    let headers = forwarded_headers(&sent, true);
    assert_eq!(headers["x-forwarded-for"], "203.0.113.1, 192.0.2.7");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "api.example.com");
}

#[test]
fn only_one_named_protocol_is_upgraded_to() {
    let table = [
        (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], true),
        (&[("upgrade", "websocket")], false),
        (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], false),
    ];
    for (headers, expected) in table {
        assert_eq!(upgrade(&map(headers)).is_some(), expected, "{headers:?}");
    }
}

#[test]
fn the_upstream_cannot_speak_of_credits() {
    let mut headers = map(&[("x-credits-used", "9"), ("connection", "x-a"), ("x-a", "1"), ("etag", "e")]);
    to_client(&mut headers, false);
    assert_eq!(headers, map(&[("etag", "e"), ("via", "1.1 tollgate")]));
}

#[test]
fn twins_of_what_the_operator_sets_and_of_framing_are_known() {
    let set = [(HeaderName::from_static("x-internal-token"), HeaderValue::from_static("ours"))];
    let name = HeaderName::from_static;
    assert!(is_twin_of(&name("x_internal_token"), &set) && is_twin_of(&name("x_internal-token"), &set));
    assert!(!is_twin_of(&name("x_other"), &set));
    for twin in ["content_length", "transfer_encoding", "x_tollgate_account", "x_api_key", "x_forwarded_for"]
    {
        assert!(is_own(twin, &name("x-api-key")), "{twin}");
    }
}
