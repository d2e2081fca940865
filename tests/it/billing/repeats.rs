//! Tests requests with an `Idempotency-Key`: of several, one is forwarded and charged, and the others get its response
//! (promises 2, 3 and 5).

use serde_json::json;

use super::jobs::{BULK, done, poll};
use crate::api::{Api, admin_config};
use crate::support::{Client, Gateway, Response, Upstream, eventually, sha256};

pub(super) fn config(more: &str) -> String {
    let second =
        format!("[[accounts.acme.keys]]\nlabel = \"second\"\nsha256 = \"{}\"\n", sha256("second-key"));
    let other = format!(
        "[accounts.other]\ncredits = 10\n[[accounts.other.keys]]\nlabel = \"o\"\nsha256 = \"{}\"\n",
        sha256("other-key")
    );
    admin_config(&format!("{second}{other}[idempotency]\n{more}{BULK}"))
}

/// Sends a request with a body and an idempotency key.
pub fn ask(gateway: &Gateway, key: &str, id: &str, (path, headers, body): (&str, &str, &str)) -> Response {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\nidempotency-key: {id}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::connect(gateway.public).ask(head).unwrap()
}

/// The parts of a response that a repeated request gets too.
fn parts(response: &Response) -> (u16, String, Vec<(String, String)>) {
    let own = |name: &str| {
        matches!(
            name,
            "x-request-id" | "x-credits-remaining" | "x-credits-used" | "idempotency-replayed" | "date"
        ) || matches!(name, "content-length" | "transfer-encoding" | "trailer")
    };
    let mut headers = response.headers.clone();
    headers.retain(|(name, _)| !own(name));
    (response.status, response.text(), headers)
}

#[test]
fn a_repeated_request_gets_the_first_response_and_is_charged_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let echo = "x-response-header: set-cookie: a=1|set-cookie: b=2|x-cost: 3\r\nx-response-status: 201\r\n";
    let requests = [
        ("/one", echo, "body one"),
        ("/header", echo, "body two"),
        ("/json", "x-response-body: {\"cost\":0.5,\"text\":\"é\"}\r\n", "{}"),
        ("/json", "x-response-chunks: {\"cost\":| 2.25}\r\n", "{}"),
        ("/header", "x-response-status: 404\r\nx-response-body: none\r\n", "body"),
        ("/one", "x-response-status: 204\r\n", "b"),
    ];
    let mut spent = 0.0;
    for (at, request) in requests.into_iter().enumerate() {
        let id = format!("id-{at}");
        let first = ask(&gateway, "good-key", &id, request);
        assert_eq!(first.header("idempotency-replayed"), None);
        let after = gateway.available("acme");
        // Another key of the account gets it too, also after a crash, and when it was folded.
        let second = ask(&gateway, "second-key", &id, request);
        assert_eq!((parts(&second), second.header("idempotency-replayed")), (parts(&first), Some("true")));
        spent += second.charged().unwrap().parse::<f64>().unwrap();
        assert!(first.charged().is_none_or(|charged| Some(charged) == second.charged()));
        assert_eq!(gateway.available("acme"), after);
    }
    assert_eq!(upstream.seen().len(), requests.len());
    assert_eq!(upstream.last().header("idempotency-key"), Some("id-5"), "the upstream gets the key");
    assert_eq!(gateway.available("acme").parse::<f64>().unwrap(), 1000.0 - spent);
    let kept = gateway.folder.path().join("ledger.db");
    let gateway = Gateway::start_in(gateway.crash());
    let api = Api::of(&gateway);
    let replays =
        || api.get("/v1/usage?account=acme&step=all&from=2h")["data"][0]["outcomes"]["replayed"].as_u64();
    let before = replays().unwrap_or_default();
    let again = |at: usize| ask(&gateway, "good-key", &format!("id-{at}"), requests[at]);
    let mut replayed = again(0);
    for at in 0..requests.len() {
        replayed = again(at);
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(upstream.seen().len(), requests.len());
    // Nothing of it can be read in the ledger's files.
    for file in std::fs::read_dir(kept.parent().unwrap()).unwrap().flatten() {
        let name = file.file_name();
        if name.to_string_lossy().starts_with("ledger.db") {
            let bytes = std::fs::read(file.path()).unwrap();
            for text in ["body one", "{\"cost\": 2.25}", "set-cookie", "x-response-body"] {
                assert!(
                    !bytes.windows(text.len()).any(|part| part == text.as_bytes()),
                    "{name:?} has {text:?}"
                );
            }
        }
    }
    // Another account's request with the same key is its own.
    assert_eq!(ask(&gateway, "other-key", "id-0", requests[0]).header("idempotency-replayed"), None);
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
    eventually("the repeats are counted", || replays() == Some(before + 7));
    let id = replayed.header("x-request-id").unwrap();
    let request = api.get(&format!("/v1/requests/{id}"));
    assert_eq!((&request["outcome"], &request["credits"]), (&json!("replayed"), &json!(0)));
    let steps: Vec<_> =
        request["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["head", "route", "key", "account", "scope", "address", "body", "limits", "repeat"]);
}

#[test]
fn another_request_with_the_same_key_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("max_body = \"1KiB\"\n"), &upstream);
    let first = ("/one", "", "a body");
    assert_eq!(ask(&gateway, "good-key", "id", first).status, 200);
    for other in [
        ("/one", "", "another"),
        ("/one?a=1", "", "a body"),
        ("/header", "", "a body"),
        ("/one", "content-type: text/plain\r\n", "a body"),
    ] {
        let refused = ask(&gateway, "good-key", "id", other);
        assert_eq!((refused.status, refused.charged()), (422, Some("0")));
        assert!(refused.text().contains("idempotency_key_reused"), "{}", refused.text());
    }
    for (header, status) in [("idempotency-key: x\r\n", 400), ("", 200)] {
        let twice = ask(&gateway, "good-key", "id-2", ("/one", header, "b"));
        assert_eq!(twice.status, status, "{}", twice.text());
    }
    for wrong in ["", "a b", "é", &"k".repeat(256)] {
        assert_eq!(ask(&gateway, "good-key", wrong, first).status, 400, "{wrong:?}");
    }
    let large = "b".repeat(1025);
    let refused = ask(&gateway, "good-key", "id-3", ("/one", "", &large));
    assert!(refused.status == 413 && refused.text().contains("at most 1024 bytes"), "{}", refused.text());
    // A free request is passed on as it is.
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "good-key", "id-3", ("/free/a", "", &large)).status, 200);
    }
    assert_eq!(upstream.seen().iter().filter(|seen| seen.target() == "/free/a").count(), 2);
    assert_eq!(gateway.available("acme"), "998");
}

#[test]
fn while_the_first_request_is_in_progress_others_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config(""), &upstream);
    let slow = ("/one", "x-response-delay: 4000\r\n", "a");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&gateway, "good-key", "id", slow));
        eventually("the upstream has it", || upstream.seen().len() == 1);
        let refused = ask(&gateway, "good-key", "id", slow);
        assert_eq!((refused.status, refused.header("retry-after")), (409, Some("1")));
        assert!(refused.text().contains("idempotency_in_progress"), "{}", refused.text());
        assert_eq!(ask(&gateway, "good-key", "id", ("/one", "", "b")).status, 422);
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(ask(&gateway, "good-key", "id", slow).header("idempotency-replayed"), Some("true"));
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (1, "999".to_owned()));
}

/// A client that is gone before its response gets the response when it comes again.
#[test]
fn the_response_is_kept_for_a_client_that_was_gone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        &config("").replace("credits = 1\n", "credits = 1\non_disconnect = \"abandon\"\n"),
        &upstream,
    );
    for (at, headers) in ["x-response-delay: 300\r\n", "x-response-chunks: aaa|bbb|ccc|ddd|eee|fff|ggg\r\n"]
        .into_iter()
        .enumerate()
    {
        let id = format!("id-{at}");
        let mut client = Client::connect(gateway.public);
        let head = format!(
            "POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: {id}\r\n{headers}content-length: 1\r\n\r\nb"
        );
        client.send(head).unwrap();
        eventually("the upstream has it", || upstream.seen().len() == at + 1);
        if at == 1 {
            client.head().unwrap();
        }
        drop(client);
        eventually("it is answered", || {
            let again = ask(&gateway, "good-key", &id, ("/one", headers, "b"));
            assert!(again.status == 409 || again.header("idempotency-replayed") == Some("true"));
            again.status == 200 && again.text() == ["{}", "aaabbbcccdddeeefffggg"][at]
        });
    }
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (2, "998".to_owned()));
}

/// What cost nothing is not kept; what was charged and cannot be kept is not made again.
#[test]
fn responses_that_are_not_kept() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&config("max_body = \"1KiB\"\n"), &upstream);
    let refused = |status: u16| format!("x-response-status: {status}\r\n");
    for (at, status) in [500, 503, 429, 301].into_iter().enumerate() {
        let (id, headers) = (format!("free-{at}"), refused(status));
        assert_eq!(ask(&gateway, "good-key", &id, ("/header", &headers, "a")).status, status);
        let again = ask(&gateway, "good-key", &id, ("/header", &headers, "a"));
        assert_eq!((again.status, again.header("idempotency-replayed")), (status, None));
    }
    assert_eq!((upstream.take().len(), gateway.available("acme")), (8, "1000".to_owned()));
    upstream.set_failing(true);
    assert_eq!(ask(&gateway, "good-key", "down", ("/one", "", "a")).status, 502);
    upstream.set_failing(false);
    assert_eq!(ask(&gateway, "good-key", "down", ("/one", "", "a")).status, 200);
    let large = format!("x-response-body: {}\r\n", "r".repeat(1025));
    let cut = "x-response-body: cut off\r\nx-response-cut: 3\r\n";
    let own = |gateway: &Gateway, id, headers: &str| {
        let head = format!(
            "POST /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nidempotency-key: {id}\r\n{headers}content-length: 0\r\n\r\n"
        );
        Client::connect(gateway.public).ask(head)
    };
    assert_eq!(own(&gateway, "large", &large).unwrap().body.len(), 1025);
    assert!(own(&gateway, "cut", cut).is_err());
    upstream.take();
    let mut gateway = gateway;
    for _ in 0..2 {
        for (id, headers) in [("large", &*large), ("cut", cut)] {
            let again = own(&gateway, id, headers).unwrap();
            assert!(again.status == 409 && again.text().contains("response_not_kept"), "{}", again.text());
        }
        gateway = Gateway::start_in(gateway.crash());
    }
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (0, "997".to_owned()));
}

/// A request that opens a job, and one that is charged per item, may be repeated too, although no further job may be open.
#[test]
fn jobs_and_items_are_repeatable() {
    let upstream = Upstream::start();
    let text = config("").replacen(
        "[accounts.acme]\n",
        "[plans.one]\njobs = 1\n[accounts.acme]\nplan = \"one\"\n",
        1,
    );
    let gateway = Gateway::start(&text, &upstream);
    let open = ("/bulk", "x-response-body: {\"id\":\"j\"}\r\n", "{\"records\":[1,2,3]}");
    for replayed in [None, Some("true"), Some("true")] {
        let response = ask(&gateway, "good-key", "id", open);
        assert_eq!((response.status, response.text().as_str()), (200, "{\"id\":\"j\"}"));
        assert_eq!(response.header("idempotency-replayed"), replayed);
    }
    assert_eq!((upstream.seen().len(), gateway.available("acme")), (1, "997".to_owned()));
    let refused = ask(&gateway, "good-key", "other", open);
    assert!(refused.status == 429 && refused.text().contains("open jobs"), "{}", refused.text());
    assert_eq!(poll(&gateway, "good-key", "j", &done("1")).status, 200);
    assert_eq!(ask(&gateway, "good-key", "none", ("/bulk", "", "{\"records\":[]}")).status, 400);
    assert_eq!(ask(&gateway, "good-key", "none", open).status, 200, "nothing was made");
}
