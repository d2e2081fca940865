//! Refunds and disputes, in any order.

use serde_json::{Value, json};

use super::messages::deliver;
use super::stand_in::StandIn;
use super::{bought, id_of};
use crate::api::Api;
use crate::billing::jobs::{BULK, open};
use crate::dashboard::Portal;
use crate::support::{Gateway, eventually, get};

/// Messages about one payment come in a random order, and more than once, also over crashes: in the end the account has what
/// they say together.
#[test]
fn messages_in_any_order_have_the_same_end() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let mut random = fastrand::Rng::with_seed(20);
    // The messages after the payment, and what is left of 1000 credits for 10.00.
    let refund =
        |in_all: u64| move |payment: &str, service: &StandIn| vec![service.refunded(payment, in_all)];
    let dispute = |amount: u64, end: &'static str| {
        move |payment: &str, service: &StandIn| {
            let mut all = vec![service.disputed(payment, "dp_1", amount, ("created", "needs_response"))];
            if !end.is_empty() {
                all.push(service.disputed(payment, "dp_1", amount, ("closed", end)));
            }
            if end == "won" {
                all.push(service.disputed(payment, "dp_1", amount, ("funds_reinstated", "won")));
            }
            all
        }
    };
    type Make = Box<dyn Fn(&str, &StandIn) -> Vec<Value>>;
    let cases: [(Vec<Make>, f64); 7] = [
        (vec![], 1000.0),
        (vec![Box::new(refund(333)), Box::new(refund(100))], 667.0),
        (vec![Box::new(refund(1000)), Box::new(refund(1))], 0.0),
        (vec![Box::new(dispute(1000, ""))], 0.0),
        (vec![Box::new(dispute(1000, "won"))], 1000.0),
        (vec![Box::new(dispute(400, "lost")), Box::new(refund(200))], 400.0),
        (vec![Box::new(dispute(400, "won")), Box::new(refund(1))], 999.0),
    ];
    let operator = portal.signed_in(&json!({ "email": "op@example.com", "operator": "owner" }));
    let hook = portal.api.post("/v1/webhooks", json!({ "url": "http://127.0.0.1:9/hook" }));
    let hook = hook["id"].as_str().unwrap();
    let (mut expected, mut events) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for (at, (make, left)) in cases.iter().enumerate() {
            let account = format!("a{round}-{at}");
            portal.api.post("/v1/accounts", json!({ "id": account, "plan": "growth", "credits": 50 }));
            let paid = bought(&portal, &service, &operator, &account, "small");
            let payment = id_of(&paid);
            let mut all = vec![paid];
            make.iter().for_each(|make| all.extend(make(&payment, &service)));
            all.extend(all.clone().into_iter().filter(|_| random.bool()));
            expected.push((account, 50.0 + left));
            events.extend(all);
        }
    }
    random.shuffle(&mut events);
    let Portal { mut gateway, .. } = portal;
    let crashes: Vec<usize> = (1..4).map(|part| events.len() * part / 4).collect();
    for (at, event) in events.iter().enumerate() {
        if crashes.contains(&at) {
            gateway = Gateway::start_in(gateway.crash());
        }
        let answer = deliver(gateway.dashboard(), event);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Nothing was spent, so nothing was ever missing.
    let told = Api::of(&gateway).get(&format!("/v1/webhooks/{hook}/deliveries?limit=1000")).to_string();
    assert!(told.contains("credits.granted") && !told.contains("billing.credits_missing"), "{told}");
    for (account, left) in &expected {
        let available: f64 = gateway.available(account).parse().unwrap();
        assert!((available - left).abs() < 1e-9, "{account}: {available}, not {left}");
    }
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// Credits that a job holds while a payment is refunded are taken back once the job returns them.
#[test]
fn what_is_held_is_taken_back_when_it_returns() {
    let service = StandIn::start();
    let portal = Portal::start(&format!("{}{}", BULK.replace("5000", "20000"), service.config()));
    let owner = portal.member("beta", "owner");
    let paid = bought(&portal, &service, &owner, "beta", "large");
    let payment = id_of(&paid);
    service.tell(&portal, &[&paid]);
    assert_eq!(portal.api.get("/v1/accounts/beta")["buckets"]["paygo"], 10_000.5);
    let key = portal.api.post("/v1/accounts/beta/keys", json!({ "label": "k" }));
    let key = key["key"].as_str().unwrap();
    let all: usize = 10_050;
    assert_eq!(open(&portal.gateway, key, "job", all).status, 201);
    service.tell(&portal, &[&service.refunded(&payment, 7_990)]);
    let missing = || portal.api.get("/v1/accounts/beta/payments")["data"][0]["missing"].as_f64().unwrap();
    assert!((missing() - 10_000.0).abs() < 1e-9, "{}", missing());
    portal.api.post("/v1/jobs/api:job/settle", json!({ "account": "beta", "credits": 7 }));
    eventually("it is taken back", || missing() == 0.0);
    assert_eq!(portal.gateway.available("beta"), "43");
    // A dispute that is won afterwards gives nothing: the money was refunded. Of another payment, it gives again what was
    // taken, where it was.
    let paid = bought(&portal, &service, &owner, "beta", "large");
    let payment = id_of(&paid);
    let told = |what| service.disputed(&payment, "dp_2", 7_990, what);
    service.tell(&portal, &[&paid, &told(("created", "needs_response"))]);
    assert_eq!(portal.gateway.available("beta"), "43");
    service.tell(&portal, &[&told(("closed", "won"))]);
    let account = portal.api.get("/v1/accounts/beta");
    assert_eq!((&account["available"], &account["buckets"]["paygo"]), (&json!(10_043.5), &json!(10_000.5)));
    assert_eq!(account["expiring"].as_array().unwrap().len(), 1);
    assert_eq!(portal.gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// What was spent cannot be taken back: it is reported, by the API, on the pages and to webhooks, and comes back when a
/// dispute is won.
#[test]
fn what_was_spent_is_reported_as_missing() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let owner = portal.member("beta", "owner");
    let paid = bought(&portal, &service, &owner, "beta", "small");
    let payment = id_of(&paid);
    assert_eq!(deliver(portal.pages, &paid).status, 200);
    let key = portal.api.post("/v1/accounts/beta/keys", json!({ "label": "k" }));
    let key = key["key"].as_str().unwrap();
    let spend = |times: usize| {
        for _ in 0..times {
            let response = get(portal.gateway.public, "/one", &format!("x-api-key: {key}\r\n"));
            assert_eq!(response.charged(), Some("1"), "{}", response.text());
        }
    };
    let endpoint = portal.api.post("/v1/accounts/beta/webhooks", json!({ "url": "http://127.0.0.1:9/hook" }));
    let id = endpoint["id"].as_str().unwrap();
    spend(60); // of 1050
    let told = |event: Value| {
        assert_eq!(deliver(portal.pages, &event).status, 200);
        let payments = portal.api.get("/v1/accounts/beta/payments");
        let number = |name: &str| payments["data"][0][name].as_f64().unwrap();
        (portal.gateway.available("beta"), number("taken_back"), number("missing"))
    };
    assert_eq!(told(service.refunded(&payment, 500)), ("490".to_owned(), 500.0, 0.0));
    let missing = (String::from("0"), 990.0, 10.0);
    assert_eq!(told(service.disputed(&payment, "dp_9", 500, ("created", "needs_response"))), missing);
    assert_eq!(told(service.refunded(&payment, 500)), missing, "told again");
    let page = portal.page("/accounts/beta/credits", &owner).text();
    assert!(page.contains("Taken back") && page.contains("Missing"), "{page}");
    let deliveries = || portal.api.get(&format!("/v1/webhooks/{id}/deliveries"));
    let count = || {
        let deliveries = deliveries();
        let rows = deliveries["data"].as_array().unwrap().clone();
        rows.iter().filter(|row| row["event"] == "billing.credits_missing").count()
    };
    assert_eq!(count(), 1);
    let won = service.disputed(&payment, "dp_9", 500, ("closed", "won"));
    assert_eq!(told(won), ("490".to_owned(), 500.0, 0.0));
    assert_eq!(count(), 2, "nothing is missing any more");
    assert_eq!(portal.api.get("/v1/accounts/beta")["buckets"], json!({ "default": 490 }));
    spend(5);
    let audit = portal.api.get("/v1/audit?object=account/beta");
    let reversed = audit["data"].as_array().unwrap().iter().filter(|row| row["action"] == "payment.reverse");
    assert_eq!(reversed.count(), 3);
    assert_eq!(portal.gateway.json(&["ledger", "verify"])["differences"], json!([]));
}
