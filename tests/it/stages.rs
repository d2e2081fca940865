//! Tests promises 1, 4 and 5 at every stage of a request: wherever the client disconnects and wherever the upstream
//! fails, the charge is the one of the contract.

use std::time::Duration;

use crate::support::audit::Books;
use crate::support::{Client, Gateway, Upstream, config};

const KEY: &str = "x-api-key: good-key\r\n";
/// The upstream responds this late where the client must have disconnected by then.
const SLOW: &str = "x-response-delay: 200\r\n";

/// The stage at which the client disconnects.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    InHead,
    InBody,
    BeforeAnswer,
    InAnswer,
    AfterAnswer,
}

fn gateway() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&config(""), &upstream), upstream)
}

/// The charge since `before` in millionths, once no request is in flight.
fn charged(gateway: &Gateway, before: &Books) -> i64 {
    for _ in 0..200 {
        let account = gateway.json(&["account", "show", "acme"]);
        if account["available"] == account["balance"] {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Books::read(gateway, "acme").charged - before.charged
}

#[test]
fn a_client_that_leaves_at_any_stage_is_charged_by_the_upstreams_response() {
    use Leaves::{AfterAnswer, BeforeAnswer, InAnswer, InBody, InHead};
    let (gateway, upstream) = gateway();
    let header = "x-response-header: x-cost: 2.5\r\nx-response-body: 0123456789\r\n";
    let json = "x-response-chunks: {\"cost\"|:|3|}\r\n";
    let failed = "x-response-status: 500\r\n";
    // Stage of the disconnect, path, the upstream's response, millionths charged, requests at the upstream.
    let table = [
        (InHead, "/one", "", 0, 0),
        (InHead, "/header", header, 0, 0),
        (InBody, "/one", "", 0, 0),
        (InBody, "/header", header, 0, 0),
        (InBody, "/json", json, 0, 0),
        (BeforeAnswer, "/one", "", 1_000_000, 1),
        (BeforeAnswer, "/one", failed, 0, 1),
        (BeforeAnswer, "/header", header, 2_500_000, 1),
        (BeforeAnswer, "/json", json, 3_000_000, 1),
        (InAnswer, "/one", "x-response-chunks: a|b|c\r\n", 1_000_000, 1),
        (InAnswer, "/header", "x-response-header: x-cost: 2.5\r\nx-response-chunks: a|b|c\r\n", 2_500_000, 1),
        (InAnswer, "/json", json, 3_000_000, 1),
        (AfterAnswer, "/one", "", 1_000_000, 1),
        (AfterAnswer, "/header", header, 2_500_000, 1),
    ];
    for (leaves, path, response, expected, at_upstream) in table {
        let case = format!("{leaves:?} {path} {response}");
        let before = Books::read(&gateway, "acme");
        upstream.clear();
        let slow = if leaves == BeforeAnswer { SLOW } else { "" };
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\n{KEY}{response}{slow}content-length: 10\r\n\r\n");
        let mut client = Client::connect(gateway.public);
        match leaves {
            InHead => client.send(&head[..head.len() - 20]).unwrap(),
            InBody => client.send(format!("{head}01234")).unwrap(),
            _ => client.send(format!("{head}0123456789")).unwrap(),
        }
        if matches!(leaves, BeforeAnswer | InAnswer | AfterAnswer) {
            while upstream.seen().is_empty() {
                std::thread::sleep(Duration::from_millis(2));
            }
        } else {
            std::thread::sleep(Duration::from_millis(100)); // time to read the request, and perhaps forward it
        }
        match leaves {
            InAnswer => drop(client.head().unwrap()),
            AfterAnswer => drop(client.read(false).unwrap()),
            _ => {}
        }
        socket2::SockRef::from(&*client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(charged(&gateway, &before), expected, "{case}");
        assert_eq!(upstream.seen().len(), at_upstream, "{case}");
    }
}

#[test]
fn an_upstream_that_dies_at_any_stage_is_paid_by_what_it_answered() {
    let (gateway, upstream) = gateway();
    let head = "HTTP/1.1 200 OK\\nx-cost: 2.5\\ncontent-length: 10\\n\\n";
    // Path, the bytes that the upstream sends before it closes, status, millionths charged.
    let table = [
        ("/one", String::new(), Some(502), 0),
        ("/one", "HTTP/1.1 200 OK\\nx-co".to_owned(), Some(502), 0),
        ("/one", head.to_owned(), Some(200), 1_000_000),
        ("/one", format!("{head}01234"), Some(200), 1_000_000),
        ("/one", format!("{head}0123456789"), Some(200), 1_000_000),
        ("/header", String::new(), Some(502), 0),
        ("/header", head[..30].to_owned(), Some(502), 0),
        ("/header", head.to_owned(), Some(200), 2_500_000),
        ("/header", format!("{head}01234"), Some(200), 2_500_000),
        // The price is in the part that did not arrive. It cannot be read, so the hold is charged.
        ("/json", head.to_owned(), Some(200), 10_000_000),
        ("/json", format!("{head}{{\"cost\""), Some(200), 10_000_000),
        ("/json", format!("{head}{{\"cost\":1}}"), Some(200), 1_000_000),
    ];
    for (path, response, status, expected) in table {
        let case = format!("{path} {response:?}");
        let before = Books::read(&gateway, "acme");
        upstream.clear();
        let mut client = Client::connect(gateway.public);
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{KEY}x-response-raw: {response}\r\n\r\n"
            ))
            .unwrap();
        let mut text = Vec::new();
        let _ = std::io::Read::read_to_end(client.socket(), &mut text); // the response may be cut off
        let told = String::from_utf8_lossy(&text).split(' ').nth(1).and_then(|status| status.parse().ok());
        assert_eq!(told, status, "{case}");
        assert_eq!(charged(&gateway, &before), expected, "{case}");
    }
    // No server listens at the upstream's address any more.
    let gone = crate::support::Refusing::bind();
    gateway.write_config(&gateway.config().replace(&upstream.address.to_string(), &gone.address.to_string()));
    gateway.json(&["reload"]);
    let before = Books::read(&gateway, "acme");
    let response = crate::support::get(gateway.public, "/one", KEY);
    assert_eq!((response.status, charged(&gateway, &before)), (502, 0));
}
