//! Tests that customers buy credits by Stripe, against a stand-in that speaks the forms of the published API.

mod automatic;
mod messages;
mod order;
mod stand_in;

use serde_json::{Value, json};

pub use stand_in::StandIn;

use crate::dashboard::Portal;
use crate::support::Gateway;
use messages::{deliver, seconds, send, signature};
use stand_in::{SECRET_KEY, WEBHOOK_SECRET};

/// Buys a package on the dashboard's page. Returns the event of the payment.
pub fn bought(portal: &Portal, service: &StandIn, cookie: &str, account: &str, package: &str) -> Value {
    let before = service.sessions().len();
    let page =
        portal.form(&format!("/accounts/{account}/credits/buy"), cookie, &format!("package={package}"));
    assert_eq!(page.status, 200, "{}", page.text());
    let session = service.sessions().get(before).cloned().expect("a session was opened");
    assert!(
        page.text().contains(&format!("http://{}/pay/{}", service.address, session.id)),
        "{}",
        page.text()
    );
    service.pay(&session)
}

fn id_of(event: &Value) -> String {
    event["data"]["object"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn credits_are_bought_on_the_page_and_granted_once() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let (owner, viewer) = (portal.member("beta", "owner"), portal.member("beta", "viewer"));
    let page = portal.page("/accounts/beta/credits", &owner).text();
    for text in ["Buy credits", "small", "10.00 EUR", "Large &amp; good", "79.90 EUR", "good for 365 days"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains(SECRET_KEY) && !page.contains("Payments</h2>"));
    let buy = |cookie: &str, package: &str| {
        portal.form("/accounts/beta/credits/buy", cookie, &format!("package={package}")).status
    };
    assert_eq!((buy(&viewer, "small"), buy(&owner, "none"), buy("", "small")), (403, 422, 303));
    assert!(service.sessions().is_empty());
    let event = bought(&portal, &service, &owner, "beta", "large");
    let form = service.sessions()[0].form.clone();
    for (name, value) in [
        ("line_items[0][price_data][unit_amount]", "7990"),
        ("line_items[0][price_data][currency]", "eur"),
        ("line_items[0][price_data][product_data][name]", "Large & good"),
        ("client_reference_id", "beta"),
        ("customer_email", "owner@beta.example"),
        ("payment_intent_data[metadata][tollgate_account]", "beta"),
        ("payment_intent_data[metadata][tollgate_credits]", "10000.5"),
    ] {
        assert_eq!(form[name], value, "{name}");
    }
    let back = format!("http://{}/accounts/beta/credits", portal.pages);
    assert_eq!((&form["success_url"], &form["cancel_url"]), (&format!("{back}?done=paid"), &back));
    assert_eq!(portal.gateway.available("beta"), "50", "not before the payment is told");
    for _ in 0..3 {
        assert_eq!(deliver(portal.pages, &event).status, 200);
        assert_eq!(portal.gateway.available("beta"), "10050.5");
    }
    let account = portal.api.get("/v1/accounts/beta");
    assert_eq!(account["buckets"]["paygo"], 10000.5);
    assert_eq!(account["expiring"][0]["bucket"], "paygo");
    let payments = portal.api.get("/v1/accounts/beta/payments");
    let payment = &payments["data"][0];
    assert_eq!((&payment["price"], &payment["package"]), (&json!("79.90 EUR"), &json!("large")));
    assert_eq!(
        (&payment["credits"], &payment["taken_back"], &payment["missing"]),
        (&json!(10000.5), &json!(0), &json!(0))
    );
    let page = portal.page("/accounts/beta/credits?done=paid", &viewer).text();
    assert!(
        page.contains("Payments</h2>") && page.contains(&id_of(&event)) && page.contains("Thank you"),
        "{page}"
    );
    let entry = portal.api.get("/v1/accounts/beta/entries")["data"][0].clone();
    assert_eq!(
        (&entry["by"], &entry["reference"]),
        (&json!("stripe"), &json!(format!("payment {}", id_of(&event))))
    );
    // A crash and the same message again.
    let Portal { gateway, .. } = portal;
    let gateway = Gateway::start_in(gateway.crash());
    assert_eq!(deliver(gateway.dashboard(), &event).status, 200);
    assert_eq!(gateway.available("beta"), "10050.5");
    assert_eq!(gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

/// What is not signed by the service, is old, is about something else or is not what it describes changes nothing.
#[test]
fn forged_and_foreign_messages_change_nothing() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let owner = portal.member("beta", "owner");
    let event = bought(&portal, &service, &owner, "beta", "small");
    let (body, now) = (event.to_string(), seconds());
    let right = signature(WEBHOOK_SECRET, now, &body);
    let more = body.replace("\"1000\"", "\"9000\"");
    assert_ne!(more, body);
    for (why, signature, body) in [
        ("no signature", String::new(), &body),
        ("another secret", signature("whsec_other", now, &body), &body),
        ("more credits", right.clone(), &more),
        ("an old message", signature(WEBHOOK_SECRET, now - 400, &body), &body),
        ("one of the future", signature(WEBHOOK_SECRET, now + 400, &body), &body),
        ("another time", right.replace(&format!("t={now}"), &format!("t={}", now + 1)), &body),
        ("only an old scheme", right.replace("v1=", "v0="), &body),
    ] {
        assert_eq!(send(portal.pages, &signature, body).status, 400, "{why}");
    }
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = event.clone();
        change(&mut event);
        deliver(portal.pages, &event).status
    };
    let object = |name: &'static str, value: Value| {
        move |event: &mut Value| event["data"]["object"][name] = value.clone()
    };
    let metadata = |name: &'static str, value: Value| {
        move |event: &mut Value| event["data"]["object"]["metadata"][name] = value.clone()
    };
    for (change, status) in [
        (&object("metadata", json!({})) as &dyn Fn(&mut Value), 200), // another program's payment
        (&metadata("tollgate_account", json!("nobody")), 200),
        (&metadata("tollgate_seller", json!("another gateway")), 200),
        (&|event| event["type"] = json!("invoice.created"), 200),
        (&metadata("tollgate_credits", json!("-5x")), 400),
        (&metadata("tollgate_account", json!("../x")), 400),
        (&object("id", json!("pi 1")), 400),
        (&object("amount", json!(-1)), 400),
        (&object("currency", json!("euro")), 400),
        (&|event| event["type"] = Value::Null, 400),
    ] {
        assert_eq!(changed(change), status);
    }
    let text = "no JSON";
    assert_eq!(send(portal.pages, &signature(WEBHOOK_SECRET, now, text), text).status, 400);
    let long = "x".repeat(300 * 1024);
    assert_eq!(send(portal.pages, &right, &long).status, 413);
    assert_eq!(portal.gateway.available("beta"), "50");
    assert_eq!(portal.api.get("/v1/accounts/beta/payments")["data"], json!([]));
    assert_eq!(deliver(portal.pages, &event).status, 200);
    assert_eq!(portal.gateway.available("beta"), "1050");
    let logs = portal.gateway.lines().join("\n");
    assert!(!logs.contains(SECRET_KEY) && !logs.contains(WEBHOOK_SECRET) && !logs.contains("owner@beta"));
    let plain = Portal::start("");
    assert_eq!(deliver(plain.pages, &event).status, 404, "payments are not configured");
}

/// A payment service that fails is told of in words, and sells nothing.
#[test]
fn a_service_that_fails_sells_nothing() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let owner = portal.member("beta", "owner");
    for fault in ["status 500", "garbage", "cut", "no page", "script"] {
        service.meet(Some(fault));
        let page = portal.form("/accounts/beta/credits/buy", &owner, "package=small");
        assert_eq!(page.status, 503, "{fault}: {}", page.text());
        assert!(page.text().contains("try again later") && !page.text().contains("secret text"), "{fault}");
    }
    service.meet(None);
    bought(&portal, &service, &owner, "beta", "small");
    let logs = portal.gateway.lines().join("\n");
    assert!(logs.contains("the payment service opened no page") && !logs.contains("secret text"), "{logs}");
}

#[test]
fn mistakes_in_the_section_are_explained() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let text = portal.gateway.config();
    for (from, to, says) in [
        (SECRET_KEY, "pk_test_x", "begins with sk_ or rk_"),
        (WEBHOOK_SECRET, "secret", "begins with whsec_"),
        ("\"eur\"", "\"euro\"", "a currency has three letters"),
        ("price = \"10.00\"", "price = \"10.001\"", "at most 2 decimals"),
        ("price = \"10.00\"", "price = \"0\"", "more than 0"),
        ("credits = 1000\n", "credits = 0\n", "more than 0 credits"),
        ("bucket = \"paygo\"", "bucket = \"pay\"", "there is no bucket `pay`"),
        ("expires = \"365d\"", "expires = \"9999d\"", "3660d"),
        ("http://127", "http://192", "https:// URL"),
        ("[dashboard]", "[usage]\n[unknown]", "[unknown"),
    ] {
        assert!(text.contains(from), "{from}");
        portal.gateway.write_config(&text.replace(from, to));
        let output = portal.gateway.cli(&["check"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(says), "{to}: {told}");
        assert!(!told.contains(SECRET_KEY) && !told.contains(WEBHOOK_SECRET), "{told}");
    }
}
