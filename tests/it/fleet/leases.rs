//! Promise 2 over a fleet: what its gateways charge together never passes what was granted, and what an account has can be
//! spent at any of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::get;

use super::Fleet;

/// Requests that are made at once.
const AT_ONCE: usize = 1_000;
/// Longest time that an account may wait to be told that it has no credits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Time after which a request is refused by 503 that has not learnt what its account has.
const MAX_ANSWER: Duration = Duration::from_millis(1_900);

/// Number of rounds: a few; `TOLLGATE_LONG=1` makes 1,000.
fn rounds() -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { 1_000 } else { 3 }
}

const REQUEST: &str = "GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: good-key\r\nconnection: close\r\n\r\n";

/// Makes requests of one credit at once, in turn at each of the addresses. Returns their statuses.
fn at_once(addresses: &[SocketAddr], count: usize) -> Vec<u16> {
    let connect = |at: usize| TcpStream::connect(addresses[at % addresses.len()]).unwrap();
    let mut all: Vec<TcpStream> = (0..count).map(connect).collect();
    for connection in &mut all {
        connection.write_all(REQUEST.as_bytes()).unwrap();
    }
    let status = |connection: &mut TcpStream| {
        let mut text = Vec::new();
        connection.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text)[9..12].parse().unwrap()
    };
    all.iter_mut().map(status).collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|one| **one == status).count()
}

#[test]
fn one_of_a_thousand_requests_gets_the_last_credit() {
    let Some(fleet) = Fleet::start("local", |text| text.replace("credits = 1000\n", "credits = 0\n")) else {
        return;
    };
    let addresses: Vec<SocketAddr> = fleet.gateways.iter().map(|gateway| gateway.public).collect();
    let mut unsure = 0;
    for round in 0..rounds() {
        let at = &fleet.gateways[round % fleet.gateways.len()];
        at.json(&["account", "grant", "acme", "1", "--reference", &round.to_string()]);
        let start = Instant::now();
        let statuses = at_once(&addresses, AT_ONCE);
        assert_eq!(count(&statuses, 200), 1, "round {round}: {} of 402", count(&statuses, 402));
        let refused = [count(&statuses, 402), count(&statuses, 503)];
        assert_eq!(refused.iter().sum::<usize>(), AT_ONCE - 1, "round {round}");
        // Requests that cannot learn in time what there is get 503, on a machine that is too busy.
        assert!(refused[1] == 0 || start.elapsed() > MAX_ANSWER, "round {round}: {refused:?}");
        unsure += refused[1];
        assert!(start.elapsed() < MAX_WAIT, "{:?}", start.elapsed());
    }
    println!("{} rounds, {unsure} requests were refused by 503", rounds());
}

/// Whichever gateway has leased the credits of an account, all of them can be spent at each other.
#[test]
fn credits_that_others_have_leased_are_called_in() {
    let Some(mut fleet) = Fleet::start("local", |text| text.replace("credits = 1000\n", "credits = 30\n"))
    else {
        return;
    };
    let status =
        |fleet: &Fleet, at: usize| get(fleet.gateways[at].public, "/one", "x-api-key: good-key\r\n").status;
    for at in [0, 1, 2] {
        assert_eq!(status(&fleet, at), 200);
    }
    for spent in 3..30 {
        assert_eq!(status(&fleet, 1), 200, "after {spent} of 30");
    }
    assert_eq!([status(&fleet, 0), status(&fleet, 1), status(&fleet, 2)], [402; 3]);
    fleet.restart();
    for gateway in &fleet.gateways {
        assert_eq!(gateway.available("acme"), "0");
    }
    assert_eq!(fleet.gateways[0].json(&["ledger", "verify"])["found"], 0);
}

/// An adjustment takes credits away wherever they are leased, and not more than there are.
#[test]
fn an_adjustment_takes_what_is_leased_elsewhere() {
    let Some(fleet) = Fleet::start("local", |text| text.replace("credits = 1000\n", "credits = 100\n"))
    else {
        return;
    };
    for gateway in &fleet.gateways {
        assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 200);
    }
    let adjust = |amount: &str, reference: &str| {
        fleet.gateways[2].cli(&["account", "adjust", "acme", amount, "--reference", reference])
    };
    let refused = adjust("-98", "too-much");
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("credits available"), "{told}");
    let done = adjust("-97", "all");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for gateway in &fleet.gateways {
        assert_eq!(get(gateway.public, "/one", "x-api-key: good-key\r\n").status, 402);
    }
}
