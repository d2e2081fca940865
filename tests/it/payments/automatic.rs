//! Tests subscriptions, and automatic top-ups by saved cards.

use serde_json::{Value, json};

use super::messages::{deliver, seconds, send, signature};
use super::stand_in::{Session, StandIn, WEBHOOK_SECRET};
use super::{bought, id_of};
use crate::clocks::FakeClock;
use crate::dashboard::Portal;
use crate::support::{Gateway, eventually};

const DAY: u64 = 86_400;

fn credits_page(portal: &Portal, cookie: &str) -> String {
    portal.page("/accounts/beta/credits", cookie).text()
}

/// Buys on the page, with these fields. Returns the session.
fn session(portal: &Portal, service: &StandIn, cookie: &str, fields: &str) -> Session {
    let page = portal.form("/accounts/beta/credits/buy", cookie, fields);
    assert_eq!(page.status, 200, "{}", page.text());
    service.sessions().pop().unwrap()
}

#[test]
fn subscriptions_fill_a_bucket_each_period() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let owner = portal.member("beta", "owner");
    assert!(credits_page(&portal, &owner).contains("pro: 5,000 credits each month for 49.00 EUR"));
    let session = session(&portal, &service, &owner, "package=pro");
    let sold = &session.form;
    assert_eq!(sold["line_items[0][price_data][recurring][interval]"], "month");
    assert!(!sold.keys().any(|name| name.starts_with("payment_intent_data")));
    let end = seconds() + 30 * DAY;
    let (first, payment) = service.invoice(&session, end);
    // The service cannot be asked: the message comes again.
    service.meet(Some("cut"));
    assert_eq!(deliver(portal.pages, &first).status, 503);
    service.meet(None);
    for _ in 0..2 {
        assert_eq!(deliver(portal.pages, &first).status, 200);
        assert_eq!(portal.gateway.available("beta"), "5050");
    }
    let parts = |portal: &Portal| portal.api.get("/v1/accounts/beta")["expiring"].as_array().unwrap().clone();
    let expiry = |part: &Value| {
        part["expires"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second() as u64
    };
    assert_eq!((parts(&portal).len(), expiry(&parts(&portal)[0])), (1, end + DAY));
    let (second, _) = service.invoice(&session, end + 30 * DAY);
    assert_eq!(deliver(portal.pages, &second).status, 200);
    let expiring = parts(&portal);
    assert_eq!((expiring.len(), expiry(&expiring[1])), (2, end + 31 * DAY));
    assert_eq!(deliver(portal.pages, &first).status, 200, "late");
    let page = credits_page(&portal, &owner);
    assert!(page.contains("Subscribed to pro") && page.contains("Manage payments"), "{page}");
    let away = portal.form("/accounts/beta/credits/payments", &owner, "");
    assert!(away.text().contains("/portal/cus_sub"), "{}", away.text());
    // A refund is told without what was bought; one of a period whose invoice comes later, too.
    assert_eq!(deliver(portal.pages, &service.refunded(&payment, 2_450)).status, 200);
    assert_eq!(portal.gateway.available("beta"), "7550");
    let (third, payment) = service.invoice(&session, end + 60 * DAY);
    for event in [&service.refunded(&payment, 4_900), &third] {
        assert_eq!(deliver(portal.pages, event).status, 200);
    }
    assert_eq!(portal.gateway.available("beta"), "7550");
    // A change within a period is paid, but is no period; a period that costs nothing is one.
    for (reason, amount, available) in
        [("subscription_update", 137, "7550"), ("manual", 4_900, "7550"), ("subscription_cycle", 0, "12550")]
    {
        let (event, _) = service.invoice_of(&session, end + 90 * DAY, reason, Some(amount));
        assert_eq!(deliver(portal.pages, &event).status, 200);
        assert_eq!(portal.gateway.available("beta"), available, "{reason}");
    }
    // One that is paid when it is over lasts as long from then on.
    let (late, _) = service.invoice(&session, seconds() - 3 * DAY);
    assert_eq!(deliver(portal.pages, &late).status, 200);
    assert_eq!(portal.gateway.available("beta"), "17550");
    assert!(parts(&portal).iter().any(|part| expiry(part).abs_diff(seconds() + 31 * DAY) < 60));
    for event in [service.ended(&session), service.ended(&session)] {
        assert_eq!(deliver(portal.pages, &event).status, 200);
    }
    assert_eq!(deliver(portal.pages, &second).status, 200, "told again");
    assert!(!credits_page(&portal, &owner).contains("Subscribed to"));
    // A customer that was deleted there is forgotten: one can buy again.
    service.delete_customer("cus_sub");
    let again = self::session(&portal, &service, &owner, "package=small");
    assert!(again.form.contains_key("customer_email"));
    assert!(!credits_page(&portal, &owner).contains("Manage payments"));
    assert_eq!(portal.gateway.json(&["ledger", "verify"])["differences"], json!([]));
}

fn id_of_intent(intent: &Value) -> String {
    intent["id"].as_str().unwrap().to_owned()
}

/// A portal whose account `beta` has a saved card and 1050 credits. Its clock is the gateway's.
struct Saved {
    portal: Portal,
    owner: String,
    clock: FakeClock,
}

impl Saved {
    fn new(service: &StandIn) -> Option<Self> {
        let clock = FakeClock::new("@2027-03-30 10:00:00")?;
        let prefix = clock.prefix();
        let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
        let portal = Portal::start_by(&prefix, &service.config());
        let owner = portal.member("beta", "owner");
        let refused = portal.form("/accounts/beta/credits/top-up", &owner, "below=100&top_up=small&most=25");
        assert!(refused.status == 422 && refused.text().contains("save the card"), "{}", refused.text());
        let session = session(&portal, service, &owner, "package=small&save=1");
        let (creation, methods) =
            (&session.form["customer_creation"], &session.form["payment_method_types[0]"]);
        assert_eq!((creation.as_str(), methods.as_str()), ("always", "card"));
        let saved = Self { portal, owner, clock };
        assert_eq!(saved.tell(&service.pay(&session), "2027-03-30T10:00:00Z"), 200);
        assert_eq!(saved.portal.gateway.available("beta"), "1050");
        Some(saved)
    }

    /// Sends an event at a time of the gateway's clock.
    fn tell(&self, event: &Value, at: &str) -> u16 {
        let at = u64::try_from(at.parse::<jiff::Timestamp>().unwrap().as_second()).unwrap();
        let body = event.to_string();
        send(self.portal.pages, &signature(WEBHOOK_SECRET, at, &body), &body).status
    }

    /// Signs in again: sessions end while the clock jumps.
    fn sign_in(&mut self) {
        let users = self.portal.api.get("/v1/users");
        let user =
            users["data"].as_array().unwrap().iter().find(|user| user["email"] == "owner@beta.example");
        let path = format!("/v1/users/{}/sign-in-link", user.unwrap()["id"].as_str().unwrap());
        let link = self.portal.api.ok("POST", &path, None);
        self.owner = self.portal.open(link["link"].as_str().unwrap());
    }

    fn set(&self, fields: &str) -> u16 {
        self.portal.form("/accounts/beta/credits/top-up", &self.owner, fields).status
    }

    /// Takes credits away until so many are left.
    fn leave(&self, left: i64, reference: &str) {
        let now: f64 = self.portal.gateway.available("beta").parse().unwrap();
        let body = json!({ "credits": left as f64 - now, "reference": reference });
        self.portal.api.post("/v1/accounts/beta/adjustments", body);
    }

    fn has(&self, credits: &str) {
        eventually("a top-up", || self.portal.gateway.available("beta") == credits);
    }

    fn page(&self) -> String {
        credits_page(&self.portal, &self.owner)
    }
}

#[test]
fn a_low_balance_is_topped_up_by_the_saved_card() {
    let service = StandIn::start();
    let Some(mut saved) = Saved::new(&service) else { return };
    for (fields, says) in [
        ("below=100&top_up=small&most=9.99", "at least the price, 10.00 EUR"),
        ("below=100&top_up=pro&most=99", "not on sale"),
        ("below=0&top_up=small&most=99", "more than 0 credits"),
        ("below=100&top_up=small&most=99,50", "an amount of money looks like"),
    ] {
        let page = saved.portal.form("/accounts/beta/credits/top-up", &saved.owner, fields);
        assert!(page.status == 422 && page.text().contains(says), "{fields}: {}", page.text());
    }
    assert_eq!(saved.set("below=100&top_up=small&most=25.00"), 303);
    saved.leave(100, "a");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(service.charged().is_empty(), "100 is not below 100");
    saved.leave(99, "b");
    saved.has("1099");
    let charge = service.charged()[0].clone();
    assert_eq!((&charge["amount"], &charge["currency"]), (&json!(1000), &json!("eur")));
    assert_eq!(
        saved.tell(&service.outcome(&charge, true), "2027-03-30T10:00:00Z"),
        200,
        "the message comes too"
    );
    assert_eq!(saved.portal.gateway.available("beta"), "1099");
    saved.leave(50, "c");
    saved.has("1050");
    // The month has no room for a third one; the next month has.
    saved.leave(60, "d");
    eventually("the page tells", || saved.page().contains("the most of a month is reached"));
    assert_eq!(service.charged().len(), 2);
    saved.clock.set("@2027-04-01 00:00:10");
    saved.sign_in();
    saved.has("1060");
    assert_eq!(service.charged().len(), 3);
    assert!(!saved.page().contains("the most of a month is reached"));
    // A payment that is refunded is not made again.
    let newest = service.charged().iter().map(id_of_intent).max().unwrap();
    saved.leave(500, "r");
    let at = "2027-04-01T00:00:20Z";
    assert_eq!(saved.tell(&service.refunded(&newest, 1000), at), 200);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((service.charged().len(), saved.portal.gateway.available("beta")), (3, "0".to_owned()));
    assert!(saved.page().contains("a payment was refunded or disputed"));
    assert_eq!(saved.set("below=100&top_up=small&most=25.00"), 303);
    saved.has("500"); // of the fourth one, 500 were still due back
    assert_eq!(service.charged().len(), 4);
    // A top-up of a suspended account waits for nobody.
    let patch = json!({ "suspended": true });
    saved.portal.api.ok("PATCH", "/v1/accounts/beta", Some(&patch));
    saved.leave(5, "s");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(service.charged().len(), 4);
    // Never again.
    assert_eq!(saved.set("below=&top_up=small&most=25"), 303);
    saved.leave(1, "e");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((service.charged().len(), saved.portal.gateway.available("beta")), (4, "1".to_owned()));
    let audit = saved.portal.api.get("/v1/audit?object=account/beta").to_string();
    assert!(audit.contains("account.top_up") && audit.contains("payment.grant"), "{audit}");
}

/// Whatever happens to a charge, its credits are granted once and the card is charged once.
#[test]
fn a_charge_whose_answer_is_lost_is_made_once() {
    let service = StandIn::start();
    let Some(saved) = Saved::new(&service) else { return };
    assert_eq!(saved.set("below=100&top_up=small&most=1000"), 303);
    // The card is charged, but the answer is lost, and then the gateway is killed.
    service.meet(Some("cut"));
    saved.leave(40, "a");
    eventually("the card is charged", || service.charged().len() == 1);
    eventually("the page tells", || saved.page().contains("A top-up is under way"));
    let prefix = saved.clock.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let Portal { gateway, api: _, .. } = saved.portal;
    let folder = gateway.crash();
    service.meet(None);
    saved.clock.set("@2027-03-30 10:02:00");
    let gateway = Gateway::restart_by(&prefix, folder);
    eventually("the answer is asked for again", || gateway.available("beta") == "1040");
    assert_eq!(service.charged().len(), 1);
    drop(gateway);
}

#[test]
fn a_refused_card_is_told_of_and_not_tried_for_ever() {
    let service = StandIn::start();
    let Some(mut saved) = Saved::new(&service) else { return };
    let hook = json!({ "url": "http://127.0.0.1:9/hook" });
    let endpoint = saved.portal.api.post("/v1/accounts/beta/webhooks", hook);
    let deliveries = format!("/v1/webhooks/{}/deliveries", endpoint["id"].as_str().unwrap());
    let failures = |saved: &Saved| {
        let rows = saved.portal.api.get(&deliveries);
        rows["data"].as_array().unwrap().iter().filter(|row| row["event"] == "billing.top_up_failed").count()
    };
    assert_eq!(saved.set("below=100&top_up=small&most=1000"), 303);
    service.meet(Some("declined"));
    saved.leave(40, "a");
    eventually("the refusal is told", || failures(&saved) == 1);
    let page = saved.page();
    assert!(page.contains("insufficient_funds") && !page.contains("secret text"), "{page}");
    // It is tried a day later, and then again; then no more.
    for (day, count) in [("31", 2), ("01", 3)] {
        let month = if day == "01" { "04" } else { "03" };
        saved.clock.set(&format!("@2027-{month}-{day} 10:00:30"));
        eventually("the next day", || failures(&saved) == count);
    }
    saved.clock.set("@2027-04-05 10:00:30");
    service.meet(None);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((failures(&saved), service.charged().len()), (3, 0));
    saved.sign_in();
    // Saved again, it works; a payment that takes days is told by a message.
    service.meet(Some("processing"));
    assert_eq!(saved.set("below=100&top_up=small&most=1000"), 303);
    eventually("it is under way", || service.charged().len() == 1);
    let charge = service.charged()[0].clone();
    assert_eq!(saved.tell(&service.outcome(&charge, false), "2027-04-05T10:00:30Z"), 200);
    assert_eq!(failures(&saved), 4);
    assert!(saved.page().contains("expired_card"));
    assert_eq!(saved.tell(&service.outcome(&charge, false), "2027-04-05T10:00:30Z"), 200);
    assert_eq!(failures(&saved), 4, "told once");
    saved.clock.set("@2027-04-06 10:01:00");
    saved.sign_in();
    eventually("the next one is under way", || service.charged().len() == 2);
    service.meet(None);
    let number =
        |charge: &Value| charge["metadata"]["tollgate_top_up"].as_str().unwrap().parse::<u64>().unwrap();
    let newest = service.charged().into_iter().max_by_key(number);
    assert_eq!(saved.tell(&service.outcome(&newest.unwrap(), true), "2027-04-06T10:01:00Z"), 200);
    saved.has("1040");
    assert!(!saved.page().contains("under way") && !saved.page().contains("expired_card"));
}

/// A card that is bought with without saving it is not charged again.
#[test]
fn a_card_is_saved_only_if_that_was_asked_for() {
    let service = StandIn::start();
    let portal = Portal::start(&service.config());
    let owner = portal.member("beta", "owner");
    let event = bought(&portal, &service, &owner, "beta", "small");
    assert_eq!(deliver(portal.pages, &event).status, 200);
    assert!(!service.sessions()[0].form.contains_key("payment_intent_data[setup_future_usage]"));
    let page = credits_page(&portal, &owner);
    assert!(
        page.contains("Buy credits once and save the card") && !page.contains("Manage payments"),
        "{page}"
    );
    assert_eq!(
        portal.form("/accounts/beta/credits/top-up", &owner, "below=9&top_up=small&most=99").status,
        422
    );
    assert_eq!(portal.form("/accounts/beta/credits/payments", &owner, "").status, 404);
    assert_ne!(id_of(&event), "");
}
