//! Sends messages that are due, and writes what became of them.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::client::{Client, Sent};
use super::schedule::{Answer, after};
use crate::control::Control;
use crate::control::operations::{MAILTO, OperationError, Result};
use crate::ledger::store::{
    AfterAttempt, Attempt, DueDelivery, EventKind, EventRow, ExpiringKey, Note, Once,
};
use crate::policy::key::signature::sign;
use crate::types::WallTime;

/// Most messages that are sent at the same time.
const MAX_AT_ONCE: usize = 64;
/// Longest text of an error that is kept, in characters.
const MAX_ERROR: usize = 200;
/// The status of a letter that a mail server accepted (RFC 5321, section 4.2.3).
const ACCEPTED: u16 = 250;
/// How often is looked for keys that expire soon, and for old deliveries, in milliseconds.
const CARE_EVERY: i64 = 60_000;
/// How long before its expiry `key.expiring` is sent, in milliseconds: a week.
const EXPIRING_BEFORE: i64 = 7 * 24 * 3600 * 1000;
/// Most keys that expire soon whose events are written in one transaction.
const MAX_EXPIRING: usize = 1_000;
/// How long deliveries are listed after their event, in milliseconds: 30 days.
const KEEP_DELIVERIES: i64 = 30 * 24 * 3600 * 1000;

/// What became of an attempt, with its delivery.
type Tried = (DueDelivery, std::result::Result<(Answer, String), String>);

/// Messages on their way.
#[derive(Default)]
struct Sending {
    /// Made for the first message.
    client: Option<Client>,
    tasks: JoinSet<Tried>,
    /// Deliveries that are being sent, or whose attempt is not written yet.
    in_flight: HashSet<u64>,
    /// Attempts that are not written yet: at most as many as are in flight.
    tried: Vec<Attempt>,
}

/// What `key.expiring` tells about a key: once for each expiry.
fn expiring(key: ExpiringKey) -> Note {
    let ExpiringKey { id, account, expires, .. } = key;
    let data = serde_json::json!({ "account": account, "key": id, "expires": expires.to_string() });
    let once = Some(Once { object: format!("{:016x}/{}", id.0, expires.0), per: None });
    Note::Event(EventRow { account: Some(account), kind: EventKind::KeyExpiring, data, once })
}

impl Control {
    /// Sends messages until the task is aborted. Messages in flight are sent again after a restart.
    pub async fn deliver_webhooks(self: Arc<Self>) {
        let mut sending = Sending::default();
        let mut cared = WallTime(0);
        if self.has_endpoints().await.unwrap_or(true) {
            self.doorbell.ring();
        }
        loop {
            tokio::select! {
                () = self.doorbell.next() => {}
                Some(Ok(tried)) = sending.tasks.join_next() => sending.tried.push(self.attempted(tried)),
            }
            while let Some(Ok(tried)) = sending.tasks.try_join_next() {
                sending.tried.push(self.attempted(tried));
            }
            let now = self.clock.wall();
            let mut done = self.write_attempts(&mut sending).await;
            if now.0.saturating_sub(cared.0) >= CARE_EVERY {
                cared = now;
                done = done.and(self.care(now).await);
            }
            if let Err(error) = done.and(self.send_due(&mut sending, now).await) {
                tracing::warn!(%error, "webhooks could not be read or written; trying again");
            }
        }
    }

    /// Starts to send what is due.
    async fn send_due(self: &Arc<Self>, sending: &mut Sending, now: WallTime) -> Result<()> {
        // Those in flight are due as well.
        let due = self.read_webhooks(move |webhooks| Ok(webhooks.due(now, 2 * MAX_AT_ONCE)?)).await?;
        for delivery in due {
            if sending.in_flight.len() < MAX_AT_ONCE && sending.in_flight.insert(delivery.num) {
                if let Some(to) = delivery.endpoint.url.strip_prefix(MAILTO).map(str::to_owned) {
                    sending.tasks.spawn(Arc::clone(self).mail(to, delivery));
                    continue;
                }
                let client = sending.client.get_or_insert_with(Client::new);
                sending.tasks.spawn(self.attempt(client, delivery));
            }
        }
        Ok(())
    }

    /// Writes what became of attempts. Until that succeeds, their messages are not sent again by this process.
    async fn write_attempts(&self, sending: &mut Sending) -> Result<()> {
        if sending.tried.is_empty() {
            return Ok(());
        }
        let attempts = sending.tried.clone();
        self.bookkeeper.webhooks(move |webhooks, at| webhooks.attempted(&attempts, at)).await?;
        for attempt in sending.tried.drain(..) {
            sending.in_flight.remove(&attempt.num);
        }
        Ok(())
    }

    async fn has_endpoints(&self) -> Result<bool> {
        self.read_webhooks(|webhooks| Ok(!webhooks.endpoints(None)?.is_empty())).await
    }

    /// One attempt to deliver a message.
    fn attempt(
        &self,
        client: &Client,
        delivery: DueDelivery,
    ) -> impl Future<Output = Tried> + Send + 'static {
        let (client, now) = (client.clone(), self.clock.wall());
        let allowed = self.snapshot().settings.webhooks_allow_private.clone();
        async move {
            let endpoint = &delivery.endpoint;
            let old =
                endpoint.old.as_ref().filter(|(_, until)| *until > now).map(|(secret, _)| secret.as_str());
            let secrets = std::iter::once(endpoint.secret.as_str()).chain(old);
            let timestamp = now.0.div_euclid(1000);
            let signature = sign(secrets, &delivery.message, timestamp, &delivery.body);
            let (id, body) = (delivery.message.clone(), delivery.body.clone());
            let result = client.send(&endpoint.url, &allowed, Sent { id, timestamp, signature, body }).await;
            (delivery, result)
        }
    }

    /// One attempt to tell somebody by e-mail.
    async fn mail(self: Arc<Self>, to: String, delivery: DueDelivery) -> Tried {
        let told = async {
            let account = delivery.endpoint.account.as_ref();
            let may = self.may_get_mail(account, &to).await.map_err(|error| error.to_string())?;
            if !may {
                return Err("nobody with this address has access any more".to_owned());
            }
            let dashboard = self.dashboard().map_err(|error| error.to_string())?;
            let base = self.dashboard_url().map_err(|error| error.to_string())?;
            let url = account.map_or_else(
                || format!("{base}/operator"),
                |account| format!("{base}/accounts/{account}/credits"),
            );
            self.people.mailer.tell(&dashboard, to, &delivery.body, &url, self.clock.now()).await
        };
        let told = told.await.map(|()| (Answer { status: Some(ACCEPTED), retry_after: None }, String::new()));
        (delivery, told)
    }

    /// What became of an attempt.
    fn attempted(&self, (delivery, result): Tried) -> Attempt {
        let now = self.clock.wall();
        let no_answer = Answer { status: None, retry_after: None };
        let (answer, error) = match result {
            Ok((answer, said)) => (answer, Some(said)),
            Err(error) => (no_answer, Some(error)),
        };
        let error = error.map(|error| error.trim().chars().take(MAX_ERROR).collect::<String>());
        let then = after(answer, delivery.attempts, fastrand::f64(), now);
        let result = self.deliveries.count(&then);
        let error = error.filter(|error| then != AfterAttempt::Delivered && !error.is_empty());
        let (endpoint, status) = (&delivery.endpoint.id, answer.status);
        // What an endpoint says may be private.
        let why = error.as_deref().filter(|_| status.is_none());
        tracing::debug!(endpoint, result, status, error = why, id = delivery.message, "a webhook was tried");
        Attempt { num: delivery.num, status, error, then }
    }

    /// Writes `key.expiring` for keys that expire soon, asks for credits of renewals that are due, and deletes old
    /// deliveries.
    async fn care(&self, now: WallTime) -> Result<()> {
        let until = WallTime(now.0.saturating_add(EXPIRING_BEFORE));
        let (mut after, mut is_done) = (None, false);
        while !is_done {
            let keys = self
                .read_webhooks(move |webhooks| Ok(webhooks.expiring((now, until), after, MAX_EXPIRING)?));
            let keys = keys.await?;
            after = keys.last().map(|last| (last.expires, last.num));
            is_done = keys.len() < MAX_EXPIRING;
            let notes: Vec<Note> = keys.into_iter().map(expiring).collect();
            if !notes.is_empty() {
                self.bookkeeper.note(notes).await?;
            }
        }
        while self.bookkeeper.webhooks(move |webhooks, _| webhooks.renew_due(now, MAX_EXPIRING)).await?
            >= MAX_EXPIRING
        {}
        let before = WallTime(now.0.saturating_sub(KEEP_DELIVERIES));
        Ok(self.bookkeeper.webhooks(move |webhooks, _| webhooks.prune_deliveries(before)).await?)
    }

    /// Reads webhooks on a blocking thread.
    pub(in crate::control) async fn read_webhooks<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn crate::ledger::store::WebhookReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let none = || OperationError::Unavailable("this ledger has no webhooks".to_owned());
        self.read(move |reader| read(reader.webhooks().ok_or_else(none)?)).await
    }
}
