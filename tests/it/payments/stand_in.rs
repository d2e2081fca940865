//! A stand-in for Stripe: it takes the requests that the published API describes, opens payment pages, and signs events in
//! the published forms.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::messages::{deliver, seconds};
use crate::dashboard::Portal;

pub const SECRET_KEY: &str = "sk_test_51StandIn";
pub const WEBHOOK_SECRET: &str = "whsec_StandInSecret";

/// A Checkout session, and how often it was asked for.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: String,
    pub form: BTreeMap<String, String>,
    pub once: String,
}

#[derive(Default)]
struct State {
    sessions: Vec<Session>,
    /// The payments by id: their payment intents.
    intents: BTreeMap<String, Value>,
    /// The invoices by id.
    invoices: BTreeMap<String, Value>,
    /// The answers to charges of saved cards, by their idempotency keys, with the forms.
    charges: BTreeMap<String, (String, u16, Value)>,
    /// Customers that were deleted.
    gone: Vec<String>,
    /// What the next requests meet, if something goes wrong.
    fault: Option<&'static str>,
    numbers: u64,
    /// Where events are sent once a customer paid on a page.
    hook: Option<SocketAddr>,
}

#[derive(Clone)]
pub struct StandIn {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn decoded(form: &str) -> BTreeMap<String, String> {
    let pairs = form_urlencoded::parse(form.as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

impl StandIn {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        server
    }

    /// A configuration that sells by this stand-in.
    pub fn config(&self) -> String {
        format!(
            "[buckets.paygo]\n[payments.stripe]\nsecret_key = \"{SECRET_KEY}\"\nwebhook_secret = \"{WEBHOOK_SECRET}\"\n\
             currency = \"eur\"\nurl = \"http://{}\"\n\
             [payments.stripe.packages.small]\nprice = \"10.00\"\ncredits = 1000\n\
             [payments.stripe.packages.large]\nprice = \"79.90\"\ncredits = \"10000.5\"\ntitle = \"Large & good\"\n\
             bucket = \"paygo\"\nexpires = \"365d\"\n\
             [payments.stripe.subscriptions.pro]\nprice = \"49.00\"\nevery = \"month\"\ncredits = 5000\nbucket = \"sub\"\n\
             [buckets.sub]\npriority = 1\n",
            self.address
        )
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.state.lock().unwrap().sessions.clone()
    }

    pub fn meet(&self, fault: Option<&'static str>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// The seller deletes a customer.
    pub fn delete_customer(&self, id: &str) {
        self.state.lock().unwrap().gone.push(id.to_owned());
    }

    pub fn send_events_to(&self, hook: SocketAddr) {
        self.state.lock().unwrap().hook = Some(hook);
    }

    /// Sends events to a dashboard.
    pub fn tell(&self, portal: &Portal, events: &[&Value]) {
        for event in events {
            assert_eq!(deliver(portal.pages, event).status, 200);
        }
    }

    fn number(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.numbers += 1;
        state.numbers
    }

    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut lines, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            lines.push(line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, more, text) = self.answer(&lines, &String::from_utf8(body).ok()?)?;
        let head = format!(
            "HTTP/1.1 {status} X\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n",
            text.len()
        );
        stream.write_all(format!("{head}{text}").as_bytes()).ok()
    }

    /// The status, more header lines, and the body. `None` for no answer.
    fn answer(&self, lines: &[String], body: &str) -> Option<(u16, String, String)> {
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next()?, words.next()?);
        match method {
            _ if path.starts_with("/v1/") => {
                let (status, object) = self.api(method, path, lines, body)?;
                let text = object.as_str().map_or_else(|| object.to_string(), str::to_owned);
                Some((status, "content-type: application/json\r\n".to_owned(), text))
            }
            "GET" if path.starts_with("/pay/") => {
                let form = format!("<form method=post action=\"{path}\"><button>Pay now</button></form>");
                let page = format!("<!doctype html><title>Pay</title>{form}");
                Some((200, "content-type: text/html\r\n".to_owned(), page))
            }
            "POST" if path.starts_with("/pay/") => {
                let session = self.sessions().into_iter().find(|it| path.ends_with(&it.id))?;
                let event = self.pay(&session);
                let hook = self.state.lock().unwrap().hook?;
                assert_eq!(deliver(hook, &event).status, 200);
                Some((303, format!("location: {}\r\n", session.form["success_url"]), String::new()))
            }
            _ => Some((404, String::new(), "{}".to_owned())),
        }
    }

    /// The status and the object of a request to the API. A text is no JSON.
    fn api(&self, method: &str, path: &str, lines: &[String], body: &str) -> Option<(u16, Value)> {
        let header = |name: &str| {
            let value = |line: &String| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            };
            lines.iter().find_map(value)
        };
        if header("authorization") != Some(format!("Bearer {SECRET_KEY}")) {
            return Some((401, json!({ "error": { "type": "invalid_request_error" } })));
        }
        assert_eq!(header("stripe-version").as_deref(), Some("2024-06-20"));
        let fault = self.state.lock().unwrap().fault;
        let customer = decoded(body).get("customer").cloned();
        if customer.is_some_and(|customer| self.state.lock().unwrap().gone.contains(&customer)) {
            let error =
                json!({ "type": "invalid_request_error", "code": "resource_missing", "param": "customer" });
            return Some((400, json!({ "error": error })));
        }
        match (method, path) {
            ("POST", "/v1/checkout/sessions") => match fault {
                None => Some((200, self.checkout(decoded(body), header("idempotency-key")?))),
                Some("cut") => None,
                Some("garbage") => Some((200, json!("<html>"))),
                Some("no page") => Some((200, json!({ "url": null }))),
                Some("script") => Some((200, json!({ "url": "javascript:alert(1)" }))),
                Some(_) => Some((500, json!({ "error": { "type": "api_error", "message": "secret text" } }))),
            },
            ("POST", "/v1/payment_intents") => {
                let answer = self.charge(body, header("idempotency-key")?);
                Some(answer).filter(|_| fault != Some("cut")) // it is charged, but nobody learns of it
            }
            ("POST", "/v1/billing_portal/sessions") => {
                let form = decoded(body);
                assert!(form["customer"].starts_with("cus_") && form["return_url"].starts_with("http"));
                let url = format!("http://{}/portal/{}", self.address, form["customer"]);
                Some((200, json!({ "object": "billing_portal.session", "url": url })))
            }
            ("GET", path) if path.starts_with("/v1/invoices/") && fault.is_none() => {
                let invoice = self.state.lock().unwrap().invoices.get(path.rsplit('/').next()?).cloned();
                Some((200, invoice?))
            }
            _ => None,
        }
    }

    /// A session for a form, which is refused by a panic if it is not what the API wants. The same key makes no other one.
    fn checkout(&self, form: BTreeMap<String, String>, once: String) -> Value {
        let known = self.sessions().into_iter().find(|session| session.once == once);
        let session = known.unwrap_or_else(|| {
            let interval = form.get("line_items[0][price_data][recurring][interval]");
            assert_eq!(form["mode"], if interval.is_some() { "subscription" } else { "payment" });
            assert!(!(form.contains_key("customer") && form.contains_key("customer_email")), "one of both");
            assert_eq!(form["line_items[0][quantity]"], "1");
            form["line_items[0][price_data][unit_amount]"].parse::<u64>().unwrap();
            for name in ["[currency]", "[product_data][name]"] {
                assert!(!form[&format!("line_items[0][price_data]{name}")].is_empty());
            }
            assert!(form["success_url"].starts_with("http") && form["cancel_url"].starts_with("http"));
            let session = Session { id: format!("cs_test_{}", self.number()), form, once };
            self.state.lock().unwrap().sessions.push(session.clone());
            session
        });
        let url = format!("http://{}/pay/{}", self.address, session.id);
        json!({ "id": session.id, "object": "checkout.session", "mode": "payment", "payment_status": "unpaid", "url": url })
    }

    pub(super) fn metadata(form: &BTreeMap<String, String>, carrier: &str) -> Value {
        let metadata = form.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(carrier)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((name.to_owned(), json!(value)))
        });
        Value::Object(metadata.collect())
    }

    fn customer(&self, form: &BTreeMap<String, String>) -> String {
        form.get("customer").cloned().unwrap_or_else(|| format!("cus_{}", self.number()))
    }

    /// The customer pays: the event of a new payment.
    pub fn pay(&self, session: &Session) -> Value {
        let (id, form) = (format!("pi_{}", self.number()), &session.form);
        let amount: u64 = form["line_items[0][price_data][unit_amount]"].parse().unwrap();
        let saves = form.get("payment_intent_data[setup_future_usage]");
        let customer = saves.map(|_| self.customer(form)).or_else(|| form.get("customer").cloned());
        let intent = json!({
            "id": id, "object": "payment_intent", "amount": amount, "amount_received": amount,
            "currency": form["line_items[0][price_data][currency]"], "status": "succeeded",
            "metadata": Self::metadata(form, "payment_intent_data[metadata]"), "latest_charge": format!("ch_{id}"),
            "customer": customer, "setup_future_usage": saves, "payment_method": format!("pm_{id}"), "livemode": false,
        });
        self.state.lock().unwrap().intents.insert(id, intent.clone());
        self.event("payment_intent.succeeded", &intent)
    }

    /// A period of a subscription is paid: its event, in the form of a later version than the one that Tollgate speaks, and the
    /// id of the payment. `end`: the period's, in seconds.
    pub fn invoice(&self, session: &Session, end: u64) -> (Value, String) {
        self.invoice_of(session, end, "subscription_cycle", None)
    }

    /// An invoice for a reason. `amount`: what is paid, if it is not the price.
    pub fn invoice_of(
        &self,
        session: &Session,
        end: u64,
        reason: &str,
        amount: Option<u64>,
    ) -> (Value, String) {
        let (id, payment, form) =
            (format!("in_{}", self.number()), format!("pi_{}", self.number()), &session.form);
        let price: u64 = form["line_items[0][price_data][unit_amount]"].parse().unwrap();
        let amount = amount.unwrap_or(price);
        let (currency, metadata) = (
            &form["line_items[0][price_data][currency]"],
            Self::metadata(form, "subscription_data[metadata]"),
        );
        let intent = json!({
            "id": payment, "object": "payment_intent", "amount": amount, "currency": currency, "status": "succeeded",
            "metadata": {}, "latest_charge": format!("ch_{payment}"),
        });
        let line = |end: u64, proration: bool| {
            let period = json!({ "start": end - 2_592_000, "end": end });
            json!({ "type": "subscription", "period": period, "proration": proration, "metadata": metadata })
        };
        let lines = json!({ "data": [line(end + 999_999, true), line(end, false)] });
        let invoice = json!({
            "id": id, "object": "invoice", "status": "paid", "billing_reason": reason, "amount_paid": amount, "currency": currency, "lines": lines,
            "customer": "cus_sub", "payment_intent": (amount > 0).then_some(&payment), "subscription_details": { "metadata": metadata },
        });
        let mut later = invoice.clone();
        let fields = later.as_object_mut().unwrap();
        fields.remove("payment_intent");
        let details = fields.remove("subscription_details");
        fields.insert("parent".to_owned(), json!({ "subscription_details": details }));
        let mut state = self.state.lock().unwrap();
        state.intents.insert(payment.clone(), intent);
        state.invoices.insert(id, invoice);
        drop(state);
        (self.event("invoice.paid", &later), payment)
    }

    /// Charges a saved card. The same key and form are answered alike.
    fn charge(&self, body: &str, once: String) -> (u16, Value) {
        let form = decoded(body);
        let known = self.state.lock().unwrap().charges.get(&once).cloned();
        if let Some((before, status, answer)) = known {
            return match before == body {
                true => (status, answer),
                false => (400, json!({ "error": { "type": "idempotency_error" } })),
            };
        }
        assert_eq!((form["confirm"].as_str(), form["off_session"].as_str()), ("true", "true"));
        assert!(form["customer"].starts_with("cus_") && form["payment_method"].starts_with("pm_"));
        let id = format!("pi_{}", self.number());
        let fault = self.state.lock().unwrap().fault;
        let status = if fault == Some("processing") { "processing" } else { "succeeded" };
        let intent = json!({
            "id": id, "object": "payment_intent", "amount": form["amount"].parse::<u64>().unwrap(), "status": status,
            "currency": form["currency"], "metadata": Self::metadata(&form, "metadata"), "customer": form["customer"],
            "payment_method": form["payment_method"], "latest_charge": format!("ch_{id}"),
        });
        let answer = match fault {
            Some("declined") => {
                let error = json!({ "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "secret text" });
                (402, json!({ "error": error }))
            }
            Some("busy") => return (429, json!({ "error": { "type": "rate_limit_error" } })), // nothing is kept of it
            _ => (200, intent.clone()),
        };
        let mut state = self.state.lock().unwrap();
        state.charges.insert(once, (body.to_owned(), answer.0, answer.1.clone()));
        if answer.0 == 200 {
            state.intents.insert(id, intent);
        }
        answer
    }

    /// The payment intent with an id.
    pub(super) fn intent(&self, id: &str) -> Value {
        self.state.lock().unwrap().intents[id].clone()
    }

    /// The payments by saved cards, with the number of the top-up.
    pub fn charged(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.intents.values().filter(|it| it["metadata"]["tollgate_top_up"].is_string()).cloned().collect()
    }

    pub(super) fn event(&self, kind: &str, object: &Value) -> Value {
        json!({
            "id": format!("evt_{}", self.number()), "object": "event", "api_version": "2024-06-20", "type": kind,
            "created": seconds(), "livemode": false, "pending_webhooks": 1, "data": { "object": object },
        })
    }
}
