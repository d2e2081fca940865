//! Sends e-mail to people who use the dashboard.

use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::AsyncSmtpTransport;
use lettre::{AsyncTransport, Message, Tokio1Executor};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::quota::Quota;
use crate::snapshot::dashboard::{Dashboard, Smtp};
use crate::types::Moment;

/// Most letters that are being sent or wait to be.
const MAX_WAITING: usize = 1_000;
/// How often a letter is tried.
const TRIES: u32 = 3;
/// The pause after the first try; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time of one try.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An e-mail in plain text.
pub(super) struct Letter {
    to: String,
    subject: &'static str,
    text: String,
}

impl Letter {
    /// A link that signs in.
    pub(super) fn sign_in(to: String, url: &str) -> Self {
        let text = format!(
            "Sign in with this link. It works once, for a day:\n\n{url}\n\nIf you did not ask for it, ignore this message.\n"
        );
        Self { to, subject: "Your sign-in link", text }
    }

    /// A link that verifies the address of a new user.
    pub(super) fn verify(to: String, url: &str) -> Self {
        let text = format!(
            "Welcome. Confirm your e-mail address with this link; it works for a day:\n\n{url}\n\nIf you did not sign up, ignore this message.\n"
        );
        Self { to, subject: "Confirm your e-mail address", text }
    }

    /// A link for somebody who signed up twice.
    pub(super) fn known(to: String, url: &str) -> Self {
        let text = format!(
            "Somebody signed up with your e-mail address, but you have an account already. Sign in with this link; it works once, for a day:\n\n{url}\n\nIf it was not you, ignore this message.\n"
        );
        Self { to, subject: "You have an account already", text }
    }

    /// An invitation.
    pub(super) fn invitation(to: String, by: &str, url: &str) -> Self {
        let by = by.strip_prefix("user:").unwrap_or("The operator");
        let text = format!("{by} invites you. Accept with this link; it works once, for a week:\n\n{url}\n");
        Self { to, subject: "You are invited", text }
    }
}

/// What is told by e-mail when something happens.
fn subject_of(kind: &str) -> &'static str {
    match kind {
        "credits.low" => "Credits run low",
        "credits.exhausted" => "Credits are used up",
        "limit.reached" => "A limit was reached",
        "key.expiring" => "A key expires soon",
        "key.leaked" => "A key was found in public",
        "webhook.test" => "A test",
        _ => "Something changed in your account",
    }
}

impl Letter {
    /// What happened in an account. `event`: the message of the webhook, as JSON; `url`: the dashboard's address.
    fn event(to: String, event: &str, url: &str) -> Self {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        let subject = subject_of(event["type"].as_str().unwrap_or_default());
        let fields = event["data"].as_object().into_iter().flatten();
        let line = |(name, value): (&String, &Value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}: {value}\n", name.replace('_', " "))
        };
        let lines: String = fields.map(line).collect();
        let text = format!(
            "{subject}.\n\n{lines}\nSee {url}\nThere, or on the page Webhooks, these messages can be stopped.\n"
        );
        Self { to, subject, text }
    }
}

/// Sends letters, each in a task of its own, and to one recipient only so many.
#[derive(Clone, Debug)]
pub(super) struct Mailer {
    places: Arc<Semaphore>,
    /// Letters about signing in to each recipient.
    letters: Arc<Quota<String>>,
    /// Letters about events.
    alerts: Arc<Quota<String>>,
}

impl Default for Mailer {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            letters: Arc::new(Quota::of_letters()),
            alerts: Arc::new(Quota::of_letters()),
        }
    }
}

impl Mailer {
    /// Sends a letter soon, if e-mail is configured. What cannot be sent is logged without its text.
    pub(super) fn send(&self, dashboard: &Dashboard, letter: Letter, now: Moment) {
        let Some(smtp) = dashboard.smtp.clone() else { return };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::error!(waiting = MAX_WAITING, "an e-mail is not sent: too many wait");
            return;
        };
        if self.letters.take(letter.to.to_lowercase(), now).is_err() {
            tracing::warn!("an e-mail is not sent: its recipient got many within the last hour");
            return;
        }
        let subject = format!("{}: {}", dashboard.name, letter.subject);
        tokio::spawn(async move {
            if let Err(error) = deliver(&smtp, subject, letter).await {
                tracing::error!(%error, "an e-mail could not be sent");
            }
            drop(place);
        });
    }

    /// Tells about an event, once: who calls it tries again later.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(super) async fn tell(
        &self,
        dashboard: &Dashboard,
        to: String,
        event: &str,
        url: &str,
        now: Moment,
    ) -> Result<(), String> {
        let smtp = dashboard.smtp.as_ref().ok_or("e-mail is not configured")?;
        let wait = |seconds| format!("this address got many letters; the next one in {seconds} s");
        self.alerts.take(to.to_lowercase(), now).map_err(wait)?;
        let letter = Letter::event(to, event, url);
        let subject = format!("{}: {}", dashboard.name, letter.subject);
        let (transport, message) = prepared(smtp, subject, letter)?;
        let sent = tokio::time::timeout(TIMEOUT, transport.send(message)).await;
        let late = |_| format!("no answer of the mail server within {} s", TIMEOUT.as_secs());
        sent.map_err(late)?.map(drop).map_err(|error| error.to_string())
    }
}

/// An SMTP connection, and the letter as it is sent.
fn prepared(
    smtp: &Smtp,
    subject: String,
    letter: Letter,
) -> Result<(AsyncSmtpTransport<Tokio1Executor>, Message), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let from = smtp.from.parse().map_err(|error: lettre::address::AddressError| text(&error))?;
    let to = letter.to.parse().map_err(|error: lettre::address::AddressError| text(&error))?;
    let message = Message::builder().from(from).to(to).subject(subject).header(ContentType::TEXT_PLAIN);
    let message = message.body(letter.text).map_err(|error| text(&error))?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp.url.reveal());
    Ok((transport.map_err(|error| text(&error))?.timeout(Some(TIMEOUT)).build(), message))
}

async fn deliver(smtp: &Smtp, subject: String, letter: Letter) -> Result<(), String> {
    let (transport, message) = prepared(smtp, subject, letter)?;
    let mut pause = PAUSE;
    for left in (0..TRIES).rev() {
        match transport.send(message.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if left == 0 || error.is_permanent() => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
    Ok(())
}
