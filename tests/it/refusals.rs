//! Tests the text of every refusal in every dialect, to the letter of the seeds.

use tollgate::policy::reject::{Reason, Refusal};

use crate::support::{Client, Gateway, Response, Upstream, config, get, post, send, sha256};

const DIALECTS: [&str; 3] = ["problem", "apione", "enrow"];

/// A reason, then its status and body in each dialect. The test replaces `MSG` with Tollgate's default message.
type Row = (Reason, [(u16, &'static str); 3]);

const PROBLEM: &str = r#"{"type":"about:blank","title":"TITLE","status":STATUS,"detail":"MSG","code":"CODE","request_id":"req_1"}"#;
const APIONE: &str = r#"{"status":"error","code":"CODE","message":"MSG","request_id":"req_1"}"#;
const INVALID: &str = r#"{"status":"error","code":"invalid_api_key","message":"Invalid or missing API key","request_id":"req_1"}"#;
const ENROW: &str = r#"{"message":"MSG"}"#;
const MISSING: &str = r#"{"message":"No apikey found in the x-api-key headers"}"#;
const NOT_VALID: &str = r#"{"message":"This apikey is not valid"}"#;

const fn same(status: u16) -> [(u16, &'static str); 3] {
    [(status, PROBLEM), (status, APIONE), (status, ENROW)]
}

const TABLE: [Row; 22] = [
    (Reason::BadRequest, same(400)),
    (Reason::HeaderTooLarge, same(431)),
    (Reason::NoRoute, same(404)),
    (Reason::MethodNotAllowed, same(405)),
    (Reason::MissingKey, [(401, PROBLEM), (401, INVALID), (401, MISSING)]),
    (Reason::KeyInQuery, [(401, PROBLEM), (401, INVALID), (401, MISSING)]),
    (Reason::InvalidKey, [(401, PROBLEM), (401, INVALID), (401, NOT_VALID)]),
    (Reason::AccountSuspended, same(403)),
    (Reason::RouteForbidden, same(403)),
    (Reason::AddressForbidden, same(403)),
    (Reason::NoJob, same(404)),
    (Reason::BodyTooLarge, same(413)),
    (Reason::IdempotencyInProgress, same(409)),
    (Reason::IdempotencyKeyReused, same(422)),
    (Reason::ResponseNotKept, same(409)),
    (
        Reason::RateLimited,
        [
            (429, PROBLEM),
            (
                429,
                r#"{"status":"error","code":"rate_limit_exceeded","message":"Rate limit exceeded. Retry after 12 seconds.","request_id":"req_1","retry_after":12}"#,
            ),
            (429, r#"{"message":"Rate limit exceeded"}"#),
        ],
    ),
    (
        Reason::ConcurrencyLimited,
        [
            (429, PROBLEM),
            (
                429,
                r#"{"status":"error","code":"rate_limit_exceeded","message":"Too many requests at once. Retry after 12 seconds.","request_id":"req_1","retry_after":12}"#,
            ),
            (429, r#"{"message":"Rate limit exceeded"}"#),
        ],
    ),
    (
        Reason::InsufficientCredits,
        [
            (402, PROBLEM),
            (
                403,
                r#"{"status":"error","code":"insufficient_credits","message":"Your account has no remaining credits","request_id":"req_1"}"#,
            ),
            (
                402,
                r#"{"message":"Your credit balance is insufficient. Please top up or upgrade your plan."}"#,
            ),
        ],
    ),
    (Reason::LedgerUnavailable, same(503)),
    (Reason::UpstreamUnreachable, same(502)),
    (Reason::UpstreamTimeout, same(504)),
    (Reason::Overloaded, same(503)),
];

fn routes_in_every_dialect() -> String {
    let route = |dialect: &str| {
        format!(
            "[[routes]]\nname = \"{dialect}\"\npath = \"/{dialect}/{{x}}\"\nmethods = [\"GET\", \"POST\"]\nupstream = \"api\"\ncredits = 4\nmax_body_size = \"8B\"\ndialect = \"{dialect}\"\n"
        )
    };
    DIALECTS.map(route).concat()
}

#[test]
fn every_refusal_is_worded_in_every_dialect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let text = config(&routes_in_every_dialect()).replace("{upstream}", "127.0.0.1:1");
    std::fs::write(&path, text).unwrap();
    let loaded = tollgate::config::load(&path).unwrap();
    let mut rows = 0;
    for (reason, expected) in TABLE {
        for (dialect, (status, body)) in DIALECTS.iter().zip(expected) {
            let route = loaded.snapshot.routes.iter().find(|route| route.name.as_str() == *dialect).unwrap();
            let refusal = Refusal { retry_after: Some(12), ..reason.into() };
            let worded = route.dialect.build_response(&refusal, "req_1");
            let message = reason.message().replace("{retry_after}", "12");
            let title = http::StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
            let body = body.replace("MSG", &message).replace("CODE", reason.code());
            let body = body.replace("TITLE", title).replace("STATUS", &status.to_string());
            assert_eq!(worded.status.as_u16(), status, "{dialect} {reason:?}");
            assert_eq!(worded.body, body, "{dialect} {reason:?}");
            let content_type =
                if *dialect == "problem" { "application/problem+json" } else { "application/json" };
            assert_eq!(worded.content_type, content_type);
            rows += 1;
        }
    }
    assert_eq!(rows, 66);
}

/// Provokes every refusal that can be provoked from outside, in each dialect.
#[test]
fn refusals_over_http_have_their_status_headers_and_body() {
    let upstream = Upstream::start();
    let keys: String = [
        ("scoped", "scopes = [\"free\"]"),
        ("far", "allow_from = [\"203.0.113.0/24\"]"),
        ("expired", "expires = 2020-01-01"),
    ]
    .map(|(key, setting)| {
        format!("[[accounts.acme.keys]]\nlabel = \"{key}\"\nsha256 = \"{}\"\n{setting}\n", sha256(key))
    })
    .concat();
    let accounts = format!(
        "[accounts.poor]\ncredits = 3.999999\n[[accounts.poor.keys]]\nlabel = \"poor\"\nsha256 = \"{}\"\n\
         [plans.tight]\nlimits = [{{ name = \"per-minute\", requests = 1, window = \"60s\", algorithm = \"sliding-window\" }}]\n\
         [accounts.busy]\nplan = \"tight\"\ncredits = 100\n[[accounts.busy.keys]]\nlabel = \"busy\"\nsha256 = \"{}\"\n\
         [plans.single]\nconcurrency = 1\n\
         [accounts.single]\nplan = \"single\"\ncredits = 100\n[[accounts.single.keys]]\nlabel = \"single\"\nsha256 = \"{}\"\n\
         [accounts.frozen]\ncredits = 100\n[[accounts.frozen.keys]]\nlabel = \"frozen\"\nsha256 = \"{}\"\n",
        sha256("poor"),
        sha256("busy"),
        sha256("single"),
        sha256("frozen"),
    );
    let more = format!("{keys}{}{accounts}", routes_in_every_dialect());
    let gateway = Gateway::start(&config(&more), &upstream);
    gateway.json(&["account", "suspend", "frozen"]);
    for dialect in DIALECTS {
        let path = format!("/{dialect}/x");
        let with = |key: &str| get(gateway.public, &path, &format!("x-api-key: {key}\r\n"));
        let row = |reason: Reason, response: Response| check(dialect, reason, &response);
        row(Reason::MissingKey, get(gateway.public, &path, ""));
        row(
            Reason::KeyInQuery,
            get(gateway.public, &format!("{path}?API%5FKEY=good-key"), "x-api-key: good-key\r\n"),
        );
        for key in ["unknown", "expired", "", "good-key\r\nx-api-key: good-key", &sha256("good-key")] {
            row(Reason::InvalidKey, with(key));
        }
        row(Reason::AccountSuspended, with("frozen"));
        row(Reason::RouteForbidden, with("scoped"));
        row(Reason::AddressForbidden, with("far"));
        row(Reason::BodyTooLarge, post(gateway.public, &path, "x-api-key: good-key\r\n", "123456789"));
        row(Reason::InsufficientCredits, with("poor"));
        if dialect == "problem" {
            assert_eq!(with("busy").status, 200); // uses up the limit for all dialects
        }
        let limited = with("busy");
        let after: u64 = limited.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=61).contains(&after));
        assert_eq!(limited.header("ratelimit"), Some(&*format!("\"per-minute\";r=0;t={after}")));
        assert_eq!(limited.header("ratelimit-policy"), Some("\"per-minute\";q=1;w=60"));
        row(Reason::RateLimited, limited);
        let mut first = Client::connect(gateway.public);
        first
            .send(format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: single\r\nx-response-delay: 400\r\n\r\n"
            ))
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let second = with("single");
        assert_eq!(second.header("retry-after"), Some("1"));
        row(Reason::ConcurrencyLimited, second);
        assert_eq!(first.read(false).unwrap().status, 200);
    }
    let seen_before = upstream.seen().len();
    let other = send(gateway.public, "PATCH /apione/x HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((other.status, other.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(get(gateway.public, "/nowhere", "").status, 404);
    assert_eq!(upstream.seen().len(), seen_before);
    assert_eq!(gateway.available("poor"), "3.999999");
}

fn check(dialect: &str, reason: Reason, response: &Response) {
    let at = DIALECTS.iter().position(|known| *known == dialect).unwrap();
    let (_, expected) = TABLE.iter().find(|(known, _)| *known == reason).unwrap();
    let id = response.header("x-request-id").unwrap();
    assert!(id.starts_with("req_"));
    let (status, _) = expected[at];
    assert_eq!(response.status, status, "{dialect} {reason:?} {}", response.text());
    let body = response.json();
    match dialect {
        "problem" => {
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
            assert_eq!((body["code"].as_str(), body["request_id"].as_str()), (Some(reason.code()), Some(id)));
        }
        "apione" => {
            assert_eq!((body["status"].as_str(), body["request_id"].as_str()), (Some("error"), Some(id)));
            let after = response.header("retry-after").map(|after| after.parse::<u64>().unwrap());
            assert_eq!(body["retry_after"].as_u64(), after);
        }
        _ => assert_eq!(body.as_object().unwrap().len(), 1, "only a message"),
    }
    let challenge = (status == 401).then_some("ApiKey realm=\"tollgate\"");
    assert_eq!(response.header("www-authenticate"), challenge);
    assert_eq!(response.header("x-credits-used").unwrap_or("0"), "0");
}

#[test]
fn account_info_is_exact() {
    for (credits, shown) in [("8500", "8500"), ("8499.75", "8499.75"), ("0", "0")] {
        let upstream = Upstream::start();
        let more = format!(
            "[accounts.other]\ncredits = {credits}\nwebhooks = [\"https://your-app.com/webhooks/enrow\"]\n[[accounts.other.keys]]\nlabel = \"k\"\nsha256 = \"{}\"\nscopes = [\"one\"]\n",
            sha256("other")
        );
        let gateway = Gateway::start(&config(&more), &upstream);
        let response = get(gateway.public, "/account/info", "x-api-key: other\r\n");
        assert_eq!(response.status, 200);
        let expected =
            format!("{{\"credits\":{shown},\"webhooks\":[\"https://your-app.com/webhooks/enrow\"]}}");
        assert_eq!(response.text(), expected);
        assert_eq!(get(gateway.public, "/account/info", "").status, 401);
        assert_eq!(post(gateway.public, "/account/info", "x-api-key: other\r\n", "").status, 405);
        assert!(upstream.seen().is_empty());
    }
}

#[test]
fn account_info_refuses_as_routes_do_and_public_routes_take_no_key_in_the_query() {
    let upstream = Upstream::start();
    let more = format!(
        "[[accounts.acme.keys]]\nlabel = \"far\"\nsha256 = \"{}\"\nallow_from = [\"203.0.113.0/24\"]\n",
        sha256("far")
    );
    let gateway = Gateway::start(&config(&more), &upstream);
    let refused = get(gateway.public, "/account/info", "x-api-key: far\r\n");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("address_forbidden")));
    let refused = get(gateway.public, "/open/a?x=1&api_key=good-key", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("key_in_query")));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_dialect_of_ones_own_words_what_it_names() {
    let upstream = Upstream::start();
    let more = "[dialects.mine]\nmissing_key = { status = 418, content_type = \"text/plain\", body = \"{code} {status} {message}\", message = \"who?\" }\n\
                [[routes]]\nname = \"mine\"\npath = \"/mine\"\nupstream = \"api\"\ndialect = \"mine\"\n";
    let gateway = Gateway::start(&config(more), &upstream);
    let response = get(gateway.public, "/mine", "");
    assert_eq!((response.status, &*response.text()), (418, "missing_key 418 who?"));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(get(gateway.public, "/mine", "x-api-key: bad\r\n").json()["code"], "invalid_key");
}
