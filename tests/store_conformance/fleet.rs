//! Tests what the gateways of a fleet lease, and tell each other, through a PostgreSQL database.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tollgate::ledger::Place;
use tollgate::ledger::postgres::{JournalAt, Server};
use tollgate::ledger::store::{Hint, LeaseOf, LeaseWanted, Leased, Leases, NewAccount, Storage, no_notes};
use tollgate::types::{Credits, WallTime};

use crate::postgres::{fresh, server};

/// Longest time until a hint arrives, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a ledger as a gateway of a fleet, which receives hints.
fn open(url: &str, node: &str) -> (Storage, Receiver<Hint>) {
    let server = Server { config: url.parse().unwrap(), tls: None, node: Some(node.to_owned()) };
    let mut storage = Place::Postgres(Box::new(server), JournalAt::Shared).open().unwrap();
    let (hinted, hints) = channel();
    leases(&mut storage).on_hint(Box::new(move |hint| drop(hinted.send(hint))));
    (storage, hints)
}

fn leases(storage: &mut Storage) -> &mut dyn Leases {
    &mut **storage.leases.as_mut().unwrap()
}

/// Leases credits of an account for one request. All in millionths.
fn lease(storage: &mut Storage, of: LeaseOf, need: i64, target: i64) -> Leased {
    let [need, target] = [need, target].map(Credits::from_millionths);
    leases(storage).lease(&[LeaseWanted { of, need, least: need, target }]).unwrap()[0]
}

#[test]
fn gateways_lease_parts_and_tell_each_other_what_they_need() {
    let Some(server) = server() else { return };
    let url = fresh(&server);
    let ((mut a, hints_of_a), (mut b, hints_of_b)) = (open(&url, "a"), open(&url, "b"));
    let new = NewAccount {
        id: "acme".parse().unwrap(),
        name: String::new(),
        plan: None,
        opening: Some((Credits::from_millionths(2_400), "test".to_owned())),
    };
    let rows = a.books.create_accounts(&[new], &no_notes(), WallTime(1)).unwrap();
    // Those that listen are told, without reading anything.
    assert_eq!(hints_of_b.recv_timeout(PATIENCE), Ok(Hint::Changed));
    assert_eq!(hints_of_a.recv_timeout(PATIENCE), Ok(Hint::Changed));
    let of = LeaseOf::Account(rows[0].num);
    // A twenty-fourth of what is free; then of the half of it that is the share of one of two gateways.
    let granted = |leased: Leased| leased.granted.millionths();
    assert_eq!(granted(lease(&mut a, of, 10, 1_000)), 100);
    assert_eq!(granted(lease(&mut b, of, 10, 1_000)), 2_300 / 2 / 24);
    // What a request needs, and not enough for one.
    assert_eq!(granted(lease(&mut b, of, 2_000, 2_000)), 2_000);
    assert!(hints_of_a.try_recv().is_err() && hints_of_b.try_recv().is_err());
    let short = lease(&mut b, of, 300, 300);
    assert_eq!((granted(short), short.others.millionths()), (0, 100));
    assert_eq!(hints_of_a.recv_timeout(PATIENCE), Ok(Hint::Called(vec![of])));
    assert_eq!(leases(&mut a).called_in().unwrap(), [of]);
    assert!(hints_of_b.try_recv().is_err(), "a gateway does not tell itself");
    leases(&mut a).give_back(&[(of, Credits::from_millionths(100))]).unwrap();
    assert_eq!(granted(lease(&mut b, of, 300, 300)), 300);
    assert_eq!(leases(&mut a).called_in().unwrap(), []);
}
