//! What the stand-in tells after a payment, and how its messages are signed.

use std::net::SocketAddr;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::stand_in::{Session, StandIn, WEBHOOK_SECRET};
use crate::support::{Response, post};

impl StandIn {
    /// A subscription ended.
    pub fn ended(&self, session: &Session) -> Value {
        let metadata = Self::metadata(&session.form, "subscription_data[metadata]");
        self.event(
            "customer.subscription.deleted",
            &json!({ "id": "sub_1", "status": "canceled", "metadata": metadata }),
        )
    }

    /// The event that a payment arrived, or failed.
    pub fn outcome(&self, intent: &Value, is_paid: bool) -> Value {
        let mut intent = intent.clone();
        if is_paid {
            intent["status"] = json!("succeeded");
            return self.event("payment_intent.succeeded", &intent);
        }
        intent["last_payment_error"] = json!({ "type": "card_error", "code": "expired_card" });
        self.event("payment_intent.payment_failed", &intent)
    }

    /// The event of a refund, after which so much is refunded in all.
    pub fn refunded(&self, payment: &str, in_all: u64) -> Value {
        let intent = self.intent(payment);
        let charge = json!({
            "id": intent["latest_charge"], "object": "charge", "payment_intent": payment, "amount": intent["amount"],
            "amount_refunded": in_all, "refunded": intent["amount"] == in_all, "currency": intent["currency"],
            "metadata": intent["metadata"],
        });
        self.event("charge.refunded", &charge)
    }

    /// The event of a dispute.
    pub fn disputed(&self, payment: &str, id: &str, amount: u64, (kind, status): (&str, &str)) -> Value {
        let dispute = json!({
            "id": id, "object": "dispute", "charge": format!("ch_{payment}"), "payment_intent": payment,
            "amount": amount, "currency": "eur", "status": status, "reason": "fraudulent", "metadata": {},
        });
        self.event(&format!("charge.dispute.{kind}"), &dispute)
    }
}

pub fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The header that signs a body.
pub fn signature(secret: &str, at: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex},v0=0123")
}

/// Sends a text with a signature.
pub fn send(to: SocketAddr, signature: &str, body: &str) -> Response {
    let headers = format!(
        "content-type: application/json\r\nstripe-signature: {signature}\r\nuser-agent: Stripe/1.0\r\n"
    );
    post(to, "/payments/stripe", &headers, body)
}

/// Sends an event as Stripe does.
pub fn deliver(to: SocketAddr, event: &Value) -> Response {
    let body = event.to_string();
    send(to, &signature(WEBHOOK_SECRET, seconds(), &body), &body)
}
